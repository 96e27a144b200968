"""What lies in a registry on this machine: its models and versions, and whether they are as published."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from strop.cli.errors import CliError, missing_input
from strop_trainer.exit_codes import ExitCode


@dataclass(frozen=True)
class Version:
    """One published version."""

    namespace: str
    model: str
    number: int
    path: Path
    aliases: tuple[str, ...]


def versions_in(root: Path, namespace: str | None = None) -> list[Version]:
    """Return the versions under `root/<namespace>/<model>/<N>`, by namespace, model and number."""
    found: list[Version] = []
    for space in _folders(root):
        if namespace not in {None, space.name}:
            continue
        for model in _folders(space):
            aliases = _json(model / "index.json").get("aliases", {})
            numbers = sorted(int(folder.name) for folder in _folders(model) if folder.name.isdecimal())
            for number in numbers:
                own = tuple(sorted(alias for alias, target in aliases.items() if str(target) == str(number)))
                found.append(Version(space.name, model.name, number, model / str(number), own))
    return found


def show_models(console: Console, root: Path, namespace: str | None) -> None:
    """Print the versions in a registry.

    Raises:
        CliError: there is no such folder (66).
    """
    if not root.is_dir():
        raise missing_input(f"{root}: no such folder: give the root of a registry with --registry")
    versions = versions_in(root, namespace)
    if not versions:
        console.print(f"no version in {root}", soft_wrap=True)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("Namespace", "Model", "Version", "Aliases", "Path"):
        table.add_column(header, overflow="fold")
    for version in versions:
        table.add_row(
            version.namespace, version.model, str(version.number), ", ".join(version.aliases), str(version.path)
        )
    console.print(table)


def verify_versions(paths: Sequence[Path]) -> Iterator[str]:
    """Check versions; give one line for each that is as published.

    Raises:
        CliError: a folder is not there (66), or is not as it was published (65), with every problem.
    """
    from strop_trainer.registry import verify  # noqa: PLC0415 - the registry's schema is needed here only

    for path in paths:
        if not path.is_dir():
            raise missing_input(f"{path}: no such folder")
        problems = verify(path)
        if problems:
            raise CliError(ExitCode.BAD_DATA, *(f"{path}: {problem}" for problem in problems))
        yield f"{path}: as published"


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
