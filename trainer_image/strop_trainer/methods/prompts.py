"""Prompt-, prefix- and p-tuning: trainable tokens in front of each row."""

from __future__ import annotations

import functools
from typing import Any

from strop_trainer.plan import MethodPlan


def prompt_config(method: MethodPlan, base: Any, task_type: str) -> Any:
    """Return PEFT's configuration."""
    from peft import (  # noqa: PLC0415 - seconds
        PrefixTuningConfig,
        PromptEncoderConfig,
        PromptTuningConfig,
        PromptTuningInit,
    )

    tokens = method.virtual_tokens
    if method.type == "prompt-tuning":
        # Tokens of the vocabulary are a better start than noise (Lester et al. 2021, figure 3).
        return PromptTuningConfig(
            task_type=task_type, num_virtual_tokens=tokens, prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB
        )
    if method.type == "p-tuning":
        hidden = base.config.get_text_config().hidden_size
        return PromptEncoderConfig(task_type=task_type, num_virtual_tokens=tokens, encoder_hidden_size=hidden)
    return PrefixTuningConfig(task_type=task_type, num_virtual_tokens=tokens)


def start_prefix(model: Any) -> None:
    """Start a prefix at what the model itself has in mind after some tokens of its vocabulary.

    Random numbers would take the model's attention from the first step on: a loss of 7 instead of 3 on a small model.
    Activations of real tokens are the better start (Li & Liang 2021, section 7.4).
    """
    import torch  # noqa: PLC0415 - seconds
    from peft.tuners.cartridge.utils import initialize_kv_prefix_from_past_key_values  # noqa: PLC0415

    config = model.peft_config["default"]
    vocabulary = model.get_base_model().config.get_text_config().vocab_size
    ids = torch.randint(0, vocabulary, (1, config.num_virtual_tokens), device=model.device)
    with torch.no_grad(), model.disable_adapter():
        cache = model(input_ids=ids, use_cache=True).past_key_values
    initialize_kv_prefix_from_past_key_values(model, past_key_values=cache)


def hide_virtual_tokens(model: Any) -> None:
    """Let the model's logits be those of a row's own tokens, as without a prompt in front of it."""
    import torch  # noqa: PLC0415

    virtual, original = model.peft_config["default"].num_virtual_tokens, model.forward

    @functools.wraps(original)
    def forward(*arguments: Any, logits_to_keep: Any = 0, **more: Any) -> Any:
        if isinstance(logits_to_keep, torch.Tensor):
            return original(*arguments, logits_to_keep=logits_to_keep + virtual, **more)
        output = original(*arguments, logits_to_keep=logits_to_keep, **more)
        if logits_to_keep == 0:
            output.logits = output.logits[:, virtual:]
        return output

    model.forward = forward
