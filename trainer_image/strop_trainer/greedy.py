"""Greedy answers, whatever a model's own settings of generation are."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer: the model's, and the tokenizer's end of turn."""
    found = model.generation_config.eos_token_id
    ends = {found} if isinstance(found, int) else set(found or ())
    return frozenset(ends | {tokenizer.eos_token_id} - {None})


@contextmanager
def greedily(model: Any, *, ends: Collection[int], pad_id: int, max_new_tokens: int, **others: Any) -> Iterator[None]:
    """Let a model's `generate` take the likeliest token each time: no beams, no penalties, no bounds of its own.

    Args:
        model: of transformers, or PEFT's of one; its own settings are put back.
        ends: tokens that end an answer.
        pad_id: token behind the end of shorter answers.
        max_new_tokens: length of an answer at most.
        others: further fields of transformers' GenerationConfig.
    """
    from transformers import GenerationConfig  # noqa: PLC0415 - seconds, only where it is used

    # PEFT's model hands its settings to the one it wraps, and leaves them there; with prompts that one is asked.
    parts = [model, model.get_base_model()] if hasattr(model, "get_base_model") else [model]
    own = [part.generation_config for part in parts]
    # In their place, not as an argument: what the model's own say would count as defaults.
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=pad_id,
        use_cache=True,
        **others,
    )
    for part in parts:
        part.generation_config = settings
    try:
        yield
    finally:
        for part, before in zip(parts, own, strict=True):
            part.generation_config = before
