"""The columns that a task reads, and what a file has in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop_trainer.errors import bad_configuration
from strop_trainer.plan import DatasetPlan
from strop_trainer.row_files.problems import Problems, shown_names
from strop_trainer.sources import RowFile

Check = Callable[[dict[str, Any]], Any]
"""Returns the normal form of a row, or raises ValueError with field, found and expected."""


@dataclass(frozen=True)
class Columns:
    """The columns that a task reads."""

    shapes: tuple[tuple[str, ...], ...]
    """Sets of columns; a row has all of one set."""
    optional: tuple[str, ...] = ()
    structured: frozenset[str] = frozenset()
    """Those that hold lists or objects; a cell of a CSV file has them as JSON."""
    elsewhere: tuple[tuple[frozenset[str], str], ...] = ()
    """Columns of another task's rows, and what to say where a file has those."""
    text_files: bool = False
    """Whether plain text files are read, too: as rows with `text`."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that `dataset.columns` may map."""
        return tuple(dict.fromkeys([*(name for shape in self.shapes for name in shape), *self.optional]))

    def shown(self) -> str:
        """Return what is expected, in words."""
        return " or ".join(", ".join(shape) for shape in self.shapes)


def check_columns(columns: Columns, dataset: DatasetPlan, task: str) -> None:
    """Check that `dataset.columns` maps what the task reads, and that the task reads the format. Opens no file.

    Raises:
        TrainerError: it does not (exit 78).
    """
    taken: dict[str, str] = {}
    for name, there in dataset.columns.items():
        if name not in columns.names:
            raise bad_configuration(
                f"dataset.columns.{name}: {task} reads no such column, allowed: {', '.join(columns.names)}"
            )
        if there in taken:
            raise bad_configuration(
                f"dataset.columns.{name}: found {there}, which {taken[there]} is mapped to, expected another column"
            )
        taken[there] = name
    if dataset.format == "text" and not columns.text_files:
        raise bad_configuration(f"dataset.format: found text, allowed for {task}: auto, jsonl, csv, parquet")


@dataclass(frozen=True)
class Table:
    """One file, and what its columns are to be."""

    file: RowFile
    columns: Columns
    mapping: Mapping[str, str]
    """Name that the task expects → name in the file."""
    problems: Problems

    def accepts(self, names: Sequence[str]) -> bool:
        """Judge the columns of a file that has the same ones in every row; note what is missing, once."""
        missing = [(expected, there) for expected, there in self.mapping.items() if there not in names]
        for expected, there in missing:
            self.lacks(expected, there, names)
        if missing:
            return False
        if self.fits(self.renamed(dict.fromkeys(names))):
            return True
        self.rejects(names)
        return False

    def fits(self, renamed: Mapping[str, Any]) -> bool:
        """Whether a row has all columns of one set."""
        return any(all(name in renamed for name in shape) for shape in self.columns.shapes)

    def rejects(self, names: Sequence[str], hint: str = "") -> None:
        """Note that no row has the columns that the task reads."""
        words = [said for other, said in self.columns.elsewhere if other.issubset(names)]
        self.problems.add_file(
            self.file.name,
            f"found columns {shown_names(names)}, expected {self.columns.shown()}; "
            f"{words[0] if words else 'dataset.columns maps other names'}{hint}",
        )

    def lacks(self, expected: str, there: str, names: Sequence[str]) -> None:
        """Note that a mapped column is missing."""
        self.problems.add_file(
            self.file.name, f"dataset.columns.{expected}: no column {there!r}, found {shown_names(names)}"
        )

    def renamed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with the names that the task expects; other columns keep theirs."""
        if not self.mapping:
            return dict(row)
        mapped = {expected: row[there] for expected, there in self.mapping.items() if there in row}
        taken = {*self.mapping, *self.mapping.values()}
        return {name: value for name, value in row.items() if name not in taken} | mapped
