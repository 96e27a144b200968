"""What a task is to the rest of the trainer."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from strop_trainer.plan import DatasetPlan
from strop_trainer.sources import RowFile


@dataclass(frozen=True)
class DatasetStatistics:
    """What the rows are, as counted before training."""

    fingerprint: str
    """`sha256:<hex>` over the normalised rows, training rows first."""
    train_rows: int
    validation_rows: int
    duplicates: int
    """Training rows that are equal to an earlier one."""
    leaked: int
    """Held-out rows that are also training rows, word for word."""
    leaked_prompts: int
    """Held-out rows whose prompt is in the training rows, with whatever answer."""
    files: list[str]


@dataclass(frozen=True)
class Dataset:
    """Checked rows, each as its normalised JSON: compact, and what the fingerprint is taken of."""

    train: Sequence[bytes]
    validation: Sequence[bytes]
    statistics: DatasetStatistics


@dataclass(frozen=True)
class Example:
    """One row as tokens, held in five bytes a token.

    Args:
        input_ids: tokens of the whole row, T of them.
        targets: whether a token is to be learnt, T of them.
    """

    input_ids: Sequence[int]
    targets: Sequence[bool]
    stretched: bool = field(default=False, kw_only=True)
    """Longer than where the model changes the frequencies of positions for all rows of a pass."""

    def __post_init__(self) -> None:
        """Keep the numbers themselves: a list of Python's takes 36 bytes a token."""
        object.__setattr__(self, "input_ids", array("i", self.input_ids))
        object.__setattr__(self, "targets", array("b", self.targets))

    @property
    def longest(self) -> int:
        """Tokens of what stands at positions of its own, from 0."""
        return len(self.input_ids)

    @property
    def target_count(self) -> int:
        """Tokens whose prediction counts in the loss; the first token of a row is never predicted."""
        return sum(self.targets[1:])


@dataclass(frozen=True)
class Question:
    """A held-out row to be answered by generation."""

    prompt_ids: list[int]
    prompt: str
    reference: str
    row_ids: list[int]
    """Prompt and reference answer as the model would have written it."""
    messages: list[dict[str, Any]] = field(default_factory=list)
    """The prompt as it is given to a chat template; empty where the task has none."""
    others: tuple[str, ...] = ()
    """Further right answers."""

    @property
    def references(self) -> tuple[str, ...]:
        """All right answers, the one that is learnt first."""
        return self.reference, *self.others


@dataclass
class Encoded:
    """Rows as tokens, with what was lost on the way."""

    examples: list[Example]
    truncated: int = 0
    """Rows longer than the maximum length."""
    dropped: int = 0
    """Rows with nothing left to learn after truncation."""
    shortened: int = 0
    """Rows whose source lost its end, so that the answer is within the maximum."""
    in_pieces: bool = False
    """Whether what is longer than the maximum is read in several pieces: nothing of it is lost."""
    tokens: int = 0
    target_tokens: int = 0
    lengths: list[int] = field(default_factory=list)
    """Tokens of each sequence before it was truncated."""
    questions: list[Question] = field(default_factory=list)


class Task(Protocol):
    """One file a task: format, validation, template and metrics."""

    @property
    def name(self) -> str:
        """Name of the task in the plan."""
        ...

    @property
    def needs_chat_template(self) -> bool:
        """Whether the model must bring a chat template."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names that `evaluation.minimum` and `maximum` may use."""
        ...

    def read(self, train: Sequence[RowFile], validation: Sequence[RowFile], dataset: DatasetPlan, seed: int) -> Dataset:
        """Check all rows and hold some out. Needs no tokenizer and no torch."""
        ...

    def encode(self, rows: Sequence[bytes], tokenizer: Any, max_length: int) -> Encoded:
        """Turn rows into tokens with the model's own template."""
        ...

    def questions(self, rows: Sequence[bytes], tokenizer: Any, max_length: int, count: int) -> list[Question]:
        """Return the first rows that leave room for an answer, to be answered by generation."""
        ...

    def score(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Compare generated answers with those that are right for each, the one that is learnt first."""
        ...
