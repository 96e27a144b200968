"""Rows as a task checks them: training rows, held-out rows, and what they have in common. Knows no task."""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from strop_trainer.errors import TrainerError, bad_data
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import DatasetPlan
from strop_trainer.row_files.columns import Check, Columns, check_columns
from strop_trainer.row_files.problems import Problems, kind
from strop_trainer.row_files.reading import read_file
from strop_trainer.sources import RowFile
from strop_trainer.tasks.base import Dataset, DatasetStatistics
from strop_trainer.tasks.row_keys import Groups, Keys, key_of
from strop_trainer.tasks.row_store import Rows

_LEARNT: Final = 0
_HELD: Final = 1
_REPEATED: Final = 2
"""Equal to a row that is held out: neither learnt from nor held out again."""
_SHOWN_FILES: Final = 3


@dataclass(frozen=True)
class RowRules:
    """How a task reads its rows."""

    task: str
    columns: Columns
    check: Check
    """Takes a row with the names that the task expects; returns its normal form, or raises ValueError."""
    prompt: Callable[[bytes], bytes]
    """Gives the part of a normal form that the model is asked with: for leaks between the parts."""
    at: Callable[[str], None] = lambda _: None
    """Told file and place of each row before it is checked, where the check remembers such."""


class UnfitRowsError(TrainerError):
    """Rows that are right by themselves, and cannot be learnt from as this model's tokens.

    Attributes:
        rows: the normal form of each, and what is wrong with it.
    """

    def __init__(self, rows: Sequence[tuple[bytes, str]]) -> None:
        super().__init__(ExitCode.BAD_DATA, f"dataset: {len(rows)} unfit row(s), the first: {rows[0][1]}")
        self.rows = rows

    @classmethod
    def all_alike(cls, rows: Sequence[bytes], problem: str) -> UnfitRowsError:
        """Return the error of the first row, where every row has the problem: all of them may be too many to keep."""
        return cls([(rows[0], f"{problem}, as in all {len(rows)} rows" if len(rows) > 1 else problem)])


def tell_places(error: UnfitRowsError, rules: RowRules, files: Sequence[RowFile], dataset: DatasetPlan) -> TrainerError:
    """Return the error with file and place of each row, which are found by reading the files once more."""
    problems, wrong = Problems(), dict(error.rows)
    for file in files:
        for place, row in read_file(file, rules.columns, dataset, Problems()):
            try:
                found = normal_form(rules.check(row))
            except ValueError:
                continue
            if found in wrong:
                problems.add(file.name, place, by_column(wrong[found], dataset.columns))
    try:
        problems.raise_if_any()
    except TrainerError as told:
        return told
    return error


def read_dataset(
    rules: RowRules, train: Sequence[RowFile], validation: Sequence[RowFile], dataset: DatasetPlan, seed: int
) -> Dataset:
    """Read and check all rows, and hold some out where no validation files are given.

    Raises:
        TrainerError: wrong rows with file, place, field, found and expected, or too few of them (exit 65); a column or
            a format that the task does not read (78).
    """
    check_columns(rules.columns, dataset, rules.task)
    problems = Problems()
    rows = read_rows(train, rules, dataset, problems, dataset.max_rows)
    held = read_rows(validation, rules, dataset, problems)
    problems.raise_if_any()
    not_empty(rows, train, "train")
    if validation:
        not_empty(held, validation, "validation")
    else:
        rows, held = split(rows, dataset.validation_split, seed, files=train)
    return assemble(rows, held, [*train, *validation], rules.prompt)


def read_rows(
    files: Sequence[RowFile], rules: RowRules, dataset: DatasetPlan, problems: Problems, limit: int | None = None
) -> Rows:
    """Read and check every row of the files; return the normal form of the right ones, at most `limit`."""
    rows = Rows()
    for file in files:
        for place, row in read_file(file, rules.columns, dataset, problems):
            rules.at(f"{file.name} {place}")
            try:
                found = normal_form(rules.check(row))
            except ValueError as error:
                problems.add(file.name, place, by_column(str(error), dataset.columns))
                continue
            if limit is None or len(rows) < limit:
                rows.append(found)
    return rows


def by_column(problem: str, mapping: Mapping[str, str]) -> str:
    """Return a problem of a field with the name that its column has in the file, where `dataset.columns` maps it."""
    for expected, there in mapping.items():
        if expected != there and re.match(rf"{re.escape(expected)}\b", problem):
            return f"{expected} (column {there!r}){problem.removeprefix(expected)}"
    return problem


