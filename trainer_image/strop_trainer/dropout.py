"""Dropout on the adapters' input, with masks that are a pure function of where the training is.

On a CPU, torch draws one random number an element, one after the other; with a LoRA adapter on every linear layer that
is a sixth of a training step. Here one draw of 64 bits gives four elements their 16 bits. And a mask depends on nothing
but the seed, the pass and the layer: recomputing a layer in the backward pass, or resuming, gives the same mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

LEVELS = 1 << 16


class PassCounter:
    """Which forward pass of the training this is; set by the training loop."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.step = 0
        self.micro = 0


class SeededDropout(torch.nn.Module):
    """Zero a share of the elements and scale the rest, as torch's dropout does."""

    def __init__(self, share: float, layer: int, counter: PassCounter) -> None:
        """Make the dropout of one layer.

        Args:
            share: probability in 0..1 that an element is zeroed, to 1/65536.
            layer: number of the layer in the model.
            counter: shared by all layers.
        """
        super().__init__()
        self._dropped = round(share * LEVELS)
        self._scale = LEVELS / (LEVELS - self._dropped)
        self._layer = layer
        self._counter = counter

    def forward(self, x: Any) -> Any:
        """Return x with some elements zeroed, in training; x itself in evaluation."""
        if not self.training or self._dropped == 0:
            return x
        at = self._counter
        draws = np.random.Generator(np.random.SFC64((at.seed, at.step, at.micro, self._layer)))
        count = x.numel()
        bits = draws.integers(0, 1 << 64, size=-(-count // 4), dtype=np.uint64).view(np.int16)[:count]
        kept = torch.from_numpy(bits).view(x.shape) >= self._dropped - LEVELS // 2
        return x * (kept.to(x.dtype) * self._scale)


def replace_adapter_dropout(model: Any, seed: int) -> PassCounter:
    """Put `SeededDropout` in the place of the dropout of every adapter of a PEFT model."""
    counter = PassCounter(seed)
    layers = [module for module in model.modules() if hasattr(module, "lora_dropout")]
    for number, module in enumerate(layers):
        for name, dropout in module.lora_dropout.items():
            if isinstance(dropout, torch.nn.Dropout):
                module.lora_dropout[name] = SeededDropout(dropout.p, number, counter)
    return counter
