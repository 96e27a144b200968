"""Training state on disk: a checkpoint is there as a whole or not at all, and holds nothing that runs when loaded.

A checkpoint is a folder: tensors as safetensors, in as many files as keep what is written at a time small, the rest as
JSON, and a manifest of sha256 that is written last. It is made under a temporary name, flushed, renamed and the rename
flushed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop_trainer.context import say

NAME = re.compile(r"step-(\d{9})")
STATE, TENSORS, MANIFEST = "state.json", "tensors.safetensors", "manifest.json"
FILE = re.compile(r"tensors(-[1-9]\d*)?\.safetensors")
FILE_BYTES = 256 << 20
"""Writing takes as much memory again."""


@dataclass(frozen=True)
class Checkpoint:
    """State as it was after a number of optimizer steps."""

    step: int
    tensors: dict[str, Any]
    state: dict[str, Any]
    """JSON."""


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Iterable[tuple[str, Any]],
    state: Mapping[str, Any],
    *,
    keep: int,
    identity: Mapping[str, str],
) -> Path:
    """Save a checkpoint, and then remove all but the `keep` newest.

    The newest are those that this run goes on from: from this one back. What another run has left, and what is of a
    later step, which this run has found damaged, are kept only for as long as there are not as many: nothing is removed
    before what replaces it is there, and no more room is taken.

    Args:
        folder: parent of all checkpoints.
        step: optimizer steps done.
        tensors: names and tensors, taken one after the other.
        state: JSON values.
        keep: newest checkpoints that are kept, this one included.
        identity: what a run must have in common with this one to resume from it, such as the plan's digest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final, staging = folder / f"step-{step:09d}", folder / f".step-{step:09d}.part"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    files = _write_tensors(staging, tensors)
    (staging / STATE).write_text(json.dumps({"identity": dict(identity), **state}, allow_nan=False))
    manifest = {name: _sha256(staging / name) for name in (*files, STATE)}
    (staging / MANIFEST).write_text(json.dumps({"step": step, "sha256": manifest}))
    for name in (*files, STATE, MANIFEST, "."):
        _flush(staging / name)
    if final.exists():
        shutil.rmtree(final)
    staging.rename(final)
    _flush(folder)
    steps = _steps(folder)
    own = [each for each in steps if each <= step and _is_of(folder / f"step-{each:09d}", identity)]
    for old in [*own, *(each for each in steps if each not in own)][keep:]:
        shutil.rmtree(folder / f"step-{old:09d}", ignore_errors=True)
    return final


def _is_of(path: Path, identity: Mapping[str, str]) -> bool:
    """Whether a checkpoint says that it is of this very run."""
    try:
        found = json.loads((path / STATE).read_bytes())["identity"]
    except (OSError, ValueError, KeyError):
        return False
    return all(found.get(name) == value for name, value in identity.items())


def _write_tensors(folder: Path, tensors: Iterable[tuple[str, Any]]) -> list[str]:
    """Write tensors to as many files as they need, of about FILE_BYTES at most; return the names of the files."""
    from safetensors.torch import save_file  # noqa: PLC0415 - imports torch

    files: list[str] = []
    held: dict[str, Any] = {}
    size = 0

    def write() -> None:
        files.append(f"tensors-{len(files)}.safetensors" if files else TENSORS)
        save_file(held, folder / files[-1])
        held.clear()

    for name, tensor in tensors:
        if held and size + tensor.nbytes > FILE_BYTES:
            write()
            size = 0
        held[name] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
    write()
    return files


def load_newest(folder: Path, identity: Mapping[str, str]) -> Checkpoint | None:
    """Return the newest valid checkpoint of this very run; others are passed over, and why is logged."""
    for part in folder.glob(".step-*.part") if folder.is_dir() else ():
        say(f"  {part.name}: half-written checkpoint, removed")
        shutil.rmtree(part, ignore_errors=True)
    for step in _steps(folder):
        try:
            return _load(folder / f"step-{step:09d}", step, identity)
        except (OSError, ValueError, KeyError) as error:
            say(f"  checkpoint of step {step} is not used: {error}")
    return None


def _load(path: Path, step: int, identity: Mapping[str, str]) -> Checkpoint:
    from safetensors.torch import load_file  # noqa: PLC0415 - imports torch

    if not (path / MANIFEST).is_file():
        raise ValueError("it has no manifest")
    manifest = json.loads((path / MANIFEST).read_bytes())
    files = sorted(set(manifest["sha256"]) - {STATE})
    known = STATE in manifest["sha256"] and TENSORS in files and all(FILE.fullmatch(name) for name in files)
    if manifest["step"] != step or not known:
        raise ValueError("its manifest is not one of ours")
    for name, expected in manifest["sha256"].items():
        if _sha256(path / name) != expected:
            raise ValueError(f"{name} is not what was written")
    state = json.loads((path / STATE).read_bytes())
    found = state.pop("identity")
    for name, value in identity.items():
        if found.get(name) != value:
            raise ValueError(f"it is of another {name}")
    tensors: dict[str, Any] = {}
    for name in files:
        tensors |= load_file(path / name)
    return Checkpoint(step, tensors, state)


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted((int(match[1]) for path in folder.iterdir() if (match := NAME.fullmatch(path.name))), reverse=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
