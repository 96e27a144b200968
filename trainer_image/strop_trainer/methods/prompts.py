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


def start_prompt_encoder(model: Any) -> None:
    """Start the network that makes the tokens of p-tuning so that it makes tokens of the vocabulary.

    Its last layer is solved for them, by least squares: that is exact where it is at least as wide as there are
    tokens. What a network of random weights makes is unlike any token: it is harmful until it has unlearnt that.
    """
    import torch  # noqa: PLC0415

    encoder = model.prompt_encoder["default"]
    *before, last = encoder.mlp_head
    vocabulary = model.get_base_model().config.get_text_config().vocab_size
    ids = torch.randint(0, vocabulary, (encoder.total_virtual_tokens,), device=model.device)
    with torch.no_grad():
        hidden = torch.nn.Sequential(*before)(encoder.embedding.weight)
        tokens = model.word_embeddings(ids).to(hidden.dtype)
        last.bias.copy_(tokens.mean(dim=0))
        last.weight.copy_((torch.linalg.pinv(hidden) @ (tokens - last.bias)).T)


def use_prompt(model: Any) -> None:
    """Let a PeftModel put its trained tokens in front of each row, when it is called and when it generates.

    Logits are those of a row's own tokens, as without anything in front. PEFT 0.21 does not do here: it looks for the
    cache by a name that transformers 5.24 no longer uses, so that its `generate` puts the tokens once more in front of
    every new one, and forgets a prefix after the first.
    """
    model.forward = functools.partial(_forward, model)
    model.generate = functools.partial(_generate, model)


def _forward(model: Any, input_ids: Any, attention_mask: Any, *, logits_to_keep: Any = 0, **more: Any) -> Any:
    import torch  # noqa: PLC0415

    read, shift = _in_front(model, input_ids, attention_mask)
    if isinstance(logits_to_keep, torch.Tensor):
        return model.base_model(**read, logits_to_keep=logits_to_keep + shift, **more)
    output = model.base_model(**read, logits_to_keep=logits_to_keep, **more)
    if logits_to_keep == 0:
        output.logits = output.logits[:, shift:]
    return output


def _generate(model: Any, input_ids: Any, attention_mask: Any, **options: Any) -> Any:
    """Return (rows, length and new tokens), as transformers' own. Positions go by the mask: padding counts for none."""
    import torch  # noqa: PLC0415

    read, _ = _in_front(model, input_ids, attention_mask)
    found = model.base_model.generate(**read, **options)
    return torch.cat([input_ids, found], dim=1) if "inputs_embeds" in read else found


def _in_front(model: Any, input_ids: Any, attention_mask: Any) -> tuple[dict[str, Any], int]:
    """Return what the base model reads in place of rows, and the positions that this puts in front of them."""
    import torch  # noqa: PLC0415

    rows, virtual = len(input_ids), model.active_peft_config.num_virtual_tokens
    mask = torch.cat([attention_mask.new_ones(rows, virtual), attention_mask], dim=1)
    prompt = model.get_prompt(rows)
    if not isinstance(prompt, torch.Tensor):
        return {"input_ids": input_ids, "attention_mask": mask, "cache": prompt}, 0
    embedded = model.word_embeddings(input_ids)
    return {"inputs_embeds": torch.cat([prompt.to(embedded.dtype), embedded], dim=1), "attention_mask": mask}, virtual
