"""The registry volume: `<registry>/<model>/<N>`, immutable versions that appear whole or not at all.

A version is staged beside its siblings and renamed to the next free number. A rename onto a folder that is not empty
fails, so that two jobs that publish at once each get a number of their own, without locks (which network file systems
do not always have). The index is a pure function of the folders: writers that race write the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from strop_trainer import manifest as manifests
from strop_trainer.documents import check_documents
from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.manifest import Manifest, dump_manifest, file_sha256, list_files, read_manifest
from strop_trainer.plan import PlanModel
from strop_trainer.shared_bases import FOLDER as BASES
from strop_trainer.shared_bases import (
    BaseManifest,
    BaseReference,
    check_base,
    check_references,
    dump_base,
    name_of,
    read_base,
)

INDEX_SCHEMA: Literal["strop.dev/index/v1alpha1"] = "strop.dev/index/v1alpha1"
INDEX_NAME = "index.json"
LATEST = "latest"
FILE_MODE, FOLDER_MODE = 0o444, 0o755
STALE_STAGING_S = 24 * 3600
"""A staging folder of another job that nobody wrote to for so long belongs to a job that was killed."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_UID = re.compile(r"[A-Za-z0-9][-A-Za-z0-9]{0,63}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_NAME_LENGTH = 63
_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR})
_WORDS = {
    errno.ENOSPC: "the registry volume is full",
    errno.EDQUOT: "the registry volume's quota is used up",
    errno.EROFS: "the registry volume is read-only",
    errno.EACCES: "the registry volume may not be written to by this user",
    errno.EPERM: "the registry volume may not be written to by this user",
    errno.EIO: "the registry volume has input/output errors",
    errno.ESTALE: "the registry volume was taken away",
    errno.ENOTDIR: "the registry has a file where a folder belongs",
}


class IndexEntry(PlanModel):
    """One version in the index."""

    version: int
    created_at: str
    plan_digest: str
    job_uid: str
    manifest_sha256: str
    size_bytes: int


class Index(PlanModel):
    """index.json of a model: what there is and what the aliases point at."""

    schema_: Literal["strop.dev/index/v1alpha1"] = Field(default=INDEX_SCHEMA, alias="schema")
    model: str
    last: int
    """Highest number ever given; numbers are not given twice, even where a version was deleted."""
    aliases: dict[str, int]
    versions: list[IndexEntry]


@dataclass(frozen=True)
class PublishedLocation:
    """Where a version is."""

    version: int
    path: Path
    manifest_sha256: str
    size_bytes: int
    """All files, without the manifest itself."""


def publish(
    registry: Path,
    model: str,
    job_uid: str,
    fill: Callable[[Path], None],
    *,
    plan_digest: str,
    aliases: Sequence[str] = (),
) -> PublishedLocation:
    """Publish one version, once a job.

    Args:
        registry: the namespace's folder of the registry.
        model: name of the model.
        job_uid: of the job; where it has already published this model, that version is returned and nothing written.
        fill: writes all files to the (empty) folder that it is given.
        plan_digest: goes to manifest and index.
        aliases: names that are to point at the new version; `latest` always does.

    Raises:
        TrainerError: the volume cannot be written (exit 73). Nothing is left behind, whatever `fill` raises.
    """
    folder = _model_folder(registry, model)
    staging = _staging(folder, job_uid)
    draft = Manifest(
        model=model,
        job_uid=job_uid,
        plan_digest=plan_digest,
        created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        aliases=sorted({*aliases} - {LATEST}),
        files=[],
    )
    with _words_for(registry):
        published = find_published(folder, job_uid)
        if published is None:
            try:
                published = _stage_and_claim(folder, staging, fill, draft)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        update_index(folder, model, job_uid)
    return published


def publish_base(registry: Path, job_uid: str, source: Path, draft: BaseManifest) -> BaseReference:
    """Publish a base graph that adapters share, unless it is there already, and return how a version refers to it.

    Args:
        registry: the namespace's folder of the registry.
        job_uid: of the job.
        source: folder of the graph; one that is published already is left as it is.
        draft: its manifest, without the files.

    Raises:
        TrainerError: the volume cannot be written (exit 73).
    """
    folder = registry / BASES
    with _words_for(registry):
        if source.parent != folder:
            manifest = draft.model_copy(update={"files": list_files(source)})
            target = folder / name_of(manifest)
            staging = _staging(folder, job_uid)
            try:
                shutil.rmtree(staging, ignore_errors=True)
                copy_tree(source, staging)
                _seal(staging, dump_base(manifest))
                if target.is_dir() and check_base(target):
                    shutil.rmtree(target)  # its name says that it was the same once
                staging.rename(target)
                _sync(folder)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            source = target
        found = read_base(source)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        return BaseReference(
            precision=found.precision, name=source.name, manifest_sha256=file_sha256(source / manifests.NAME)
        )


