"""The control groups that this process is in: where its limits are, and those of all groups above."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_UNLIMITED: Final = 1 << 60
"""cgroup v1 says a number of about 2^63 where nothing limits it."""


def levels(controller: str, root: Path = Path("/")) -> list[Path]:
    """Return the folders of this process's group and of those above it, of cgroup v1's controller and of v2.

    Args:
        controller: such as `cpu` or `memory`.
        root: of the file system.
    """
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            bases = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif controller in controllers.split(","):
            bases = [root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup" / controller]
        else:
            continue
        # In a container the path is the host's, and only the mount's root is there: missing levels are passed over.
        steps = [part for part in path.split("/") if part and part != ".."]
        found += [base.joinpath(*steps[:depth]) for base in bases for depth in range(len(steps) + 1)]
    return found


def lowest_memory_limit(root: Path = Path("/")) -> tuple[Path, int] | None:
    """Return the group whose memory limit this process meets first, and the limit in bytes; None: nothing limits it."""
    found = [(level, limit) for level in levels("memory", root) if (limit := _memory_limit(level)) is not None]
    return min(found, key=lambda each: each[1], default=None)


def _memory_limit(level: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            text = (level / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdigit() and int(text) < _UNLIMITED:
            return int(text)
    return None