def untaught(files: Sequence[RowFile], problem: str, mapping: Mapping[str, str] | None = None) -> TrainerError:
    """Return the error (exit 65) of what the training rows lack as a whole, with the files that they are from.

    Args:
        files: of the training rows.
        problem: of a field, or of the rows.
        mapping: `dataset.columns`.
    """
    names, more = ", ".join(file.name for file in files[:_SHOWN_FILES]), len(files) - _SHOWN_FILES
    where = f"{names} and {more} more" if more > 0 else names
    return bad_data(f"dataset.train: {where}: {by_column(problem, mapping or {})}")


def not_empty(rows: Sequence[bytes], files: Sequence[RowFile], part: str) -> None:
    """Raise a TrainerError (exit 65) where no row was found."""
    if not rows:
        names = ", ".join(file.name for file in files)
        raise bad_data(f"dataset.{part}: {names}: found no rows, expected at least one")


def normal_form(row: Any) -> bytes:
    """Return the one JSON of a row that duplicates and fingerprints are judged by.

    Raises:
        ValueError: a value of it is none of JSON's, such as a date of a Parquet file.
    """
    try:
        return json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    except TypeError:
        raise ValueError(_not_json(row, "")) from None


def _not_json(value: Any, where: str) -> str:
    """Return the place and kind of the first value that JSON has not; empty where there is none."""
    if isinstance(value, dict):
        return next(filter(None, (_not_json(of, f"{where}.{name}".lstrip(".")) for name, of in value.items())), "")
    if isinstance(value, list):
        return next(filter(None, (_not_json(item, f"{where}[{at}]") for at, item in enumerate(value))), "")
    if value is None or isinstance(value, str | int | float):
        return ""
    return f"{where}: found {kind(value)}, expected text, a number, a boolean, null, or a list or object of these"


def split(
    rows: Rows,
    fraction: float,
    seed: int,
    labels_of: Callable[[bytes], Iterable[str]] = lambda _: (),
    *,
    files: Sequence[RowFile],
) -> tuple[Rows, Rows]:
    """Hold out a fraction of the rows: at least one, never all, and never a row that is also trained on.

    A row whose label no other row has is passed over, and the next one is drawn.

    Each row's place comes from the hash of the seed and its content, so that equal rows fall on one side, and a row
    that is added or moved leaves the others where they were.

    Raises:
        TrainerError: fewer than two different rows, or none of them has labels that others have as well.
    """
    begin = f"{seed}:".encode()
    kinds: dict[frozenset[str], int] = {}
    kind_of = array("I")  # which of `kinds` each row has

    def key(row: bytes) -> int:
        kind_of.append(kinds.setdefault(frozenset(labels_of(row)), len(kinds)))
        return key_of(begin + row)

    order = Groups(map(key, rows))
    counts = Counter(kind_of[group[0]] for group in order)
    different = counts.total()
    if different < 2:  # noqa: PLR2004 - one to learn from, one to hold out
        raise untaught(
            files,
            f"found {len(rows)} row(s), {different} different, expected at least 2 different ones, "
            "one of them to be held out",
        )
    sets, left = list(kinds), Counter[str]()
    for of, count in counts.items():
        left.update(dict.fromkeys(sets[of], count))
    count = min(max(1, round(different * fraction)), different - 1)
    side = bytearray(len(rows))
    drawn = 0
    for group in order:
        labels = sets[kind_of[group[0]]]
        if all(left[label] > 1 for label in labels):
            drawn += 1
            left.subtract(labels)
            for index in group:
                side[index] = _REPEATED
            side[group[0]] = _HELD
        if drawn == count:
            break
    if not drawn:
        raise untaught(
            files,
            "found rows that are the only ones of their labels, expected more rows of each label, "
            "or dataset.validation",
        )
    train, held = (rows.select(index for index, of in enumerate(side) if of == wanted) for wanted in (_LEARNT, _HELD))
    return train, held


def assemble(train: Rows, validation: Rows, files: Sequence[RowFile], prompt: Callable[[bytes], bytes]) -> Dataset:
    """Fingerprint the rows and count what they share.

    Args:
        train: normal forms.
        validation: normal forms.
        files: where they are from.
        prompt: gives the part of a row that the model is asked with.
    """
    digest = hashlib.sha256()

    def keys(part: str, rows: Rows) -> tuple[Keys, Keys]:
        whole, asked = Keys(), Keys()
        digest.update(f"{part} {len(rows)}\n".encode())
        for row in rows:
            digest.update(row + b"\n")
            whole.add(row)
            asked.add(prompt(row))
        return whole, asked

    (learnt, prompts), (held, held_prompts) = keys("train", train), keys("validation", validation)
    return Dataset(
        train,
        validation,
        DatasetStatistics(
            fingerprint="sha256:" + digest.hexdigest(),
            train_rows=len(train),
            validation_rows=len(validation),
            duplicates=len(train) - learnt.different,
            leaked=learnt.of_these(held),
            leaked_prompts=prompts.of_these(held_prompts),
            files=[file.name for file in files],
        ),
    )
