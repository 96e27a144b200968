"""The rules of `spec.evaluation`: what gates may name, and in which range."""

from typing import Any

from strop_trainer.plan import METRIC_RANGES, METRICS, Task, TaskMetrics
from tests.support.crd.cases import UNMEASURED, RuleCase, key_rules
from tests.support.crd.documents import ABSENT, with_task


def _metric_rules(task: Task, metrics: TaskMetrics) -> tuple[RuleCase, ...]:
    """The rules on the gates of one task."""

    def at(bound: str, name: str, rows: Any = ABSENT) -> dict[str, Any]:
        gates = {"spec.evaluation": {}, f"spec.evaluation.{bound}": {name: 0.5}, "spec.evaluation.generateRows": rows}
        return {**with_task(task), **gates}

    return tuple(
        case
        for bound in ("minimum", "maximum")
        for case in (
            RuleCase(
                "FineTuneJob",
                "spec",
                f".evaluation.{bound}",
                f"{task}{UNMEASURED}{', '.join(metrics.names)}",
                tuple(at(bound, name) for name in metrics.names),
                (at(bound, "beauty"),),
            ),
            RuleCase(
                "FineTuneJob",
                "spec",
                ".evaluation.generateRows",
                f"must be at least 1 for {', '.join(metrics.generated)} in evaluation.{bound}: {task} measures it",
                (at(bound, metrics.generated[0], 1), at(bound, metrics.held_out[0], 0)),
                tuple(at(bound, name, 0) for name in metrics.generated),
            )
            if metrics.generated and not metrics.by_model
            else None,
        )
        if case
    )


def _range_rules(low: int, high: int, names: tuple[str, ...]) -> tuple[RuleCase, ...]:
    """The rules that gates are in the range of what is measured."""

    def at(bound: str, name: str, value: float) -> dict[str, Any]:
        task = next(task for task, metrics in METRICS.items() if name in metrics.names)
        return {**with_task(task), "spec.evaluation": {}, f"spec.evaluation.{bound}": {name: value}}

    return tuple(
        RuleCase(
            "FineTuneJob",
            "spec.evaluation",
            f".{bound}",
            f"allowed: {low} to {high} for {', '.join(names)}",
            tuple(at(bound, name, value) for name in names for value in (low, high)),
            tuple(at(bound, name, value) for name in names for value in (low - 0.01, high + 1)),
        )
        for bound in ("minimum", "maximum")
    )


RULES: tuple[RuleCase, ...] = (
    *(case for task, metrics in METRICS.items() for case in _metric_rules(task, metrics)),
    *(case for (low, high), names in METRIC_RANGES.items() for case in _range_rules(low, high, names)),
    key_rules("FineTuneJob", "spec.evaluation.minimum", 1, ("a_0", "a" * 64), ("", "a" * 65, "Exact Match")),
    key_rules("FineTuneJob", "spec.evaluation.maximum", 1, ("a_0", "a" * 64), ("", "a" * 65, "Exact Match")),
)
