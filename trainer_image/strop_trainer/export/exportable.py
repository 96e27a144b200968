"""Which models ONNX Runtime GenAI's builder exports right, told by their configuration. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from strop_trainer.errors import bad_configuration
from strop_trainer.sources.text_part import text_config

ROPE_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "Gemma3ForCausalLM": ("default", "linear"),
    "GraniteForCausalLM": ("default",),
    "LlamaForCausalLM": ("default", "llama3"),
    "MistralForCausalLM": ("default",),
    "Phi3ForCausalLM": ("default", "longrope"),
    "Qwen2ForCausalLM": ("default",),
    "Qwen3ForCausalLM": ("default",),
    "SmolLM3ForCausalLM": ("default",),
}
"""Architecture → how its positions may be scaled: what our tests prove right. The builder knows more, and leaves out
some of what it does not know."""
ARCHITECTURES: Final = frozenset(ROPE_TYPES)


def architecture_of(model: Path) -> str:
    """Return the architecture that a Hugging Face folder names, or its model type, or `unknown`."""
    config = text_config(json.loads((model / "config.json").read_text(encoding="utf-8")))
    named = config.get("architectures") or [config.get("model_type") or "unknown"]
    return str(named[0])


def rope_type_of(model: Path) -> str:
    """Return how a Hugging Face folder's configuration has its positions scaled, such as `default` or `longrope`."""
    config = text_config(json.loads((model / "config.json").read_text(encoding="utf-8")))
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope = rope.get("full_attention", rope)
    found = str(rope.get("rope_type") or rope.get("type") or "default")
    # Early Phi-3 folders call it by the names of its forerunners.
    return "longrope" if config.get("model_type") == "phi3" and found in {"su", "yarn"} else found


def check_exportable(model: Path) -> None:
    """Refuse a model whose architecture cannot be exported, before anything is trained.

    Raises:
        TrainerError: the architecture, or how its positions are scaled, is not supported (exit 78).
    """
    if why := export_refusal(model):
        raise bad_configuration(f"model: {why}; with `output.onnx.enabled: false` the adapter alone is published")


def export_refusal(model: Path) -> str | None:
    """Return why a Hugging Face folder has no export, as `found, supports`; None where it has one."""
    found = architecture_of(model)
    if found not in ARCHITECTURES:
        return f"found architecture {found}, ONNX export supports {', '.join(sorted(ARCHITECTURES))}"
    rope, allowed = rope_type_of(model), ROPE_TYPES[found]
    if rope not in allowed:
        return f"found positions scaled by {rope}, ONNX export of {found} supports {', '.join(allowed)}"
    return None
