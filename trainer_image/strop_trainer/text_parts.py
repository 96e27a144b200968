"""What the text part of a model that reads images beside text is not tuned by. Pure: the planner asks as well."""

from __future__ import annotations

from strop_trainer.plan import PROMPT_METHODS, MethodType


def text_part_refusal(method: MethodType) -> str | None:
    """Return why the text part of a model that reads images is not tuned by a method; None where it is."""
    if method not in PROMPT_METHODS:
        return None
    return (
        f"method.type: found {method}, allowed for the text part of a model that reads images: lora, qlora, dora, ia3, "
        "full; tokens in front of a row are for that part alone, and an adapter is published for the whole model"
    )
