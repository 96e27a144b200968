"""(IA)3: vectors that scale keys, values and the MLP's inner activations (Liu et al. 2022)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from strop_trainer.errors import bad_configuration

ATTENTION = (
    "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn", "key", "value", "k", "v", "k_lin", "v_lin",
    "key_proj", "value_proj", "self.in_proj", "Wqkv",
)  # fmt: skip
"""Names of the layers in the families that transformers has. One that makes queries as well is scaled as a whole."""
FEED_FORWARD = (
    "down_proj", "fc2", "mlp.c_proj", "dense_4h_to_h", "wo", "lin2", "output.dense", "ffn_output", "mlp.Wo"
)  # fmt: skip
"""The same of the last layer of the MLP, whose input is scaled."""
NOT_FEED_FORWARD = r"(?!.*attention\.output\.dense)"
"""BERT names the last layer of attention as that of the MLP."""


def ia3_config(base: Any, task_type: str, new: Sequence[str] = ()) -> Any:
    """Return PEFT's configuration.

    Its layers are expressions for whole names: PEFT takes a list for endings, of the MLP's names even within a word.

    Args:
        base: the transformers model.
        task_type: PEFT's name of what the model is for.
        new: modules that are trained in full and saved beside the vectors.

    Raises:
        TrainerError: the model has layers of other names (exit 78).
    """
    from peft import IA3Config  # noqa: PLC0415 - seconds

    linear = {name for name, module in base.named_modules() if type(module).__name__ in {"Linear", "Conv1D"}}

    def layers(names: tuple[str, ...], but: str = "") -> str | None:
        there = [name for name in names if any(re.fullmatch(_ending(name, but=but), full) for full in linear)]
        return _ending(*there, but=but) if there else None

    attention, feed_forward = layers(ATTENTION), layers(FEED_FORWARD, NOT_FEED_FORWARD)
    if not attention or not feed_forward:
        shown = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise bad_configuration(
            f"method.type: ia3 knows no key, value and MLP layers among those of this model: {shown}"
        )
    return IA3Config(
        task_type=task_type,
        target_modules=f"{attention}|{feed_forward}",
        feedforward_modules=feed_forward,
        modules_to_save=list(new) or None,
    )


def _ending(*names: str, but: str) -> str:
    """Return an expression for the full names that end in one of these, and are not of `but`."""
    return rf"{but}(.*\.)?({'|'.join(map(re.escape, names))})"
