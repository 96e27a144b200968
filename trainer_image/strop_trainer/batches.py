"""From rows as tokens to what one forward pass reads.

Legend: R rows, T tokens of all rows of a pass, L tokens of its longest row, N tokens whose prediction counts.

Packed, the rows follow each other in one sequence of T tokens without padding. `strop_segments` is the attention that
keeps them apart: each row attends to itself alone, at the cost of its own length squared and not of T squared, and
without a mask. Models whose layers do not pass by our attention (state space models, soft caps) would mix rows; whether
a model keeps them apart is tried before training, and rows are padded where it does not.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from heapq import heappop, heapreplace
from typing import Any, Self

from strop_trainer.tasks.base import Example
from strop_trainer.tasks.encoder_decoder import SourceTarget

ATTENTION = "strop_segments"
DRIFT_LIMIT = 0.05
"""Packed and alone may differ by rounding: relative to the norm of the logits, bf16 included."""


@dataclass(frozen=True)
class Batch:
    """Input of one forward pass."""

    inputs: dict[str, Any]
    """Arguments of the model but for logits_to_keep."""
    keep: Any
    """Positions whose logits are needed, (N,) packed, or those needed by any row, padded."""
    select: Any
    """None packed; padded, (N,) indices into the kept logits of all rows, R x kept: those that count."""
    labels: Any
    """(N,) the tokens to be predicted there."""
    tokens: int
    """Tokens of the rows, without padding."""

    @property
    def targets(self) -> int:
        """What the loss is a mean over: N."""
        return self.predicted

    @property
    def predicted(self) -> int:
        """N: what the output layer runs on."""
        return int(self.labels.numel())

    def to(self, device: Any) -> Self:
        """Return the batch with its tensors on a device; lengths stay where Python reads them without waiting."""
        inputs = {
            name: value.to(device, non_blocking=True) if hasattr(value, "to") else value
            for name, value in self.inputs.items()
        }
        keep, labels = (value.to(device, non_blocking=True) for value in (self.keep, self.labels))
        select = None if self.select is None else self.select.to(device, non_blocking=True)
        return replace(self, inputs=inputs, keep=keep, select=select, labels=labels)


def step_rows(step: int, rows: int, batch_size: int, seed: int) -> list[int]:
    """Return the rows of an optimizer step, counted from 0: a pure function, so that a resumed run needs no state.

    Each epoch is a shuffle of its own. The last step of an epoch takes the rows that are left.
    """
    per_epoch = steps_per_epoch(rows, batch_size)
    epoch, index = divmod(step, per_epoch)
    return list(_epoch_order(rows, seed, epoch)[index * batch_size : (index + 1) * batch_size])


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Return the optimizer steps in which all rows are seen once."""
    return -(-rows // batch_size)


@lru_cache(maxsize=2)
def _epoch_order(rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(rows))
    random.Random(f"{seed}:{epoch}").shuffle(order)  # noqa: S311 - an order, no secret
    return tuple(order)


def micro_batches(
    examples: Sequence[Example], size: int, *, packed: bool, tokens: int | None = None
) -> list[list[Example]]:
    """Share the rows of a step among forward passes of at most `size` rows.

    The gradient is the same however they are shared; packed, each pass gets about the same number of tokens, which
    bounds memory; padded, rows of like length go together, which saves padding. Stretched rows have passes of their
    own.

    Args:
        examples: rows of the step.
        size: rows of a pass, at most.
        packed: whether rows follow each other without padding.
        tokens: tokens of a packed pass, about at most; a longer row has a pass of its own.
    """
    sides = [[example for example in examples if example.stretched is side] for side in (False, True)]
    return [part for rows in sides if rows for part in _share(rows, size, packed=packed, tokens=tokens)]


def _share(examples: Sequence[Example], size: int, *, packed: bool, tokens: int | None) -> list[list[Example]]:
    order = sorted(examples, key=lambda example: -len(example.input_ids))
    if not packed:
        return [order[start : start + size] for start in range(0, len(order), size)]
    count = -(-len(order) // size)
    if tokens is not None:
        count = min(len(order), max(count, -(-sum(len(example.input_ids) for example in order) // tokens)))
    passes: list[list[Example]] = [[] for _ in range(count)]
    emptiest = [(0, number) for number in range(count)]  # a heap: tokens of a pass that has a place, its number
    for example in order:
        held, number = emptiest[0]
        passes[number].append(example)
        if len(passes[number]) < size:
            heapreplace(emptiest, (held + len(example.input_ids), number))
        else:
            heappop(emptiest)
    return passes


def alike(
    order: Sequence[int], lengths: Sequence[int], tokens: int, *, rows: int | None = None, switch: int | None = None
) -> Iterator[list[int]]:
    """Yield the rows that are read together without training: of like length, so that little is padding.

    Args:
        order: of the rows, the shortest first.
        lengths: tokens of each row, its answer included where one is still to come.
        tokens: of a pass with its padding, at most, but for a single row.
        rows: of a pass, at most.
        switch: see `switch_of`; rows on either side of it are never read together.
    """
    chosen: list[int] = []
    for row in order:
        full = len(chosen) == rows or (len(chosen) + 1) * lengths[row] > tokens
        crosses = switch is not None and bool(chosen) and lengths[chosen[-1]] <= switch < lengths[row]
        if chosen and (full or crosses):
            yield chosen
            chosen = []
        chosen.append(row)
    if chosen:
        yield chosen


def switch_of(config: Any) -> int | None:
    """Return the tokens of the longest row that longrope reads with its frequencies for short ones, if a model has it.

    A pass takes the others for all of its rows as soon as one is longer (Phi's models of 128k).
    """
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return rope["original_max_position_embeddings"] if rope.get("rope_type") == "longrope" else None


def with_sides(examples: Sequence[Example], switch: int | None) -> list[Example]:
    """Return rows that know on which side of `switch_of` they are."""
    if switch is None:
        return list(examples)
    return [replace(row, stretched=True) if row.longest > switch else row for row in examples]


def pack(examples: Sequence[Example]) -> Batch:
    """Put rows one after the other: (1, T), positions from 0 in each."""
    import torch  # noqa: PLC0415

    lengths = [len(example.input_ids) for example in examples]
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    ids = torch.tensor([token for example in examples for token in example.input_ids])
    targets = torch.tensor([hit for example in examples for hit in (False, *example.targets[1:])], dtype=torch.bool)
    at = targets.nonzero()[:, 0]
    inputs = {
        "input_ids": ids[None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
        "row_lengths": lengths,
    }
    # The token at index i is predicted at position i - 1 of the same row.
    return Batch(inputs, at - 1, None, ids[at], sum(lengths))


def pad(examples: Sequence[Example], pad_id: int) -> Batch:
    """Put rows below each other: (R, L), padded on the right."""
    import torch  # noqa: PLC0415

    longest = max(len(example.input_ids) for example in examples)
    ids = torch.full((len(examples), longest), pad_id)
    mask = torch.zeros_like(ids)
    targets = torch.zeros_like(ids, dtype=torch.bool)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        ids[row, :length] = torch.tensor(example.input_ids)
        mask[row, :length] = 1
        targets[row, 1:length] = torch.tensor(example.targets[1:], dtype=torch.bool)
    predicting = targets.roll(-1, 1)
    keep = predicting.any(0).nonzero()[:, 0]
    # Indices, not a mask: a device need not be asked how many there are.
    select = predicting[:, keep].flatten().nonzero()[:, 0]
    return Batch({"input_ids": ids, "attention_mask": mask}, keep, select, ids[targets], int(mask.sum()))


def pad_pairs(examples: Sequence[Example], pad_id: int) -> Batch:
    """Put sources below each other, and targets beside them: (R, L) each with an L of its own, padded on the right."""
    pairs = [example for example in examples if isinstance(example, SourceTarget)]
    sources = pad([Example(pair.input_ids, [False] * len(pair.input_ids)) for pair in pairs], pad_id)
    written = pad(
        [
            Example([*pair.given, *pair.target_ids], [False] * len(pair.given) + [True] * len(pair.target_ids))
            for pair in pairs
        ],
        pad_id,
    )
    # What follows the longest row's last token is not asked.
    read = {f"decoder_{name}": value[:, :-1] for name, value in written.inputs.items()}
    tokens = sum(len(pair.input_ids) + pair.target_count for pair in pairs)
    return Batch(sources.inputs | read, written.keep, written.select, written.labels, tokens)


def target_logits(model: Any, batch: Batch) -> Any:
    """Return the logits that count, (N, V): the output layer, the widest of all, runs on those positions alone."""
    if keeps_logits(model):
        logits = model(**batch.inputs, use_cache=False, logits_to_keep=batch.keep).logits
    else:
        logits = model(**batch.inputs, use_cache=False).logits[:, batch.keep]
    return logits[0] if batch.select is None else logits.flatten(0, 1)[batch.select]


def keeps_logits(model: Any) -> bool:
    """Whether a model can be asked for the logits of some positions alone."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in _arguments(type(base).forward)


@cache
def _arguments(function: Any) -> frozenset[str]:
    """Return the names of a function's arguments, which are asked for in each pass."""
    return frozenset(inspect.signature(function).parameters)


def register_attention() -> None:
    """Make `strop_segments` known to transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface  # noqa: PLC0415 - seconds

    AttentionInterface.register(ATTENTION, _segments)
    AttentionMaskInterface.register(ATTENTION, lambda *_args, **_more: None)


def _segments(_module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **more: Any) -> tuple[Any, None]:
    """Attend within each row: query (1, heads, T, head size), key and value likewise, maybe with fewer heads."""
    import torch  # noqa: PLC0415

    del attention_mask  # there is none: rows are kept apart by being taken one by one
    if more.get("softcap") is not None or more.get("position_bias") is not None or more.get("s_aux") is not None:
        raise NotImplementedError("attention with extra terms")
    lengths = more["row_lengths"]
    window = more.get("sliding_window")
    grouped = query.shape[1] != key.shape[1]
    dtype = query.dtype
    if query.device.type == "cpu":
        # torch's CPU kernel is three times slower in bf16 than in fp32 on rows of some dozens of tokens.
        query, key, value = query.float(), key.float(), value.float()
    rows = []
    for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True):
        mask = None
        if window is not None and q.shape[2] > window:
            at = torch.arange(q.shape[2], device=q.device)
            age = at[:, None] - at[None]
            mask = (age >= 0) & (age < window)
        rows.append(
            torch.nn.functional.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                is_causal=mask is None,
                dropout_p=more.get("dropout") or 0.0,
                scale=more.get("scaling"),
                enable_gqa=grouped,
            )
        )
    return torch.cat(rows, 2).transpose(1, 2).to(dtype).contiguous(), None


def keeps_rows_apart(model: Any, vocabulary: int) -> tuple[bool, str]:
    """Try whether packed rows stay apart in this model, and why not.

    A row's logits must not change in a single bit when the row before it changes, and must be, but for rounding, what
    they are when the row is alone. The model's attention must be `strop_segments`.
    """
    import torch  # noqa: PLC0415

    def ids(seed: int, length: int) -> list[int]:
        return [random.Random(seed).randrange(vocabulary) for _ in range(length)]  # noqa: S311

    def logits(*rows: list[int]) -> Any:
        batch = pack([Example(row, [False] + [True] * (len(row) - 1)) for row in rows])
        return target_logits(model, batch.to(model.device)).float()

    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            before, other, after = ids(1, 24), ids(2, 24), ids(3, 33)
            first, second, alone = logits(before, after)[23:], logits(other, after)[23:], logits(after)
    except (NotImplementedError, KeyError, TypeError, ValueError, RuntimeError) as error:
        return False, f"{type(error).__name__}: {error}"
    finally:
        model.train(training)
    drift = float((first - alone).norm() / alone.norm())
    if not torch.equal(first, second):
        return False, "a row changes when the row before it does"
    if not drift < DRIFT_LIMIT:
        return False, f"a row differs by {drift:.1%} from itself alone"
    return True, f"a packed row differs by {drift:.1e} from itself alone"
