"""Which of transformers' classes a folder's language model is of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def language_model_class(folder: Path) -> Any:
    """Return transformers' class for what writes text: an encoder and a decoder, or a decoder alone."""
    import transformers  # noqa: PLC0415 - seconds

    config = json.loads((folder / "config.json").read_bytes())
    if config.get("is_encoder_decoder") is True:
        return transformers.AutoModelForSeq2SeqLM
    return transformers.AutoModelForCausalLM
