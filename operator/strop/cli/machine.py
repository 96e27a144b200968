"""This machine as a pool: what the embedded default plans for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from strop.api.computepool import AcceleratorSpec, ComputePoolSpec
from strop.planning.inputs import Pool
from strop_trainer.cgroups import lowest_memory_limit

NAME: Final = "this-machine"
_MIB: Final = 1024**2


def this_machine(root: Path = Path("/")) -> Pool:
    """Return the pool of one node that is this machine, or the container that this runs in."""
    return Pool(
        NAME,
        ComputePoolSpec(
            cpu_per_node=str(len(os.sched_getaffinity(0))),
            memory_per_node=f"{memory_bytes(root) // _MIB}Mi",
            accelerator=nvidia_accelerator(),
            cost=0,
        ),
    )


def memory_bytes(root: Path = Path("/")) -> int:
    """Return the memory of this machine, or of the container's limit where it is smaller."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limited = lowest_memory_limit(root)
    return total if limited is None else min(total, limited[1])


def nvidia_accelerator() -> AcceleratorSpec | None:
    """Return this machine's NVIDIA accelerators, as far as `nvidia-smi` names any; one is used."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    sizes = [int(line) for line in answer.split() if line.isdecimal()]
    if not sizes:
        return None
    return AcceleratorSpec(resource_name="nvidia.com/gpu", memory=f"{min(sizes)}Mi", per_node=len(sizes))
