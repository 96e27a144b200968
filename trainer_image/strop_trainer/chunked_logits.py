"""What is computed of logits, a few positions at a time: the logits of all would be the largest tensor of a step.

In most models they are what the output layer gives; others scale or cap that, and have all logits at once. torch's own
`linear_cross_entropy` goes by parts as well, but sums the loss of half precision in half precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

from strop_trainer.batches import Batch, keeps_logits, target_logits
from strop_trainer.plan import LOGITS_BYTES

_FP32_BYTES: Final = 4
_alone: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""Output layer → whether what it gives is the logits."""


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Return the cross-entropy in nats, summed; a `measure` of `summed`."""
    import torch  # noqa: PLC0415 - seconds

    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")


def token_losses(logits: Any, labels: Any) -> Any:
    """Return the cross-entropy of each position in nats, (n,); a `measure` of `in_parts`."""
    import torch  # noqa: PLC0415

    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def summed(model: Any, batch: Batch, measure: Callable[[Any, Any], Any] = cross_entropy) -> Any:
    """Return a sum over the positions that count.

    Args:
        model: of transformers or PEFT.
        batch: on the model's device.
        measure: fp32 logits (n, V) and labels (n,) of some positions → their part of the sum.
    """
    found = in_parts(model, batch, measure)
    return sum(found[1:], found[0])


def in_parts(model: Any, batch: Batch, measure: Callable[[Any, Any], Any]) -> list[Any]:
    """Return what is measured of the positions that count, part by part, in their order; arguments as of `summed`."""
    layer = _output_layer(model)
    size = batch.predicted if layer is None else max(1, LOGITS_BYTES // (_FP32_BYTES * layer.out_features))
    hidden = _hidden(model, layer, batch) if size < batch.predicted else None
    if hidden is None:
        return [measure(target_logits(model, batch).float(), batch.labels)]
    from torch.utils.checkpoint import checkpoint  # noqa: PLC0415

    # For their gradient, logits are computed once more: 2 operations a weight of this layer, beside 4 or 6.
    return [
        checkpoint(lambda states, labels: measure(layer(states).float(), labels), *part, use_reentrant=False)
        for part in zip(hidden.split(size), batch.labels.split(size), strict=True)
    ]


def _output_layer(model: Any) -> Any:
    """Return the output layer where it can be called apart from the model; else None."""
    from torch import nn  # noqa: PLC0415

    layer: Any = model.get_output_embeddings() if keeps_logits(model) else None
    # An adapter around it has masks of a whole pass; ZeRO deals its weights out.
    if type(layer) is not nn.Linear or hasattr(layer.weight, "ds_id"):
        return None
    return layer if _alone.get(layer, True) else None


def _hidden(model: Any, layer: Any, batch: Batch) -> Any:
    """Return what the output layer reads of the positions that count, (N, H); None where it does not make the logits.

    The layer itself runs on one position of each row, by which it is seen.
    """
    import torch  # noqa: PLC0415

    read: list[Any] = []

    def take(_layer: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        read.append(arguments[0])
        return (arguments[0][:, :1],)

    handle = layer.register_forward_pre_hook(take)
    try:
        logits = model(**batch.inputs, use_cache=False, logits_to_keep=batch.keep).logits
    finally:
        handle.remove()
    (hidden,) = read
    if layer not in _alone:
        with torch.no_grad():
            _alone[layer] = torch.equal(logits, layer(hidden[:, :1]))
    if not _alone[layer]:
        return None
    return hidden[0] if batch.select is None else hidden.flatten(0, 1)[batch.select]
