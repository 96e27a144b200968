"""Threads from the cgroup's CPU quota.

OpenMP and MKL count the machine's cores and ignore the quota of the container: with more threads than cores they wait
for each other at barriers, and a step takes several times as long. They read their settings once, when their library
is loaded, so this runs before torch or numpy is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
from collections.abc import MutableMapping
from pathlib import Path

from strop_trainer.cgroups import levels
from strop_trainer.errors import bad_configuration

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
ROUND_UP = 0.25
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
LARGE_BYTES = 16 << 20
"""From here on, an allocation is a mapping of its own: few in a step, and kept in the heap they would leave holes."""
KEEP_BYTES = 1 << 30


def quota_v2(text: str) -> float | None:
    """Read `cpu.max`: "150000 100000" is 1.5 CPUs, "max 100000" is no quota."""
    quota, _, period = text.strip().partition(" ")
    if quota == "max" or not period:
        return None
    return int(quota) / int(period)


def quota_v1(quota: str, period: str) -> float | None:
    """Read `cpu.cfs_quota_us` and `cpu.cfs_period_us`; a quota of -1 is none."""
    return int(quota) / int(period) if int(quota) > 0 else None


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """Return the CPUs that this process may use by its cgroup and all above it, or None where nothing limits it."""
    return min((quota for level in levels("cpu", root) if (quota := _quota_of(level)) is not None), default=None)


def _quota_of(group: Path) -> float | None:
    try:
        if (group / "cpu.max").exists():
            return quota_v2((group / "cpu.max").read_text())
        return quota_v1((group / "cpu.cfs_quota_us").read_text(), (group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None


def real_cores(cpus: set[int], root: Path = Path("/")) -> int:
    """Count the physical cores behind a set of logical CPUs; two hyperthreads of one core count once."""
    cores = set()
    for cpu in cpus:
        siblings = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        try:
            cores.add(re.split(r"[,-]", siblings.read_text().strip())[0])
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))


def decide_threads(quota: float | None, cores: int, ranks: int, asked: str | None = None) -> int:
    """Return the threads of one rank: whole CPUs of the quota, at most the real cores, shared by the ranks of a node.

    A quota that misses a whole CPU by a quarter or less counts as one: the little throttling costs less than the core.

    Args:
        quota: CPUs of the cgroup, or None.
        cores: physical cores that may be used.
        ranks: training processes on this node.
        asked: STROP_THREADS, which wins.
    """
    if asked:
        if not asked.isdigit() or int(asked) < 1:
            raise bad_configuration(f"STROP_THREADS: found {asked!r}, expected a whole number of at least 1")
        return int(asked)
    usable = cores if quota is None else min(cores, max(1, int(quota + ROUND_UP)))
    return max(1, usable // max(1, ranks))


def set_threads(environment: MutableMapping[str, str], ranks: int) -> tuple[int, str]:
    """Set the thread variables; return the number and, in words, where it is from."""
    quota, cores = cgroup_quota(), real_cores(os.sched_getaffinity(0))
    asked = environment.get("STROP_THREADS")
    threads = decide_threads(quota, cores, ranks, asked)
    for variable in VARIABLES:
        environment[variable] = str(threads)
    environment["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    environment["RAYON_NUM_THREADS"] = str(threads)
    limit = "no quota" if quota is None else f"a quota of {quota:g} CPUs"
    return threads, "STROP_THREADS" if asked else f"{limit}, {cores} cores, {ranks} rank(s) a node"


def keep_freed_memory() -> bool:
    """Let glibc reuse freed memory instead of giving it back to the kernel; return whether it is glibc.

    A training step allocates and frees the same megabytes thousands of times. By default each time is a fresh mapping
    whose pages the kernel must zero, which on a CPU costs more than much of the arithmetic.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)) and bool(mallopt(M_TRIM_THRESHOLD, KEEP_BYTES))


def give_back_freed_memory() -> None:
    """Give what is free to the kernel: between stages, of which the next must not pay for what the one before held."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
