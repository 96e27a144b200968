"""Peers that are not in the project's lock: each has an environment of its own outside the tree, from a hashed lock."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.paths import CACHE

LOCKS = Path(__file__).resolve().parent
MINUTES = 20


class PeerError(RuntimeError):
    """A peer cannot be installed, or did not train."""


def _uv(*arguments: str) -> None:
    """Run uv, which links what another environment has from its cache.

    Raises:
        PeerError: it failed; its last line says why.
    """
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    ended = subprocess.run(
        [uv, *arguments], capture_output=True, text=True, timeout=MINUTES * 60, check=False, env=os.environ
    )
    if ended.returncode:
        raise PeerError(f"uv: {(ended.stderr.strip().splitlines() or ['no word'])[-1]}")


def _made(name: str) -> tuple[Path, Path, bool]:
    """Return the folder of a peer, its lock, and whether it is made; another lock is another folder."""
    lock = LOCKS / f"{name}.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder = CACHE / "benchmarks" / f"{name}-{digest}"
    return folder, lock, (folder / ".made").exists()


def python_of(name: str) -> Path:
    """Return the Python of a peer's environment, which is made where it is not there.

    Raises:
        PeerError: it cannot be made.
    """
    folder, lock, made = _made(name)
    if not made:
        _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
        python = str(folder / "bin" / "python")
        _uv("pip", "install", "--quiet", "--no-deps", "--require-hashes", "--python", python, "-r", str(lock))
        (folder / ".made").touch()
    return folder / "bin" / "python"


def packages_of(name: str) -> Path:
    """Return a folder for PYTHONPATH with a peer that needs no environment: its libraries are the project's.

    Raises:
        PeerError: it cannot be made.
    """
    folder, lock, made = _made(name)
    if not made:
        _uv("pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(folder), "-r", str(lock))
        (folder / ".made").touch()
    return folder
