"""What lies in a registry on this machine: its models and versions, and whether they are as published."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from strop.cli.errors import CliError, missing_input
from strop_trainer.exit_codes import ExitCode
from strop_trainer.manifest import NAME, Manifest, read_manifest

_INDEX: Final = "index.json"


@dataclass(frozen=True)
class Version:
    """One published version."""

    namespace: str
    model: str
    number: int
    path: Path
    manifest: Manifest
    aliases: tuple[str, ...]


def versions_in(root: Path, namespace: str | None, left_out: list[str]) -> list[Version]:
    """Return the versions under `root/<namespace>/<model>/<N>`, by namespace, model and number.

    Folders that cannot be read are left out, and said in `left_out`.
    """
    return [
        version
        for space in _folders(root, left_out)
        if namespace in {None, space.name}
        for model in _folders(space, left_out)
        for version in _versions_of(space.name, model, left_out)
    ]


def show_models(console: Console, root: Path, namespace: str | None) -> list[str]:
    """Print the versions in a registry; return what is to be noted beside them.

    Raises:
        CliError: there is no such folder (66).
    """
    if not root.is_dir():
        raise missing_input(f"{root}: no such folder: give the root of a registry with --registry")
    left_out: list[str] = []
    versions = versions_in(root, namespace, left_out)
    if not versions:
        console.print(f"no version in {root}", soft_wrap=True)
        return left_out
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("Namespace", "Model", "Version", "Aliases", "Published", "Size", "Path"):
        table.add_column(header, overflow="fold")
    for version in versions:
        table.add_row(
            version.namespace,
            version.model,
            str(version.number),
            ", ".join(version.aliases),
            version.manifest.created_at,
            f"{version.manifest.size_bytes / 10**6:.1f} MB",
            str(version.path.relative_to(root)),
        )
    console.print(table)
    return left_out


def verify_versions(paths: Sequence[Path]) -> Iterator[str]:
    """Check versions: each path is one, or a model, namespace or registry with some in it.

    Gives one line for each that is as it was published.

    Raises:
        CliError: a folder is not there or holds no version (66), or is not as it was published (65).
    """
    from strop_trainer.registry import verify  # noqa: PLC0415 - the registry's schemas are needed here only

    problems: list[str] = []
    for path in paths:
        if not path.is_dir():
            raise missing_input(f"{path}: no such folder")
        for version in _verifiable(path):
            found = verify(version)
            problems += [f"{version}: {problem}" for problem in found]
            if not found:
                yield f"{version}: as published"
    if problems:
        raise CliError(ExitCode.BAD_DATA, *problems)


def _verifiable(path: Path) -> list[Path]:
    """Return the version that a path is, or the models in it."""
    if (path / NAME).exists() or (path / _INDEX).exists():
        return [path]
    found = sorted(index.parent for pattern in (f"*/{_INDEX}", f"*/*/{_INDEX}") for index in path.glob(pattern))
    return found or [path]


def _versions_of(namespace: str, model: Path, left_out: list[str]) -> Iterator[Version]:
    aliases = _json(model / _INDEX).get("aliases")
    targets = aliases if isinstance(aliases, dict) else {}
    for number in sorted(int(folder.name) for folder in _folders(model, left_out) if folder.name.isdecimal()):
        path = model / str(number)
        if manifest := read_manifest(path):
            own = tuple(sorted(alias for alias, target in targets.items() if target == number))
            yield Version(namespace, model.name, number, path, manifest, own)


def _folders(root: Path, left_out: list[str]) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        left_out.append(f"{root}: left out: {error.strerror}")
        return []


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