def find_published(folder: Path, job_uid: str) -> PublishedLocation | None:
    """Return the version of a model's folder that a job published, if there is one."""
    for number in sorted(version_numbers(folder), reverse=True):
        manifest = read_manifest(folder / str(number))
        if manifest is not None and manifest.job_uid == job_uid:
            return _location(folder / str(number), manifest)
    return None


def version_numbers(folder: Path) -> list[int]:
    """Return the numbers that are taken in a model's folder, ascending."""
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if _NUMBER.fullmatch(name))


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder of plain files, without modes.

    Raises:
        OSError: as it came; `shutil.copytree` would wrap it and lose its number, and with it that a volume is full.
    """
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            copy_tree(path, target / path.name)
        else:
            shutil.copyfile(path, target / path.name)


def clean_staging(registry: Path, model: str, job_uid: str) -> None:
    """Remove what an earlier attempt of this job, or long ago another job, left half done."""
    own, old = _staging(registry, job_uid).name, time.time() - STALE_STAGING_S
    folders = [folder for folder in (_model_folder(registry, model), registry / BASES) if folder.is_dir()]
    for path in (path for folder in folders for path in folder.glob(".staging-*")):
        with contextlib.suppress(OSError):
            if path.name == own or path.lstat().st_mtime < old:
                shutil.rmtree(path, ignore_errors=True)


def check_writable(registry: Path, model: str, job_uid: str, *, needed_bytes: int = 0) -> None:
    """Write and remove a file where the version will go, so that a long training does not end in vain.

    Args:
        registry: the namespace's folder of the registry.
        model: name of the model.
        job_uid: of the job.
        needed_bytes: estimate of the version's size; 0 asks for none.

    Raises:
        TrainerError: the volume cannot be written, or has less free space than needed (exit 73).
    """
    folder = _model_folder(registry, model)
    probe = _staging(folder, job_uid)
    with _words_for(registry):
        try:
            probe.mkdir(parents=True, exist_ok=True)
            (probe / "probe").write_bytes(b"probe")
            _sync(probe / "probe")
        finally:
            shutil.rmtree(probe, ignore_errors=True)
        free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise TrainerError(
            ExitCode.CANNOT_PUBLISH,
            f"the registry volume has {free / 1e9:.2f} GB free, the version needs about {needed_bytes / 1e9:.2f} GB",
        )


def build_index(folder: Path, model: str, last: int) -> Index:
    """Return the index of a model as its folders say.

    Args:
        folder: the model's folder.
        model: its name.
        last: highest number known to have been given.
    """
    entries = []
    aliases: dict[str, int] = {}
    numbers = version_numbers(folder)
    for number in numbers:
        manifest = read_manifest(folder / str(number))
        if manifest is None:
            continue
        location = _location(folder / str(number), manifest)
        entries.append(
            IndexEntry(
                version=number,
                created_at=manifest.created_at,
                plan_digest=manifest.plan_digest,
                job_uid=manifest.job_uid,
                manifest_sha256=location.manifest_sha256,
                size_bytes=location.size_bytes,
            )
        )
        aliases |= dict.fromkeys([*manifest.aliases, LATEST], number)
    return Index(model=model, last=max([last, *numbers]), aliases=dict(sorted(aliases.items())), versions=entries)


def read_index(folder: Path) -> Index | None:
    """Return a model's index, or None where there is no valid one."""
    try:
        return Index.model_validate_json((folder / INDEX_NAME).read_bytes())
    except (OSError, ValueError):
        return None


