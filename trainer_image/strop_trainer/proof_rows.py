"""What a model says of one held-out row, small enough to be kept for all rows of the proof."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from strop_trainer.plan import ProofPlan

FEWEST_ROWS = 8
"""Rows that are used however long they are."""
_AT_ONCE = 16
"""Positions whose logits are looked at together."""


@dataclass(frozen=True)
class Kept:
    """What is kept of what a model says of a row.

    Args:
        positions: how many of the last ones keep their logits; bounds the memory.
        tie: how far below the largest a logit may lie to be near it; None where nobody asks for those near it.
    """

    positions: int
    tie: float | None = None


@dataclass(frozen=True)
class ProofRow:
    """One held-out row.

    Args:
        input_ids: prompt and reference answer, T tokens.
        prompt_length: tokens of the prompt.
        reference: the reference answer as text.
        messages: the prompt as it is given to a chat template; empty where there is none.
    """

    input_ids: Sequence[int]
    prompt_length: int
    reference: str
    messages: Sequence[Mapping[str, Any]] = ()

    def answer_end(self, end_tokens: frozenset[int]) -> int:
        """Return where the answer ends: behind its first end token, or at the end of the row."""
        for index in range(self.prompt_length, len(self.input_ids)):
            if self.input_ids[index] in end_tokens:
                return index + 1
        return len(self.input_ids)

    def needed(self, kept: Kept) -> int:
        """Return from how many of the last positions logits are needed.

        The token at index i is predicted at position i - 1.
        """
        return min(len(self.input_ids), max(kept.positions, len(self.input_ids) - self.prompt_length + 1))


@dataclass(frozen=True)
class Reading:
    """What a model says of a row with an answer of A tokens.

    Args:
        logits: float32 (P, V): of the last P positions of the row.
        finite: whether all of its logits that were seen are numbers.
        losses: negative log-likelihood in nats of each token of the answer.
        chosen: the token it would have said at each place of the answer.
        near: the tokens there whose logits are hardly below the chosen one's, itself among them; empty where nobody
            asked.
        hits: whether it would have said the answer's token.
    """

    logits: Any
    finite: bool
    losses: list[float]
    chosen: list[int]
    near: list[frozenset[int]]
    hits: list[bool]


def read(row: ProofRow, logits: Any, kept: Kept, ends: frozenset[int]) -> Reading:
    """Return what is kept of a model's logits for a row.

    Args:
        row: what it read.
        logits: float32 (N, V), of the last N positions of the row; N at least `row.needed(kept)`.
        kept: what is kept of them.
        ends: tokens that end an answer.
    """
    import numpy as np  # noqa: PLC0415 - the plan's side of the trainer goes without it

    first = len(row.input_ids) - len(logits)
    # The first token of a row is predicted nowhere.
    indices = np.arange(max(row.prompt_length, 1), row.answer_end(ends))
    targets = np.asarray(row.input_ids)[indices]
    losses: list[float] = []
    chosen: list[int] = []
    near: list[frozenset[int]] = []
    # A few at a time: arithmetic over a long answer's logits would take several times their memory.
    for start in range(0, len(indices), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        said = logits[indices[part] - 1 - first]
        losses += _losses(said, targets[part])
        chosen += said.argmax(-1).tolist()
        if kept.tie is not None:
            near += [frozenset(np.flatnonzero(at >= at.max() - kept.tie).tolist()) for at in said]
    finite = all(bool(np.isfinite(logits[start : start + _AT_ONCE]).all()) for start in range(0, len(logits), _AT_ONCE))
    hits = [token == target for token, target in zip(chosen, targets.tolist(), strict=True)]
    return Reading(logits[-kept.positions :].copy(), finite, losses, chosen, near, hits)


def taken(lengths: Sequence[int], limits: ProofPlan) -> int:
    """Return how many of the first rows are used: as many as the plan's, but fewer, at least 8, where they are long.

    Args:
        lengths: tokens of each row.
        limits: how many rows and tokens there may be.
    """
    short = sum(length <= limits.tokens for length in accumulate(lengths))
    return min(limits.rows, len(lengths), max(FEWEST_ROWS, short))


def _losses(logits: Any, targets: Any) -> list[float]:
    import numpy as np  # noqa: PLC0415

    wide = logits.astype(np.float64)
    top = wide.max(-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # infinite logits give losses that are no numbers, and those never pass
        normaliser = top[:, 0] + np.log(np.exp(wide - top).sum(-1))
    losses: list[float] = (normaliser - np.take_along_axis(wide, targets[:, None], -1)[:, 0]).tolist()
    return losses


def perplexity(losses: Sequence[float]) -> float:
    """Return the perplexity of tokens with these losses; infinite where it is too large, or there is none."""
    try:
        return math.exp(sum(losses) / len(losses))
    except (OverflowError, ZeroDivisionError):
        return math.inf
