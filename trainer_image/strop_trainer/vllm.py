"""Whether vLLM can load a PEFT adapter, and what it must be started with: its loader's rules, applied to the files.

They are those of `vllm.lora.peft_helper.PEFTHelper` and `vllm.config.lora.LoRAConfig` (read in vLLM 0.22): plain LoRA
without biases and without modules that were trained in full, of a rank up to what `--max-lora-rank` says, which takes
certain values and is 16 where it is left out. Whether vLLM has the base model's architecture is not asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MAX_LORA_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of `--max-lora-rank`."""
_REQUIRED: Final = ("r", "lora_alpha", "target_modules")


@dataclass(frozen=True)
class Verdict:
    """What vLLM does with an adapter."""

    max_lora_rank: int | None
    """What it must be started with; None where it does not load the adapter."""
    reason: str = ""
    """Why it does not, in words."""

    @property
    def loads(self) -> bool:
        """Whether it loads the adapter."""
        return self.max_lora_rank is not None


def judge_adapter(folder: Path) -> Verdict:
    """Return what vLLM does with a PEFT folder, by its adapter_config.json."""
    return judge_config(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")))


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
    return Verdict(None, "; ".join(reasons)) if reasons else Verdict(rank)
