"""What a kind of model is to the stages: how it is loaded, asked, exported and proven."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from strop_trainer.batches import Batch
    from strop_trainer.run import Run
    from strop_trainer.tasks.base import Example


class Head(Protocol):
    """One file a kind of model. Each part reads what the ones before it have found out, and keeps its own in `run`."""

    def prepare(self, run: Run) -> None:
        """Turn rows into tokens, load the weights and describe both in the log.

        Sets `run.encoded`, `loaded`, `held_out`, `packed` and `set_pass`.
        """
        ...

    def load(self, run: Run) -> object:
        """Load the weights and add what is trained: for `prepare`, and once more where training took them apart."""
        ...

    def make_batch(self, run: Run, examples: Sequence[Example]) -> Batch:
        """Return one forward pass over rows."""
        ...

    def pass_tokens(self, run: Run) -> int | None:
        """Return the tokens that a packed forward pass is bounded to, or None."""
        ...

    def before_training(self, run: Run, identity: Mapping[str, str]) -> None:
        """Find out what the loss needs of the model as it is before the first step; called in every attempt.

        Args:
            run: prepared; nothing is loaded from a checkpoint yet.
            identity: what must be the same for what an earlier attempt has kept to hold.
        """
        ...

    def loss(self, run: Run) -> Callable[[Batch], Any]:
        """Return what gives a batch's loss: summed over its `targets`, a scalar with a gradient."""
        ...

    def held_out_metrics(self, run: Run) -> dict[str, float]:
        """Measure the model as it is now on the held-out rows; consumes no randomness."""
        ...

    def evaluate(self, run: Run) -> None:
        """Measure base and tuned on the same rows: set `run.metrics_base`, `metrics_tuned` and `samples`."""
        ...

    def export(self, run: Run) -> None:
        """Write the adapter and the exports to `run.artifact(…)`, set `run.exports`; drops the loaded model."""
        ...

    def prove(self, run: Run) -> None:
        """Compare each export with PyTorch on held-out rows: set `run.proofs`."""
        ...
