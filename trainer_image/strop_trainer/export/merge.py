"""An adapter folded into its base model: what is exported is one plain model."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def merge_adapter(base: Path, adapter: Path, out: Path) -> None:
    """Write the merged model in fp32, with tokenizer, chat template and generation configuration, to `out`.

    Args:
        base: Hugging Face folder of the base model, unquantized.
        adapter: PEFT folder.
        out: the folder to make.

    Raises:
        ValueError: merging gave a weight that is not a number, so that the adapter is broken.
    """
    import torch  # noqa: PLC0415 - seconds, only where it is used
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    merged.config.dtype = torch.float32
    merged.save_pretrained(out)
    AutoTokenizer.from_pretrained(base, local_files_only=True).save_pretrained(out)
