"""An adapter folded into its base model: what is exported is one plain model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Look = Callable[[Any], list[Any]]
"""A model → what it puts out for some rows: tensors."""


@dataclass(frozen=True)
class Merged:
    """A merged model."""

    model: Any
    """Of transformers, in fp32."""
    beside: list[Any]
    """What was put out before merging, with the adapter beside the same base."""
    folded: list[Any]
    """The same of the merged model."""


def fold(tuned: Any, look: Look | None) -> Merged:
    """Fold an adapter into its base.

    Args:
        tuned: PeftModel; it is used up.
        look: what is seen of the model before and after; None: nothing.

    Raises:
        ValueError: merging gave a weight that is not a number, so that the adapter is broken.
    """
    beside = look(tuned) if look else []
    merged = tuned.merge_and_unload(safe_merge=True)
    return Merged(merged, beside, look(merged) if look else [])


def merge_adapter(base: Path, adapter: Path, out: Path | None, look: Look | None = None) -> Merged:
    """Return the merged model in fp32; write it, with tokenizer, chat template and generation configuration, to `out`.

    Args:
        base: Hugging Face folder of the base model, unquantized.
        adapter: PEFT folder.
        out: the folder to make; None writes nothing.
        look: as of `fold`.

    Raises:
        ValueError: merging gave a weight that is not a number, so that the adapter is broken.
    """
    import torch  # noqa: PLC0415 - seconds, only where it is used
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoTokenizer  # noqa: PLC0415

    from strop_trainer.methods.auto_class import language_model_class  # noqa: PLC0415 - its package knows PEFT

    model: Any = language_model_class(base).from_pretrained(
        base, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    merged = fold(PeftModel.from_pretrained(model, adapter), look)
    _plain(merged.model.config)
    if out is not None:
        merged.model.save_pretrained(out)
        AutoTokenizer.from_pretrained(base, local_files_only=True).save_pretrained(out)
    return merged


def save_tuned(model: Any, base: Path, out: Path) -> None:
    """Write a model that was tuned as a whole, in fp32, as `merge_adapter` writes one.

    Args:
        model: of fp32 weights.
        base: Hugging Face folder of the base model.
        out: the folder to make.

    Raises:
        ValueError: a weight is not a number.
    """
    import torch  # noqa: PLC0415 - seconds
    from transformers import AutoConfig, AutoTokenizer  # noqa: PLC0415

    broken = [name for name, parameter in model.named_parameters() if not torch.isfinite(parameter).all()]
    if broken:
        raise ValueError(f"weights: found {len(broken)} tensors with what is not a number, such as {broken[0]}")
    # Training does without the cache, where there is one.
    if hasattr(config := AutoConfig.from_pretrained(base, local_files_only=True), "use_cache"):
        model.config.use_cache = config.use_cache
    _plain(model.config)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(base, local_files_only=True).save_pretrained(out)


def _plain(config: Any) -> None:
    """Make a configuration one of fp32 weights that names no code: what the base's folder brings is not copied."""
    import torch  # noqa: PLC0415

    config.dtype = torch.float32
    if hasattr(config, "auto_map"):
        del config.auto_map
