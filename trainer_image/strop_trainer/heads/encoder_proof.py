"""The proof of a model that puts out labels: the export says the same on held-out rows, or it is not published."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from strop_trainer.plan import OnnxPrecision, ProofPlan
from strop_trainer.proof import Answer, Bound, Proof, number
from strop_trainer.tasks.labelled import Outputs
from strop_trainer.termination import ProofSummary


@dataclass(frozen=True)
class LabelProof(Proof):
    """The export of a model that puts out labels."""

    artifact: str
    precision: OnnxPrecision
    rows: int
    max_logit_difference: float
    agreement: float
    """Share of rows of which both say the same."""
    metrics_pytorch: dict[str, float]
    metrics_onnx: dict[str, float]
    reasons: tuple[str, ...]
    """Why it did not pass, in words; empty where it did."""
    answers: tuple[Answer, ...] = ()
    judged_by: tuple[Bound, ...] = ()

    def summary(self) -> ProofSummary:
        """Return what goes to the termination message."""
        return ProofSummary(
            artifact=self.artifact,
            passed=self.passed,
            max_logit_difference=number(self.max_logit_difference),
            token_agreement=number(self.agreement),
            judged_by=list(map(str, self.judged_by)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; what is not a number, or not measured for labels, is null."""
        none = dict.fromkeys(
            [
                "greedy_agreement",
                "perplexity_pytorch",
                "perplexity_onnx",
                "perplexity_ratio",
                "exact_match_pytorch",
                "exact_match_onnx",
                "token_accuracy_pytorch",
                "token_accuracy_onnx",
            ]
        )
        return {
            "artifact": self.artifact,
            "precision": self.precision,
            "passed": self.passed,
            "reasons": list(self.reasons),
            "judged_by": list(map(str, self.judged_by)),
            "rows": self.rows,
            "positions": self.rows,
            "answer_tokens": 0,
            "finite": math.isfinite(self.max_logit_difference),
            "max_logit_difference": number(self.max_logit_difference),
            "token_agreement": number(self.agreement),
            **none,
            "metrics_pytorch": {name: number(value) for name, value in self.metrics_pytorch.items()},
            "metrics_onnx": {name: number(value) for name, value in self.metrics_onnx.items()},
            "answers": [asdict(answer) for answer in self.answers],
        }


def largest_difference(ours: Sequence[Outputs], theirs: Sequence[Outputs]) -> float:
    """Return the largest absolute difference of two models' outputs; infinite where one is not a number."""
    import numpy as np  # noqa: PLC0415

    largest = 0.0
    for row, other in zip(ours, theirs, strict=True):
        for found, exported in zip(row, other, strict=True):
            difference = float(np.abs(found - exported).max())
            largest = max(largest, difference if math.isfinite(difference) else math.inf)
    return largest


def label_bounds(
    precision: OnnxPrecision,
    difference: float,
    agreement: float,
    metrics: tuple[dict[str, float], dict[str, float]],
    limits: ProofPlan,
) -> list[Bound]:
    """Return what an export is judged by: fp32 by its outputs too, what is quantized by the task's metrics.

    Args:
        precision: of its weights.
        difference: the largest of the outputs.
        agreement: share of rows of which both say the same.
        metrics: PyTorch's and the export's, in 0..1 (Matthews' correlation: -1..1).
        limits: what must be reached.
    """
    exact, found = metrics
    of_metrics = [
        Bound(name, found.get(name, math.nan), "at least", value - limits.metric_drop)
        for name, value in exact.items()
        if math.isfinite(value)
    ]
    if precision != "fp32":
        return of_metrics
    return [
        Bound("largest logit difference", difference, "at most", limits.fp32_logits_tolerance),
        Bound("agreement", agreement, "at least", limits.fp32_token_agreement),
        *of_metrics,
    ]
