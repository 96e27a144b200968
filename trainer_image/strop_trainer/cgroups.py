"""The control groups that this process is in: where its limits are, and those of all groups above."""

from __future__ import annotations

from pathlib import Path


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
