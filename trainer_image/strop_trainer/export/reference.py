"""What PyTorch answers in fp32: the truth that an export is held to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop_trainer.batches import alike, switch_of
from strop_trainer.greedy import end_tokens, greedily
from strop_trainer.plan import CPU_PASS_TOKENS
from strop_trainer.proof_rows import Kept, ProofRow, Reading, read


@dataclass(frozen=True)
class Greedy:
    """A greedy answer.

    Args:
        tokens: S of them, the end of sequence included where it was reached.
        logits: float32 (S, V), from which each token was chosen.
    """

    tokens: list[int]
    logits: Any


@dataclass(frozen=True)
class Reference:
    """PyTorch's side of the proof.

    Args:
        readings: what it says of each row.
        greedy: answers to the first rows' prompts.
        end_tokens: tokens that end an answer.
        tokenizer: of the model.
    """

    readings: list[Reading]
    greedy: list[Greedy]
    end_tokens: frozenset[int]
    tokenizer: Any


def run_reference(
    merged: Path,
    rows: Sequence[ProofRow],
    prompts: Sequence[Sequence[int]],
    kept: Kept,
    max_new_tokens: int,
) -> Reference:
    """Run the merged model in fp32 over whole rows, and greedily from prompts.

    Args:
        merged: Hugging Face folder.
        rows: with their answers.
        prompts: token ids to be answered freely.
        kept: what is kept of what it says of each row.
        max_new_tokens: length of an answer at most.
    """
    import torch  # noqa: PLC0415 - seconds, only where it is used

    model, tokenizer, ends = load_merged(merged)
    readings: dict[int, Reading] = {}
    lengths = [len(row.input_ids) for row in rows]
    order = sorted(range(len(rows)), key=lengths.__getitem__)
    with torch.inference_mode():
        for chosen in alike(order, lengths, CPU_PASS_TOKENS, switch=switch_of(model.config)):
            part = [rows[index] for index in chosen]
            readings |= zip(chosen, _read_together(model, part, kept, ends), strict=True)
        greedy = [_greedy(model, prompt, ends, max_new_tokens) for prompt in prompts]
    return Reference([readings[index] for index in range(len(rows))], greedy, ends, tokenizer)


def _read_together(model: Any, rows: Sequence[ProofRow], kept: Kept, ends: frozenset[int]) -> Iterator[Reading]:
    """Yield what is kept of each row. Padding stands behind the rows, where no token of theirs looks."""
    import torch  # noqa: PLC0415

    lengths = [len(row.input_ids) for row in rows]
    ids = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : lengths[at]] = torch.tensor(list(row.input_ids))
        mask[at, : lengths[at]] = 1
    first = min(length - row.needed(kept) for length, row in zip(lengths, rows, strict=True))
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=max(lengths) - first, use_cache=False).logits
    for row, length, found in zip(rows, lengths, logits, strict=True):
        yield read(row, found[length - row.needed(kept) - first : length - first].float().numpy(), kept, ends)


def load_merged(merged: Path) -> tuple[Any, Any, frozenset[int]]:
    """Return the merged model in fp32, its tokenizer, and the tokens that end an answer."""
    import torch  # noqa: PLC0415
    from transformers import AutoTokenizer  # noqa: PLC0415

    from strop_trainer.methods.auto_class import language_model_class  # noqa: PLC0415 - its package knows PEFT

    model = language_model_class(merged).from_pretrained(
        merged, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    tokenizer: Any = AutoTokenizer.from_pretrained(merged, local_files_only=True)
    return model.eval(), tokenizer, end_tokens(model, tokenizer)


def decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    """Return an answer as text."""
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True))


def _greedy(model: Any, prompt: Sequence[int], ends: frozenset[int], max_new_tokens: int) -> Greedy:
    import torch  # noqa: PLC0415

    ids = torch.tensor([list(prompt)])
    wanted: dict[str, Any] = {"output_logits": True, "return_dict_in_generate": True}
    with greedily(model, ends=ends, pad_id=min(ends, default=0), max_new_tokens=max_new_tokens, **wanted):
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids))
    tokens = output.sequences[0, len(prompt) :].tolist()
    return Greedy(tokens, torch.cat(output.logits).float().numpy())
