"""A trainer that stands still at its memory limit is ended, with words.

Where the memory of a process nearly fills its limit, the kernel need not end it: it drops pages of the libraries,
which are read again at the next instruction, and as there are always some to be dropped, this goes on without an end.
Seen with a limit of 640 MiB: 97 % of it the process's own, 600 MB of libraries read again a second, and no step in
minutes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from strop_trainer.cgroups import lowest_memory_limit

INTERVAL_SECONDS: Final = 10.0
LOOKS: Final = 4
"""So many in a row must say the same: half a minute."""
FULL: Final = 0.9
"""Share of the limit that is the process's own from which on it can stand still."""
AGAIN: Final = 2500
"""Pages a second that are read again: 10 MB, a tenth of what a hard disk gives."""
BUSY: Final = 0.2
"""CPUs in its own code from which on a process does not stand still; of less than a CPU, that share of it."""
END_SECONDS: Final = 10.0
"""That ranks which are ended are waited for: their memory is given back first."""
_NAMES: Final = (("rss", "anon"), ("workingset_refault_file", "workingset_refault_file"))
"""Of what is the process's own and of what was read again, in cgroup v1 and v2."""


@dataclass(frozen=True)
class Look:
    """What a look at the process's group found.

    Args:
        seconds: of a clock that never goes back.
        limit: bytes that the group may have.
        own: bytes of the group that are in no file.
        again: pages of files so far that were dropped and read again.
        busy: CPU seconds so far that the process and its ranks were in their own code.
    """

    seconds: float
    limit: int
    own: int
    again: int
    busy: float


class MemoryGroup:
    """The group of this process with the lowest memory limit."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self.limit = folder, limit

    def look(self) -> Look | None:
        """Return what it says now; None where the kernel does not count what is read again."""
        try:
            lines = (self._folder / "memory.stat").read_text().splitlines()
        except OSError:
            return None
        found = dict(line.split(" ", 1) for line in lines if " " in line)
        # cgroup v1 has the sum with the groups below under a name of its own.
        own, again = (found.get(f"total_{old}", found.get(new)) for old, new in _NAMES)
        if own is None or again is None:
            return None
        return Look(time.monotonic(), self.limit, int(own), int(again), busy_seconds())


def busy_seconds() -> float:
    """Return the CPU seconds that this process and all that it started were in their own code."""
    found = os.times()
    seconds = found.user + found.children_user
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            seconds += child.cpu_times().user
    return seconds


def end_ranks() -> None:
    """End all that this process started, and see it gone; outside a container they would live on without it."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(children, timeout=END_SECONDS)


def memory_group(root: Path = Path("/")) -> MemoryGroup | None:
    """Return the group whose limit this process meets first; None where nothing limits it."""
    found = lowest_memory_limit(root)
    return None if found is None else MemoryGroup(*found)


def stands_still(looks: Sequence[Look], cpus: float) -> bool:
    """Return whether a process did nothing but read its libraries again between all of these looks.

    Args:
        looks: in their order.
        cpus: that it may use.
    """
    if len(looks) < LOOKS:
        return False
    return all(
        later.own >= FULL * later.limit
        and later.again - before.again >= AGAIN * (later.seconds - before.seconds)
        and later.busy - before.busy < BUSY * min(1.0, cpus) * (later.seconds - before.seconds)
        for before, later in itertools.pairwise(looks)
    )


class Watch:
    """Looks at the group every few seconds, in a thread of its own."""

    def __init__(
        self, group: MemoryGroup, cpus: float, end: Callable[[int], None], *, interval: float = INTERVAL_SECONDS
    ) -> None:
        """Begin to look.

        Args:
            group: of this process.
            cpus: that it may use.
            end: is called with the limit where it stands still; once.
            interval: seconds between two looks.
        """
        self._group, self._cpus, self._end, self._interval = group, cpus, end, interval
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._look, name="standstill", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()

    def _look(self) -> None:
        looks: list[Look] = []
        while not self._closing.wait(self._interval):
            found = self._group.look()
            if found is None:
                return
            looks = [*looks, found][-LOOKS:]
            if stands_still(looks, self._cpus):
                self._end(self._group.limit)
                return
