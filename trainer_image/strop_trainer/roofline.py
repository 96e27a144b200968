"""How near training comes to what this machine can do: its arithmetic over the measured peak of a matrix product."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from strop_trainer.device import CPU

if TYPE_CHECKING:
    from strop_trainer.plan import Precision

SIDE: Final = {CPU: 1024}
"""Of the matrices that are multiplied: large enough that arithmetic, not memory, is what takes the time."""
ACCELERATOR_SIDE: Final = 8192
SECONDS: Final = 0.06
ROUNDS: Final = 3
_OF_THE_SOURCE: Final = re.compile(r"(EncDecAttention|encoder_attn)\.(k|v)(_proj)?(\.|$)")
"""Keys and values that a decoder makes of what the encoder has read: names of T5's, and of BART's and Marian's."""


def matmul_rate(precision: Precision, device: str) -> float:
    """Return the floating-point operations a second of a matrix product, the best of some.

    An n x n product counts 2n³. It takes about a tenth of a second, more where the precision is only emulated; no
    random state of training is touched.

    Args:
        precision: fp32 or bf16.
        device: torch's name.
    """
    import torch  # noqa: PLC0415 - seconds

    side = SIDE.get(device, ACCELERATOR_SIDE)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    source = torch.Generator(device).manual_seed(0)
    a, b = (torch.rand(side, side, generator=source, device=device, dtype=dtype) for _ in range(2))

    def once() -> float:
        begin = time.perf_counter()
        torch.mm(a, b)
        if device != CPU:
            torch.accelerator.synchronize()
        return time.perf_counter() - begin

    once()  # kernels are chosen, threads started
    best, spent, rounds = math.inf, 0.0, 0
    while rounds < ROUNDS or spent < SECONDS:
        took = once()
        best, spent, rounds = min(best, took), spent + took, rounds + 1
    return 2 * side**3 / best


@dataclass(frozen=True)
class Work:
    """What the matrix products of a model cost in training, in floating-point operations."""

    per_token: int
    """Of the layers that read all tokens, for each of them."""
    per_target: int
    """Of the output layer, which runs on tokens with a target alone."""
    per_written: int = 0
    """Of a decoder behind an encoder, which reads the tokens with a target; the encoder reads the others."""

    def of(self, tokens: int, targets: int) -> int:
        """Return the operations for so many tokens, and so many of them with a target."""
        read = tokens - targets if self.per_written else tokens
        return self.per_token * read + (self.per_target + self.per_written) * targets


@dataclass(frozen=True)
class Linear:
    """A linear layer."""

    weights: int
    trained: bool
    last: bool = False
    """It is the output layer."""
    writes: bool = False
    """It is of a decoder behind an encoder, and reads what that writes."""


def work_of(layers: Iterable[Linear]) -> Work:
    """Return the work of a model of such layers.

    A weight that is trained costs 6 operations a token: 2 forward, 2 for the gradient of its input, 2 for its own
    (Kaplan et al. 2020, §2.1: 6N). One that is frozen costs 4, since its own gradient is not computed: LoRA's 4N, and 6
    for each weight of the adapter (Schulman et al. 2025, LoRA Without Regret, "Compute efficiency"). As in the model
    FLOPs utilisation of Chowdhery et al. 2022 (PaLM, appendix B), what is computed twice to save memory does not count.
    Attention's own products are left out: at the lengths of most rows they are a few per cent.
    """
    read = last = written = 0
    for layer in layers:
        cost = (6 if layer.trained else 4) * layer.weights
        if layer.last:
            last += cost
        elif layer.writes:
            written += cost
        else:
            read += cost
    return Work(read, last, written)


def work_of_model(model: Any) -> Work:
    """Return the work of a transformers model, adapter included.

    Where an encoder and a decoder put out labels, both read all tokens.
    """
    return work_of(linear_layers(model))


def linear_layers(model: Any) -> list[Linear]:
    """Return the linear layers of a transformers model."""
    from peft.utils import ModulesToSaveWrapper  # noqa: PLC0415 - seconds
    from torch import nn  # noqa: PLC0415
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415

    output = model.get_output_embeddings()
    # An adapter, or a module that is trained in full, lies around it.
    last = set() if output is None else set(output.modules())
    writing = _writing(model) if model.config.is_encoder_decoder and output is not None else set()
    replaced = {
        inner
        for module in model.modules()
        if isinstance(module, ModulesToSaveWrapper)
        for inner in module.original_module.modules()
    }
    found = []
    for module in model.modules():
        if module in replaced:
            continue
        if isinstance(module, nn.Linear):
            # By its sides: 4-bit weights lie there packed, and ZeRO deals weights out.
            weights = module.in_features * module.out_features
        elif isinstance(module, Conv1D):
            weights = module.nx * module.nf
        else:
            continue
        found.append(Linear(weights, bool(module.weight.requires_grad), module in last, module in writing))
    return found


def _writing(model: Any) -> set[Any]:
    """Return the modules of a decoder that read its own tokens: not its keys and values of the source."""
    decoder = model.get_decoder()
    return {module for name, module in decoder.named_modules() if not _OF_THE_SOURCE.search(name)}
