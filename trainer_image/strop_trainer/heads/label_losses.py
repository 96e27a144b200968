"""From labels to tensors, and from what a model puts out to a loss: one pair of functions a kind of label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from strop_trainer.batches import Batch
    from strop_trainer.tasks.labelled import LabelledExample, Labels, Outputs


@dataclass(frozen=True)
class LabelLoss:
    """How one kind of label is learnt. Legend: R rows, L tokens of the longest, C labels, N labelled tokens."""

    tensors: Callable[[Sequence[LabelledExample], int], tuple[Any, Any]]
    """Rows and L → `Batch.labels` and `Batch.select` of a pass."""
    loss: Callable[[Outputs, Batch, Labels], Any]
    """The loss of a pass, summed over its targets, in nats."""


def _row_tensors(examples: Sequence[LabelledExample], longest: int) -> tuple[Any, None]:
    """Return (R,) numbers of labels, (R, C) of 0 and 1, or (R, 2) first and last token of each answer."""
    import torch  # noqa: PLC0415 - seconds, only where it is used

    del longest
    return torch.tensor([example.label for example in examples]), None


def _token_tensors(examples: Sequence[LabelledExample], longest: int) -> tuple[Any, Any]:
    """Return (N,) numbers of tags, and (N,) indices into the tokens of all rows, R x L: where they are."""
    import torch  # noqa: PLC0415

    labels = [(row * longest + token, tag) for row, example in enumerate(examples) for token, tag in example.label]
    return torch.tensor([tag for _, tag in labels]), torch.tensor([place for place, _ in labels])


def _row_loss(outputs: Outputs, batch: Batch, labels: Labels) -> Any:
    """Return the cross-entropy; with several labels a row, that of each label by itself."""
    from torch.nn import functional  # noqa: PLC0415

    logits = outputs[0].float()
    if labels.several:
        return functional.binary_cross_entropy_with_logits(logits, batch.labels, reduction="sum")
    return functional.cross_entropy(logits, batch.labels, reduction="sum")


def _token_loss(outputs: Outputs, batch: Batch, labels: Labels) -> Any:
    """Return the cross-entropy of the words' first tokens."""
    from torch.nn import functional  # noqa: PLC0415

    del labels
    return functional.cross_entropy(outputs[0].flatten(0, 1)[batch.select].float(), batch.labels, reduction="sum")


def _span_loss(outputs: Outputs, batch: Batch, labels: Labels) -> Any:
    """Return the cross-entropy of the beginnings and of the ends, added."""
    from torch.nn import functional  # noqa: PLC0415

    del labels
    begins, ends = (
        functional.cross_entropy(logits.float(), batch.labels[:, side], reduction="sum")
        for side, logits in enumerate(outputs)
    )
    return begins + ends


LOSSES: Final[Mapping[str, LabelLoss]] = {
    "SEQ_CLS": LabelLoss(_row_tensors, _row_loss),
    "TOKEN_CLS": LabelLoss(_token_tensors, _token_loss),
    "QUESTION_ANS": LabelLoss(_row_tensors, _span_loss),
}
"""By PEFT's name of the task."""
