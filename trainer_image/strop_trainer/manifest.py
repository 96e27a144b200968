"""manifest.json: size and sha256 of every file of a version, and what made it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, field_validator

from strop_trainer.plan import PlanModel

SCHEMA: Literal["strop.dev/manifest/v1alpha1"] = "strop.dev/manifest/v1alpha1"
NAME = "manifest.json"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"


class FileEntry(PlanModel):
    """One file."""

    path: str
    """Relative to the version, with `/`."""
    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    sha256: Annotated[str, Field(pattern=DIGEST_PATTERN)]

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or str(PurePosixPath(path)) != path:
            raise ValueError(f"path: found {path!r}, expected one inside the version")
        return path


class Manifest(PlanModel):
    """What a version consists of. It is written last: a folder without it is no version."""

    schema_: Literal["strop.dev/manifest/v1alpha1"] = Field(default=SCHEMA, alias="schema")
    model: str
    job_uid: str
    """Of the job that published it; the same job publishes once."""
    plan_digest: str
    created_at: str
    """RFC 3339, UTC."""
    aliases: list[str] = []
    """Names that the job asked for; an alias belongs to the newest version that asked for it."""
    files: list[FileEntry]

    @property
    def size_bytes(self) -> int:
        """All files, without the manifest itself."""
        return sum(entry.size for entry in self.files)


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Give each thing below `folder` that is no folder, as relative path and (unfollowed) stat, sorted."""
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            yield path.relative_to(folder).as_posix(), status


def list_files(folder: Path) -> list[FileEntry]:
    """Return the entries of all files below `folder` but the manifest.

    Raises:
        ValueError: something is neither a file nor a folder.
    """
    entries = []
    for path, status in walk(folder):
        if path == NAME:
            continue
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path}: neither a file nor a folder")
        entries.append(FileEntry(path=path, size=status.st_size, sha256=file_sha256(folder / path)))
    return entries


def read_manifest(version: Path) -> Manifest | None:
    """Return a version's manifest, or None where there is no valid one."""
    try:
        return Manifest.model_validate_json((version / NAME).read_bytes())
    except (OSError, ValueError):
        return None


def dump_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as it is written."""
    return (manifest.model_dump_json(by_alias=True, indent=1) + "\n").encode()


def compare(version: Path, files: Sequence[FileEntry]) -> list[str]:
    """Return what differs between a folder and its manifest's files, one sentence each."""
    expected = {entry.path: entry for entry in files}
    found = dict(walk(version))
    found.pop(NAME, None)
    problems = [f"{path}: missing" for path in sorted(expected.keys() - found.keys())]
    problems += [f"{path}: not in the manifest" for path in sorted(found.keys() - expected.keys())]
    for path in sorted(expected.keys() & found.keys()):
        entry, status = expected[path], found[path]
        if not stat.S_ISREG(status.st_mode):
            problems.append(f"{path}: not a plain file")
        elif status.st_size != entry.size:
            problems.append(f"{path}: found {status.st_size} bytes, expected {entry.size}")
        elif (digest := file_sha256(version / path)) != entry.sha256:
            problems.append(f"{path}: found sha256 {digest}, expected {entry.sha256}")
    return problems
