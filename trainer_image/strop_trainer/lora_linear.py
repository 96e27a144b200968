"""Linear layers with a LoRA adapter, with the arithmetic of PEFT's and less memory and time.

PEFT writes `W x + B A dropout(x) * scale` as five operations, each of which keeps its input for the backward pass, in
the adapter's fp32. Here the layer is one operation that keeps x, as it came, and `A x` of a few columns; the adapter is
computed in the precision of x, as autocast does, and its gradients are fp32. On a CPU, the memory traffic that is saved
is time, too. A layer of 4 bits is asked as bitsandbytes does it, its weight unpacked once more in the backward pass; x
is rounded to the precision that it computes in, for the adapter as well.

Dropout masks are a pure function of the seed, the forward pass and the layer: none is kept, the backward pass makes it
again, and a resumed run has the same ones. A random byte an element decides, which is several times faster than torch's
generator on a CPU, where it draws one number after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora.bnb import Linear4bit as AdaptedLinear4bit
from peft.tuners.lora.layer import Linear

LEVELS = 256
_INTEGERS = {torch.bfloat16: np.int16, torch.float32: np.int32}


class PassCounter:
    """Which forward pass of the training this is; set by the training loop."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.step = 0
        self.micro = 0

    def key(self, layer: int) -> tuple[int, int, int, int]:
        """Return what a layer's mask in this pass is made of."""
        return self.seed, self.step, self.micro, layer


def keep_mask(shape: torch.Size, level: int, key: tuple[int, ...], dtype: torch.dtype) -> Any:
    """Return a mask of bits: all zero for about `level` of 256 elements, else all one; integers as wide as `dtype`."""
    count, width = shape.numel(), _INTEGERS[dtype]
    draws = np.random.Generator(np.random.SFC64(key)).integers(0, 1 << 64, size=-(-count // 8), dtype=np.uint64)
    kept = (draws.view(np.uint8)[:count] >= level).astype(width)
    return torch.from_numpy(np.negative(kept, out=kept)).view(shape)


def masked(x: Any, mask: Any) -> Any:
    """Return x where the mask is one and 0 where it is zero: by bits, many times faster than masked_fill on a CPU."""
    return (x.view(mask.dtype) & mask).view(x.dtype)


class _LoraLinear(torch.autograd.Function):
    """T tokens, I inputs, O outputs, R rank: x (T, I), the frozen layer's weight (O, I), a (R, I), b (O, R)."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any, x: Any, frozen: Any, a: Any, b: Any, scale: float, level: int, key: tuple[int, ...]
    ) -> Any:
        kept = masked(x, keep_mask(x.shape, level, key, x.dtype).to(x.device)) if level else x
        inner = kept @ a.to(x.dtype).t()
        scale *= LEVELS / (LEVELS - level)
        ctx.save_for_backward(x, a, b, inner)
        ctx.frozen, ctx.scale, ctx.level, ctx.key = frozen, scale, level, key
        return frozen(x).addmm_(inner, b.to(x.dtype).t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
        x, a, b, inner = ctx.saved_tensors
        gradient = gradient.contiguous()
        mask = keep_mask(x.shape, ctx.level, ctx.key, x.dtype).to(x.device) if ctx.level else None
        to_inner = (gradient @ b.to(x.dtype)).mul_(ctx.scale)
        kept = x if mask is None else masked(x, mask)
        a_gradient = (to_inner.t() @ kept).to(a.dtype)
        b_gradient = (gradient.t() @ inner).to(b.dtype).mul_(ctx.scale)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            through = to_inner @ a.to(x.dtype)
            weight = _weight_of(ctx.frozen, x.dtype)
            x_gradient = (through if mask is None else masked(through, mask)).addmm_(gradient, weight)
        return x_gradient, None, a_gradient, b_gradient, None, None, None


def _weight_of(frozen: Any, dtype: torch.dtype) -> Any:
    """Return the weight (O, I) of a layer, unpacked where it is of 4 bits."""
    if not isinstance(frozen, Linear4bit):
        return frozen.weight
    return dequantize_4bit(frozen.weight.data, frozen.weight.quant_state).to(dtype)


def _is_plain(module: Any) -> bool:
    """Whether this is PEFT's plain adapter on a plain or 4-bit layer."""
    base: Any = getattr(module, "base_layer", None)
    return (type(module) is Linear and type(base) is torch.nn.Linear) or (
        type(module) is AdaptedLinear4bit and type(base) is Linear4bit and base.compute_dtype in _INTEGERS
    )


def replace_forward(model: Any, seed: int) -> tuple[PassCounter, int]:
    """Let the plain LoRA layers of a PEFT model compute as above.

    Other adapters and layers that are trained themselves keep PEFT's own way.

    Returns:
        What tells the layers which forward pass it is, and how many layers were replaced.
    """
    counter, replaced = PassCounter(seed), 0
    for module in model.modules():
        if not _is_plain(module):
            continue
        names = list(module.lora_A)
        if len(names) != 1 or module.lora_variant or module.lora_A[names[0]].bias is not None:
            continue
        if module.base_layer.weight.requires_grad or module.lora_B[names[0]].bias is not None:
            continue
        module.forward = _forward_of(module, names[0], counter, replaced)
        replaced += 1
    return counter, replaced


def _forward_of(module: Any, name: str, counter: PassCounter, layer: int) -> Any:
    original, base = module.forward, module.base_layer
    dropout = module.lora_dropout[name]
    dtype = base.compute_dtype if isinstance(base, Linear4bit) else None
    level = round(dropout.p * LEVELS) if isinstance(dropout, torch.nn.Dropout) else 0

    def forward(x: Any, *arguments: Any, **more: Any) -> Any:
        if module.disable_adapters or module.merged or arguments or more or torch.is_autocast_enabled(x.device.type):
            return original(x, *arguments, **more)
        flat = x.reshape(-1, x.shape[-1]).to(dtype or x.dtype).contiguous()
        output = _LoraLinear.apply(
            flat,
            base,
            module.lora_A[name].weight,
            module.lora_B[name].weight,
            module.scaling[name],
            level if module.training else 0,
            counter.key(layer),
        )
        return output.to(x.dtype).view(*x.shape[:-1], output.shape[-1])

    return forward
