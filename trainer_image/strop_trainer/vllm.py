"""Whether vLLM can load a PEFT adapter, and what it must be started with: its loader's rules, applied to the files.

They are those of `vllm.lora.peft_helper.PEFTHelper` and `vllm.config.lora.LoRAConfig` (read in vLLM 0.22): plain LoRA
without biases and without modules that were trained in full, of a rank up to what `--max-lora-rank` says, which takes
certain values and is 16 where it is left out. Whether vLLM has the base model's architecture is not asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MAX_LORA_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of `--max-lora-rank`."""
_ENDS: Final = ("embed_tokens", "lm_head")
"""Layers outside the blocks. `vllm.lora.utils.get_supported_lora_modules` has them where the class of the model names
them in `embedding_modules`, which Llama's does and others' do not; else the adapter is refused when it is loaded."""
_REQUIRED: Final = ("r", "lora_alpha", "target_modules")


@dataclass(frozen=True)
class Verdict:
    """What vLLM does with an adapter."""

    max_lora_rank: int | None
    """What it must be started with; None where it does not load the adapter."""
    reason: str = ""
    """Why it does not, in words."""
    condition: str = ""
    """On what it depends, in words, where the files alone do not tell."""

    @property
    def loads(self) -> bool:
        """Whether it loads the adapter."""
        return self.max_lora_rank is not None


def judge_adapter(folder: Path) -> Verdict | None:
    """Return what vLLM does with a PEFT folder, by its adapter_config.json; None for one of experts, not read there."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return None if config.get("target_parameters") else judge_config(config)


def judge_config(config: Mapping[str, Any]) -> Verdict:
    """Return what vLLM does with an adapter of this configuration."""
    reasons = []
    if (kind := config.get("peft_type")) != "LORA" or any(name not in config for name in _REQUIRED):
        return Verdict(None, f"it loads LoRA adapters alone, and this one is of type {kind}")
    if config.get("use_dora"):
        reasons.append("it knows no DoRA")
    if config.get("modules_to_save"):
        reasons.append("it takes no modules that were trained in full, here " + ", ".join(config["modules_to_save"]))
    if config.get("bias", "none") != "none":
        reasons.append("it takes no biases")
    rank = next((allowed for allowed in MAX_LORA_RANKS if allowed >= config["r"]), None)
    if rank is None:
        reasons.append(f"it takes ranks up to {MAX_LORA_RANKS[-1]}, and this one has {config['r']}")
    return Verdict(None, "; ".join(reasons)) if reasons else Verdict(rank, condition=_condition(config))


def _condition(config: Mapping[str, Any]) -> str:
    """Return on what it depends whether vLLM takes adapted layers outside the blocks."""
    targets = config["target_modules"]
    if isinstance(targets, str):
        ends = sorted(name for name in _ENDS if re.search(rf"\b{name}\b", targets))
    else:
        ends = sorted({name.rpartition(".")[2] for name in targets} & set(_ENDS))
    if not ends:
        return ""
    return f"{' and '.join(ends)} adapted: it takes that of architectures whose class in vLLM names embedding_modules"