def update_index(folder: Path, model: str, writer: str) -> Index:
    """Rebuild index.json from the folders; a reader sees the old or the new one.

    It is built again until nothing changed while it was written: whoever writes last has seen every version, as each
    publisher writes after its version is there.

    Args:
        folder: the model's folder.
        model: its name.
        writer: makes the temporary file's name unique, such as the job's uid.
    """
    while True:
        before = read_index(folder)
        index = build_index(folder, model, before.last if before else 0)
        temporary = folder / f".index-{writer}"
        try:
            temporary.write_text(index.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")
            _chmod(temporary, 0o644)
            _sync(temporary)
            temporary.replace(folder / INDEX_NAME)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(folder)
        if build_index(folder, model, index.last) == index:
            return index


def verify(path: Path) -> list[str]:
    """Return what is wrong with a version, or with all versions and the index of a model; empty where all is well.

    Args:
        path: folder of a version (`<registry>/<model>/<N>`) or of a model.
    """
    if not path.is_dir():
        return [f"{path}: no such folder"]
    if path.resolve().parent.name == BASES:
        return check_base(path)
    numbers = version_numbers(path)
    if (path / manifests.NAME).exists() or not (numbers or (path / INDEX_NAME).exists()):
        return _verify_version(path)
    problems = [f"{number}/{problem}" for number in numbers for problem in _verify_version(path / str(number))]
    index = read_index(path)
    if index is None:
        problems.append(f"{INDEX_NAME}: missing or not valid")
    elif build_index(path, index.model, index.last) != index:
        problems.append(f"{INDEX_NAME}: does not agree with the versions")
    return problems


def _verify_version(version: Path) -> list[str]:
    if not (version / manifests.NAME).is_file():
        return [f"{manifests.NAME}: missing: not a published version"]
    try:
        manifest = Manifest.model_validate_json((version / manifests.NAME).read_bytes())
    except ValueError as error:
        return [f"{manifests.NAME}: {line}" for line in str(error).splitlines()]
    problems = [*manifests.compare(version, manifest.files), *check_documents(version, manifest)]
    return list(dict.fromkeys([*problems, *check_references(version)]))


def _stage_and_claim(folder: Path, staging: Path, fill: Callable[[Path], None], draft: Manifest) -> PublishedLocation:
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    fill(staging)
    manifest = draft.model_copy(update={"files": list_files(staging)})
    _seal(staging, dump_manifest(manifest))
    version = _claim(folder, staging, draft.job_uid)
    _sync(folder)
    return _location(version, manifest)


def _seal(staging: Path, manifest: bytes) -> None:
    """Write the manifest, make all read-only and flush it."""
    (staging / manifests.NAME).write_bytes(manifest)
    for path in [staging, *staging.rglob("*")]:
        if not path.is_symlink():
            _chmod(path, FOLDER_MODE if path.is_dir() else FILE_MODE)
    for path in [*staging.rglob("*"), staging]:
        _sync(path)


def _claim(folder: Path, staging: Path, job_uid: str) -> Path:
    index = read_index(folder)
    number = max([index.last if index else 0, *version_numbers(folder)]) + 1
    while True:
        target = folder / str(number)
        try:
            staging.rename(target)
        except FileNotFoundError:
            # A network file system may repeat a rename whose answer was lost: then it is done already.
            published = find_published(folder, job_uid)
            if published is None:
                raise
            return published.path
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            number += 1
        else:
            return target


def _location(version: Path, manifest: Manifest) -> PublishedLocation:
    return PublishedLocation(
        version=int(version.name),
        path=version,
        manifest_sha256=file_sha256(version / manifests.NAME),
        size_bytes=manifest.size_bytes,
    )


def _model_folder(registry: Path, model: str) -> Path:
    if len(model) > _NAME_LENGTH or not _NAME.fullmatch(model):
        raise TrainerError(
            ExitCode.BAD_CONFIGURATION,
            f"output.model: found {model[:80]!r}, allowed: at most {_NAME_LENGTH} of a-z, 0-9 and -, not at the ends",
        )
    return registry / model


def _staging(folder: Path, job_uid: str) -> Path:
    if not _UID.fullmatch(job_uid):
        raise TrainerError(
            ExitCode.BAD_CONFIGURATION, f"job uid: found {job_uid[:80]!r}, allowed: at most 64 letters, digits and -"
        )
    return folder / f".staging-{job_uid}"


@contextlib.contextmanager
def _words_for(registry: Path) -> Iterator[None]:
    """Turn what a volume refuses into words; other errors pass."""
    try:
        yield
    except OSError as error:
        words = _WORDS.get(error.errno or 0)
        if words is None:
            raise
        where = error.filename or registry
        raise TrainerError(ExitCode.CANNOT_PUBLISH, f"{words} ({os.strerror(error.errno or 0)}: {where})") from error


def _chmod(path: Path, mode: int) -> None:
    # Some volume types (SMB, object stores) know no modes.
    with contextlib.suppress(PermissionError, NotImplementedError):
        path.chmod(mode)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; a file must be.
        if path.is_dir() and error.errno in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            return
        raise
    finally:
        os.close(descriptor)
