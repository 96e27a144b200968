"""QLoRA's base: linear layers in 4 bits (NF4), their scales quantized once more (Dettmers et al. 2023)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from strop_trainer.errors import bad_configuration
from strop_trainer.plan import Precision


def quantization_config(precision: Precision, whole: Sequence[str] | None = None) -> Any:
    """Return how transformers is to quantize while it loads.

    Args:
        precision: of what is computed around the quantized weights.
        whole: full names of modules that stay as they are, with all in them; None: what transformers finds to be the
            output layer.
    """
    import torch  # noqa: PLC0415 - seconds
    from transformers import BitsAndBytesConfig  # noqa: PLC0415

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        # As expressions from the first letter on: a plain name would stand for every name that ends in it.
        llm_int8_skip_modules=None if whole is None else [f"^{re.escape(name)}" for name in whole],
    )


def prepare(base: Any) -> Any:
    """Freeze the model; norms and embeddings in fp32."""
    from bitsandbytes.nn import Linear4bit  # noqa: PLC0415
    from peft import prepare_model_for_kbit_training  # noqa: PLC0415 - seconds

    for module in base.modules():
        if isinstance(module, Linear4bit):
            # On some CPUs, the first evaluation packs the weights for a kernel without a gradient, and leaves them so:
            # training would go on with gradients that do not reach the layers below.
            module.support_avx512bf16_for_cpu = False
    return prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)


def start_at_the_loss(model: Any, folder: Path) -> None:
    """Start each adapter at the best approximation, of its rank, of what quantization has lost (LoftQ, Li et al. 2023).

    One step of the paper's alternation, as PEFT does it on a model that is quantized already; PEFT's own insists on an
    accelerator and leaves out the adapter's scale.

    Args:
        model: PeftModel of a quantized base.
        folder: of the base model, unquantized.

    Raises:
        TrainerError: the folder names its weights otherwise than the model (exit 78).
    """
    import bitsandbytes  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from peft.tuners.lora.bnb import Linear4bit  # noqa: PLC0415
    from safetensors import safe_open  # noqa: PLC0415

    where: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            where |= dict.fromkeys(opened.keys(), file)
    with torch.no_grad():
        for name, module in model.named_modules():
            if not isinstance(module, Linear4bit):
                continue
            key = f"{name.removeprefix('base_model.model.')}.weight"
            if key not in where:
                raise bad_configuration(
                    f"method.lora.initialization: found loftq, but the model folder has no {key}; allowed: default"
                )
            with safe_open(where[key], framework="pt") as opened:
                exact = opened.get_tensor(key).to(device=module.weight.device, dtype=torch.float32)
            quantized = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            a, b, scale = module.lora_A["default"].weight, module.lora_B["default"].weight, module.scaling["default"]
            left, values, right = torch.svd_lowrank((exact - quantized.float()) / scale, q=a.shape[0], niter=16)
            a.copy_(values.sqrt()[:, None] * right.t())
            b.copy_(left * values.sqrt())
