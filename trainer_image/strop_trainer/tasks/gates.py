"""Gates of a job against what is measured, where that depends on the model or the rows. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from strop_trainer.errors import bad_configuration
from strop_trainer.plan import EvaluationPlan
from strop_trainer.tasks.extractive_qa import ExtractiveQaTask


def check_gates(plan: EvaluationPlan, task: object) -> None:
    """Check that the gates name what is measured of the model that such a task turned out to have.

    Raises:
        TrainerError: one does not (exit 78).
    """
    if isinstance(task, ExtractiveQaTask):
        check_measured(plan, task.metrics, "where an encoder marks its answer in the text")


def check_measured(plan: EvaluationPlan, names: Sequence[str], where: str) -> None:
    """Check that the gates name metrics that will be measured.

    Raises:
        TrainerError: one does not (exit 78).
    """
    for bound in ("minimum", "maximum"):
        for name in getattr(plan, bound):
            if name not in names:
                raise bad_configuration(f"evaluation.{bound}.{name}: not measured {where}, allowed: {', '.join(names)}")
