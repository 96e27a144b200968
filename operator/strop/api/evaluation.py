"""`spec.evaluation`: what is measured, and the gates that it must pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from strop.api.base import ApiModel, Found, MetricName, Rule, quoted
from strop_trainer.plan import METRIC_RANGES, METRICS, TaskMetrics

MetricBound = Annotated[float, Field(ge=-1e9, le=1e9)]
METRICS_IN_WORDS = "; ".join(f"{task}: {', '.join(METRICS[task].names)}" for task in METRICS)


def _outside(self: Any, bound: str, names: tuple[str, ...], low: int, high: int) -> dict[str, float]:
    """Return the gates on some metrics that are out of their range."""
    gates: dict[str, float] = getattr(self, bound) or {}
    return {name: value for name, value in gates.items() if name in names and not low <= value <= high}


def _range_rule(bound: str, names: tuple[str, ...], low: int, high: int) -> Rule:
    """Return the rule that gates on some metrics are in the range of what is measured."""
    outside = f"name in {quoted(names)} && (self.{bound}[name] < {low}.0 || self.{bound}[name] > {high}.0)"
    share = ", a share: 0.8 for 80 %" if (low, high) == (0, 1) else ""
    return Rule(
        f"!has(self.{bound}) || !self.{bound}.exists(name, {outside})",
        f"allowed: {low} to {high} for {', '.join(names)}{share}",
        f".{bound}",
        check=lambda self: not _outside(self, bound, names, low, high),
        found=Found(
            f"self.{bound}.filter(name, {outside})[0]",
            lambda self: ", ".join(
                f"{key}: {value:g}" for key, value in _outside(self, bound, names, low, high).items()
            ),
        ),
    )


class EvaluationSpec(ApiModel):
    """What is measured on held-out rows, and what must be reached to be published."""

    rules: ClassVar[tuple[Rule, ...]] = tuple(
        _range_rule(bound, names, low, high)
        for (low, high), names in METRIC_RANGES.items()
        for bound in ("minimum", "maximum")
    )

    every_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Steps between measurements of the loss. Left out: never, but at the end."
    )
    max_rows: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Held-out rows for the loss, taken evenly over all. Left out: 200."
    )
    generate_rows: Annotated[int, Field(ge=0, le=10_000)] | None = Field(
        default=None, description="Held-out rows that are answered by generation and compared. Left out: 20."
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] | None = Field(
        default=None,
        description="Longest generated answer, in tokens. Left out: 64; 128 for translation and summarization.",
    )
    minimum: Annotated[dict[MetricName, MetricBound], Field(max_length=16)] | None = Field(
        default=None,
        description="Metric → lowest value with which the result may be published, such as exact_match: 0.8. "
        f"Left out: none. Metrics of {METRICS_IN_WORDS}.",
    )
    maximum: Annotated[dict[MetricName, MetricBound], Field(max_length=16)] | None = Field(
        default=None,
        description="Metric → highest value with which the result may be published, such as eval_loss: 1.2. "
        f"Left out: none. Metrics of {METRICS_IN_WORDS}.",
    )


def _gates(self: Any, bound: str) -> list[str]:
    return list((getattr(self.evaluation, bound) if self.evaluation else None) or {})


def _generates(self: Any) -> bool:
    return self.evaluation is None or self.evaluation.generate_rows != 0


def _metric_rules(task: str, metrics: TaskMetrics, bound: Literal["minimum", "maximum"]) -> Iterator[Rule]:
    """Yield the rules that gates name what is measured for a task, and what is measured in this job."""
    gates = f"self.evaluation.{bound}"
    left_out = f"self.task != '{task}' || !has(self.evaluation) || !has({gates}) || "
    known, generated = set(metrics.names), set(metrics.generated)
    yield Rule(
        f"{left_out}{gates}.all(name, name in {quoted(metrics.names)})",
        f"{task} is measured by {', '.join(metrics.names)}",
        f".evaluation.{bound}",
        check=lambda self: self.task != task or known.issuperset(_gates(self, bound)),
        found=Found(
            f"{gates}.filter(name, !(name in {quoted(metrics.names)}))[0]",
            lambda self: ", ".join(name for name in _gates(self, bound) if name not in known),
        ),
    )
    if generated and not metrics.by_model:
        yield Rule(
            f"{left_out}!has(self.evaluation.generateRows) || self.evaluation.generateRows > 0 || "
            f"!{gates}.exists(name, name in {quoted(metrics.generated)})",
            f"must be at least 1 for {', '.join(metrics.generated)} in evaluation.{bound}: {task} measures it on "
            "generated answers",
            ".evaluation.generateRows",
            check=lambda self: self.task != task or _generates(self) or generated.isdisjoint(_gates(self, bound)),
        )


_BOUNDS: Final[tuple[Literal["minimum", "maximum"], ...]] = ("minimum", "maximum")
METRIC_RULES: tuple[Rule, ...] = tuple(
    rule for task, metrics in METRICS.items() for bound in _BOUNDS for rule in _metric_rules(task, metrics, bound)
)
"""What the gates of `evaluation` may name."""
