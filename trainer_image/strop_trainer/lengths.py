"""How long the sequences are, in tokens, and how many of them are longer than the maximum. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from strop_trainer.plan import PlanModel
from strop_trainer.tasks.base import Encoded


class LengthBucket(PlanModel):
    """Sequences of some lengths."""

    up_to: int
    """Tokens; more than the bucket before has."""
    sequences: int


class TokenLengths(PlanModel):
    """Lengths of the training sequences before anything is cut off. Quantiles are lengths that occur."""

    sequences: int
    mean: float
    median: int
    p90: int
    """Nine of ten sequences have at most so many tokens."""
    p99: int
    longest: int
    max_length: int
    longer: int
    """Sequences of more tokens than the maximum."""
    tokens_beyond: int
    """Tokens of theirs beyond it."""
    in_pieces: bool = False
    """Whether longer sequences are read in several pieces, so that nothing of them is lost."""
    buckets: list[LengthBucket]
    """By powers of two, and by the maximum where it lies between."""


def measure_lengths(lengths: Sequence[int], max_length: int, *, in_pieces: bool = False) -> TokenLengths | None:
    """Return what the lengths of sequences are like; None where there are none.

    Args:
        lengths: tokens of each sequence before it is cut.
        max_length: tokens that one may have.
        in_pieces: whether longer ones are read in several pieces.
    """
    if not lengths:
        return None
    ordered = sorted(lengths)
    beyond = [length - max_length for length in ordered if length > max_length]
    return TokenLengths(
        sequences=len(ordered),
        mean=round(sum(ordered) / len(ordered), 1),
        median=_quantile(ordered, 0.5),
        p90=_quantile(ordered, 0.9),
        p99=_quantile(ordered, 0.99),
        longest=ordered[-1],
        max_length=max_length,
        longer=len(beyond),
        tokens_beyond=sum(beyond),
        in_pieces=in_pieces,
        buckets=_buckets(ordered, max_length),
    )


def in_words(lengths: TokenLengths) -> str:
    """Return the lengths in one line."""
    text = (
        f"half of the {lengths.sequences:,} sequences have up to {lengths.median:,} tokens, nine of ten up to "
        f"{lengths.p90:,}, 99 of 100 up to {lengths.p99:,}, the longest {lengths.longest:,}"
    )
    if not lengths.longer:
        return f"{text}; none is longer than the maximum of {lengths.max_length:,}"
    if lengths.in_pieces:
        return f"{text}; {lengths.longer:,} of more than {lengths.max_length:,} are read in pieces, and nothing is lost"
    return f"{text}; {lengths.longer:,} ({lengths.longer / lengths.sequences:.1%}) exceed the maximum of " + (
        f"{lengths.max_length:,}, by {lengths.tokens_beyond:,} tokens in all"
    )


def lost_in_words(encoded: Encoded, max_length: int, unit: str) -> list[str]:
    """Return what of the rows is not learnt, a line each.

    Args:
        encoded: rows as tokens.
        max_length: tokens that one may have.
        unit: what a row is called.
    """
    longer = f"{unit} are longer than {max_length}"
    if encoded.in_pieces:
        longer = f"questions are longer than {max_length // 2}"
    counted = (
        (encoded.truncated, f"{longer} tokens and lose their end"),
        (encoded.shortened, f"texts lose their end, so that {max_length} tokens hold the answer"),
        (encoded.dropped, f"{unit} have nothing left to learn and are left out"),
    )
    return [f"{count} {what}" for count, what in counted if count]


def _quantile(ordered: Sequence[int], share: float) -> int:
    """Return the smallest length that a share of the sequences does not exceed."""
    return ordered[math.ceil(share * len(ordered)) - 1]


def _buckets(ordered: Sequence[int], max_length: int) -> list[LengthBucket]:
    low, high = max(0, (ordered[0] - 1).bit_length()), (ordered[-1] - 1).bit_length()
    bounds = {2**power for power in range(low, high + 1)}
    if ordered[0] <= max_length < ordered[-1]:
        bounds.add(max_length)
    buckets, before = [], 0
    for bound in sorted(bounds):
        count = sum(before < length <= bound for length in ordered)
        buckets.append(LengthBucket(up_to=bound, sequences=count))
        before = bound
    return buckets
