"""What the tasks share whose answer is a label or a place in the text, and no text of the model's own.

Legend: R rows of a pass, L tokens of its longest row, C labels, N values that the loss counts.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, Protocol, overload

from strop_trainer.plan import DatasetPlan
from strop_trainer.row_files.columns import Check, Columns, check_columns
from strop_trainer.row_files.problems import Problems
from strop_trainer.sources import RowFile
from strop_trainer.tasks.base import Dataset, Encoded, Example, Question
from strop_trainer.tasks.rows import RowRules, assemble, not_empty, read_rows, split, untaught

WINDOW: Final = 1000
"""Rows that are turned into tokens at once."""

Outputs = tuple[Any, ...]
"""What a model puts out for one row, without padding: one float32 array an output."""


@dataclass(frozen=True)
class Labels:
    """The labels of a task, in the order of the model's outputs."""

    names: tuple[str, ...]
    several: bool = False
    """Whether a row may have any number of them (multi-label)."""

    @property
    def ids(self) -> dict[str, int]:
        """Name → place among the outputs."""
        return {name: place for place, name in enumerate(self.names)}


class Places(Sequence[tuple[int, int]]):
    """Pairs of small numbers in 8 bytes each; a list of Python's takes 120."""

    __slots__ = ("_numbers",)

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        self._numbers = array("i", chain.from_iterable(pairs))

    def __len__(self) -> int:
        return len(self._numbers) // 2

    @overload
    def __getitem__(self, at: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, at: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, at: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        if isinstance(at, slice):
            return [self[place] for place in range(len(self))[at]]
        place = 2 * range(len(self))[at]
        return self._numbers[place], self._numbers[place + 1]

    def __eq__(self, other: Any) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class LabelledExample(Example):
    """One row, or one window of a long row, as tokens with its label.

    `targets` is empty: what counts is the label.
    """

    label: Any = None
    """A label's number; a list of 0 and 1, one a label; a list of (token, label's number); or (first, last) token."""
    segments: Sequence[int] = ()
    """Which of two texts a token is of; empty where the model takes no such input."""
    row: int = 0
    """Index of the row among those that were encoded."""
    places: Sequence[tuple[int, int]] = ()
    """Tokens and what they stand for, where an answer is a place: (token, word), or (token's first, last character).

    Empty where the model answers for the row, not for each token.
    """
    count: int = 1
    """Values that the loss counts."""

    def __post_init__(self) -> None:
        """Keep the numbers themselves."""
        super().__post_init__()
        object.__setattr__(self, "segments", array("b", self.segments))
        object.__setattr__(self, "places", Places(self.places))

    @property
    def target_count(self) -> int:
        """Values that the loss counts."""
        return self.count


class LabelledTask(Protocol):
    """A task whose model puts out one number a label, or a token."""

    @property
    def name(self) -> str:
        """Name of the task in the plan."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of its metrics, whatever the labels are."""
        ...

    @property
    def auto_class(self) -> str:
        """The class of transformers that loads a model for it."""
        ...

    @property
    def peft_type(self) -> str:
        """PEFT's name of the task."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the model puts out."""
        ...

    def read(self, train: Sequence[RowFile], validation: Sequence[RowFile], dataset: DatasetPlan, seed: int) -> Dataset:
        """Check all rows and hold some out. Needs no tokenizer and no torch."""
        ...

    def labels(self, train: Sequence[bytes]) -> Labels:
        """Collect the labels of the training rows, sorted."""
        ...

    def measured(self, labels: Labels) -> tuple[str, ...]:
        """Return the names of the metrics that these labels have."""
        ...

    def tokenize(self, rows: Sequence[bytes], tokenizer: Any, max_length: int, labels: Labels) -> Encoded:
        """Turn rows into tokens with labels; the examples are in the order of the rows."""
        ...

    def predict(
        self, outputs: Sequence[Outputs], examples: Sequence[LabelledExample], rows: Sequence[bytes], labels: Labels
    ) -> list[Any]:
        """Return what each row's outputs say."""
        ...

    def measure(self, predicted: Sequence[Any], rows: Sequence[bytes], labels: Labels) -> dict[str, float]:
        """Compare what was predicted with the rows."""
        ...

    def baseline(self, train: Sequence[bytes], rows: Sequence[bytes], labels: Labels) -> dict[str, float]:
        """Measure what always giving the most frequent answer would reach; empty where there is no such answer."""
        ...

    def show(self, row: bytes, predicted: Any | None = None) -> tuple[str, str]:
        """Return a row's text, and its answer (or the predicted one), for a report."""
        ...


class LabelledBase:
    """What such a task has of the general one: it is never asked to answer in words."""

    needs_chat_template = False

    def encode(self, rows: Sequence[bytes], tokenizer: Any, max_length: int) -> Encoded:
        """Raise: such rows have no meaning without their labels."""
        raise NotImplementedError

    def questions(self, rows: Sequence[bytes], tokenizer: Any, max_length: int, count: int) -> list[Question]:
        """Return none."""
        del rows, tokenizer, max_length, count
        return []

    def score(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return nothing: no answer is generated."""
        del answers, references
        return {}


def read_labelled(
    rules: RowRules,
    held_check: Callable[[Sequence[bytes]], Check],
    labels_of: Callable[[bytes], Iterable[str]],
    files: tuple[Sequence[RowFile], Sequence[RowFile]],
    plan: tuple[DatasetPlan, int],
    *,
    lack: Callable[[Sequence[bytes]], str | None] = lambda _: None,
) -> Dataset:
    """Read and check all rows; what is held out has no label that the training rows lack.

    Args:
        rules: how the task reads its training rows.
        held_check: training rows → check of a held-out row, which knows their labels.
        labels_of: labels of a row in its normal form.
        files: of training and of held-out rows; where there are none of the second, some of the first are held out.
        plan: the dataset's, and the seed of the split.
        lack: training rows → what they are too few for, in words; asked before the split, and after.

    Raises:
        TrainerError: wrong rows (exit 65), or a format or column that the task does not read (78).
    """
    (train, validation), (dataset, seed) = files, plan
    check_columns(rules.columns, dataset, rules.task)
    problems = Problems()

    def check_enough(rows: Sequence[bytes]) -> None:
        if problem := lack(rows):
            raise untaught(train, problem, dataset.columns)

    rows = read_rows(train, rules, dataset, problems, dataset.max_rows)
    problems.raise_if_any()
    not_empty(rows, train, "train")
    check_enough(rows)
    if validation:
        held_rules = replace(rules, check=held_check(rows))
        held = read_rows(validation, held_rules, dataset, problems)
        problems.raise_if_any()
        not_empty(held, validation, "validation")
    else:
        rows, held = split(rows, dataset.validation_split, seed, labels_of, files=train)
    check_enough(rows)
    return assemble(rows, held, [*train, *validation], rules.prompt)


def columns(*shapes: tuple[str, ...], optional: tuple[str, ...] = (), structured: tuple[str, ...] = ()) -> Columns:
    """Return the columns of a task."""
    return Columns(shapes, optional, frozenset(structured))


def windows(rows: Iterable[bytes]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield rows as objects, as many as a tokenizer takes at once, and the index of the first of them.

    A tokenizer's answer takes some hundred bytes a token: that of a whole data set would not be in bounded memory.
    """
    first, part = 0, []
    for row in rows:
        part.append(load(row))
        if len(part) == WINDOW:
            yield first, part
            first, part = first + len(part), []
    if part:
        yield first, part


def load(row: bytes) -> dict[str, Any]:
    """Return a row in its normal form as an object."""
    loaded: dict[str, Any] = json.loads(row)
    return loaded


def sort_labels(names: Iterable[str]) -> tuple[str, ...]:
    """Return labels in a stable order: whole numbers by value, else by code point."""
    found = sorted(set(names))
    return tuple(sorted(found, key=int) if all(_is_number(name) for name in found) else found)


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isdecimal() and name.isascii()


def finite(metrics: dict[str, Any]) -> dict[str, float]:
    """Return metrics as plain numbers."""
    return {name: float(value) if math.isfinite(value) else math.nan for name, value in metrics.items()}


def truncated(encodings: Sequence[Any]) -> list[int]:
    """Return which rows lost tokens to the maximum length."""
    return [row for row, encoding in enumerate(encodings) if encoding.overflowing]


def whole_lengths(found: Any, cut: Collection[int], tokenizer: Any, *texts: Sequence[str] | None) -> list[int]:
    """Return the tokens that each row would have if nothing were cut off.

    Args:
        found: what the tokenizer gave for the rows, a sequence each, cut.
        cut: rows that lost tokens; they are taken once more.
        tokenizer: of the model.
        texts: of the rows, one or two of each.
    """
    lengths = [len(tokens) for tokens in found["input_ids"]]
    for row in cut:
        parts = [text[row] for text in texts if text is not None]
        lengths[row] = len(tokenizer(*parts, verbose=False)["input_ids"])
    return lengths
