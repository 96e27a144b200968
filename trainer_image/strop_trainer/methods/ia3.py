"""(IA)3: vectors that scale keys, values and the MLP's inner activations (Liu et al. 2022)."""

from __future__ import annotations

from typing import Any

from strop_trainer.errors import bad_configuration

ATTENTION = ("k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn", "key", "value", "k", "v", "k_lin", "v_lin")
FEED_FORWARD = ("down_proj", "fc2", "c_proj", "dense_4h_to_h", "wo", "lin2", "output.dense")
"""Names of the layers in the families that transformers has. The input of the last layer of the MLP is scaled."""


def ia3_config(base: Any, task_type: str) -> Any:
    """Return PEFT's configuration.

    Raises:
        TrainerError: the model has layers of other names (exit 78).
    """
    from peft import IA3Config  # noqa: PLC0415 - seconds

    linear = {name for name, module in base.named_modules() if type(module).__name__ in {"Linear", "Conv1D"}}

    def there(names: tuple[str, ...]) -> list[str]:
        return [name for name in names if any(full == name or full.endswith(f".{name}") for full in linear)]

    attention, feed_forward = there(ATTENTION), there(FEED_FORWARD)
    if not attention or not feed_forward:
        shown = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise bad_configuration(
            f"method.type: ia3 knows no key, value and MLP layers among those of this model: {shown}"
        )
    return IA3Config(task_type=task_type, target_modules=[*attention, *feed_forward], feedforward_modules=feed_forward)
