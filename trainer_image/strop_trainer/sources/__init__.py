"""Where models and data come from: `fetch_model` and `fetch_files` turn a source into checked paths on this disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from strop_trainer.addresses import shown
from strop_trainer.context import Settings
from strop_trainer.errors import bad_configuration, missing_input
from strop_trainer.plan import DataFile, ModelSource
from strop_trainer.sources import archive, hub, local, web

ROW_FORMATS: Final[Mapping[str, Literal["json", "csv", "parquet", "text"]]] = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
}
"""Suffix of a file → format of its rows."""
OTHER_SUFFIXES: Final = frozenset({".arrow", ".feather", ".gz", ".bz2", ".xz", ".zip", ".zst", ".tar", ".xls", ".xlsx"})
"""Files of rows, maybe, in formats that are not read."""


@dataclass(frozen=True)
class RowFile:
    """A file of rows, and the name by which the job's author knows it."""

    name: str
    path: Path


def is_local(source: str) -> bool:
    """Say whether a source is on a mounted volume, so that nothing has to be fetched."""
    return source.startswith(("pvc://", "configmap://"))


def fetch_model(model: ModelSource, settings: Settings) -> Path:
    """Return the folder of a base model; its content is not judged here.

    Raises:
        TrainerError: the source does not exist, does not answer, is refused or is not a model.
    """
    if is_local(model.source):
        found = local.find(model.source, settings)
        if found.is_dir():
            return found
        if not found.name.endswith((".tar.gz", ".tgz")):
            raise missing_input(f"model {model.source}: found a file, expected a model folder or a .tar.gz of one")
        return archive.unpack(found, settings.fetched, model.source)
    if model.source.startswith("hf://"):
        return hub.fetch_model(model.source, model.revision, settings.fetched, settings.commits)
    return archive.unpack(web.download(model.source, model.sha256, settings.fetched), settings.fetched, model.source)


def commit_of(model: ModelSource, settings: Settings) -> str | None:
    """Return the commit that was fetched of an hf:// model; None of others."""
    match = hub.MODEL.fullmatch(model.source)
    if match is None:
        return None
    return hub.commits(settings.commits).get(hub.repository_key("model", match["repo"], model.revision))


def dataset_commits(settings: Settings) -> dict[str, str]:
    """Return the commits that were fetched of the hub's datasets."""
    found = hub.commits(settings.commits)
    return {source: commit for source, commit in found.items() if source.startswith("hf://datasets/")}


def fetch_files(file: DataFile, settings: Settings) -> list[RowFile]:
    """Return the row files behind one data source: one, or those of a folder in the order of their names.

    Raises:
        TrainerError: the source does not exist, does not answer, is refused or is of a format that is not read.
    """
    if is_local(file.source):
        return _rows_in(file.source, settings)
    if file.source.startswith("hf://"):
        path = hub.fetch_file(file.source, file.revision, settings.fetched, settings.commits)
    else:
        path = web.download(file.source, file.sha256, settings.fetched)
    name = shown(file.source)
    return [RowFile(name, _readable(name, path))]


def _rows_in(source: str, settings: Settings) -> list[RowFile]:
    found = local.find(source, settings)
    if found.is_file():
        return [RowFile(source, found if source.startswith("configmap://") else _readable(source, found))]
    files = sorted(path for path in found.iterdir() if path.is_file() and path.suffix.lower() in ROW_FORMATS)
    # A text file beside others is a note on them.
    files = [path for path in files if path.suffix.lower() != ".txt"] or files
    if not files:
        raise missing_input(f"dataset {source}: the folder has no file of rows ({', '.join(ROW_FORMATS)})")
    names = [f"{source.rstrip('/')}/{path.name}" for path in files]
    return [RowFile(name, local.find(name, settings)) for name in names]  # each may be a link out of the claim


def _readable(source: str, path: Path) -> Path:
    suffix = Path(source).suffix.lower()
    if suffix in OTHER_SUFFIXES:
        raise bad_configuration(
            f"dataset {source}: found a {suffix} file, expected JSON Lines, a JSON list, CSV, Parquet or plain text "
            f"({', '.join(ROW_FORMATS)})"
        )
    return path
