"""What is published of an adapter whose base was not the published one while it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from strop_trainer import evaluation
from strop_trainer.context import say

if TYPE_CHECKING:
    from strop_trainer.run import Run


def hold_merged(run: Run, found: Mapping[str, float]) -> None:
    """Report what the merged model was measured to be, and hold it to the job's gates as well.

    Args:
        run: after training; `metrics_tuned` gets `eval_loss_merged`.
        found: metrics of the merged model on the held-out rows, eval_loss among them.

    Raises:
        TrainerError: it misses a gate (exit 76).
    """
    trained = run.metrics_tuned["eval_loss"]
    run.metrics_tuned["eval_loss_merged"] = found["eval_loss"]
    say(f"  merged into the base model as it is: eval_loss {found['eval_loss']:.4f}, as trained {trained:.4f}")
    evaluation.apply_gates({**run.metrics_tuned, **found}, run.plan.training.evaluation)
