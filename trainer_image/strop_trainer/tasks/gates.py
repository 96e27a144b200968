"""Gates of a job against what is measured, by task, model and rows. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from strop_trainer.errors import bad_configuration
from strop_trainer.plan import METRICS, EvaluationPlan
from strop_trainer.tasks.base import Task
from strop_trainer.tasks.extractive_qa import ExtractiveQaTask
from strop_trainer.tasks.text_classification import TextClassificationTask
from strop_trainer.tasks.token_classification import TokenClassificationTask


def check_gates(plan: EvaluationPlan, task: Task) -> None:
    """Check that the gates name what is measured of the model that such a task turned out to have.

    Raises:
        TrainerError: one does not (exit 78).
    """
    if isinstance(task, ExtractiveQaTask):
        _check_measured(plan, task.metrics, "where an encoder marks its answer in the text")
        return
    found = METRICS.get(task.name)
    generated = found.generated if found else ()
    for bound in ("minimum", "maximum"):
        for name in getattr(plan, bound):
            if name not in task.metrics:
                raise bad_configuration(
                    f"evaluation.{bound}.{name}: unknown metric, allowed for {task.name}: {', '.join(task.metrics)}"
                )
            if name in generated and plan.generate_rows == 0:
                raise bad_configuration(f"evaluation.{bound}.{name}: needs evaluation.generateRows of at least 1")


def check_label_gates(plan: EvaluationPlan, task: Task, train: Sequence[bytes]) -> None:
    """Check that the gates name what is measured of the labels that the training rows have.

    Raises:
        TrainerError: one does not (exit 78).
    """
    if isinstance(task, TextClassificationTask | TokenClassificationTask):
        _check_measured(plan, task.measured(task.labels(train)), "of these labels")


def _check_measured(plan: EvaluationPlan, names: Sequence[str], where: str) -> None:
    for bound in ("minimum", "maximum"):
        for name in getattr(plan, bound):
            if name not in names:
                raise bad_configuration(f"evaluation.{bound}.{name}: not measured {where}, allowed: {', '.join(names)}")
