"""The termination message: the trainer's last word, one JSON object that Kubernetes keeps in the pod's status."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field, field_validator

from strop_trainer.plan import PlanModel

LIMIT_BYTES = 4096
"""Kubernetes cuts a termination message here."""


class ProofSummary(PlanModel):
    """One proven artifact."""

    artifact: str
    """Path in the version, such as `onnx/fp32`."""
    passed: bool
    max_logit_difference: float | None = None
    token_agreement: float | None = None
    perplexity_ratio: float | None = None
    judged_by: list[str] = []
    """The numbers that decided, with their limits, in words."""


class PublishedVersion(PlanModel):
    """What the operator records as a ModelVersion."""

    model: str
    version: int
    path: str
    """`<namespace>/<model>/<N>` in the registry volume."""
    manifest_sha256: str
    plan_digest: str
    base_commit: str | None = None
    """That was fetched of an hf:// model."""
    base_fingerprint: str
    """sha256 over the base model's weight and config files."""
    dataset_fingerprint: str
    """sha256 over the rows."""
    train_rows: int
    validation_rows: int
    trainable_parameters: int
    size_bytes: int
    metrics_base: dict[str, float]
    metrics_tuned: dict[str, float]
    proofs: list[ProofSummary] = []

    @field_validator("metrics_base", "metrics_tuned")
    @classmethod
    def _finite(cls, metrics: dict[str, float]) -> dict[str, float]:
        """Leave out what is no number, such as the perplexity of a loss of a thousand: JSON has no word for it."""
        return {name: value for name, value in metrics.items() if math.isfinite(value)}


class TerminationMessage(PlanModel):
    """Where the trainer stopped, why, and what it published."""

    stage: str
    reason: str
    """CamelCase, stable, such as `BadData` or `Published`."""
    message: str
    """For a person."""
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    published: PublishedVersion | None = None

    @field_validator("stage", "reason", "message", mode="before")
    @classmethod
    def _writable(cls, text: Any) -> Any:
        """Write `?` for what is no character: a last word that cannot be written would be lost with its cause."""
        return text.encode(errors="replace").decode() if isinstance(text, str) else text

    def dump(self) -> str:
        """Return the JSON, its message cut so that the whole fits Kubernetes' limit (UTF-8 bytes)."""
        text = self.model_dump_json(by_alias=True, exclude_none=True)
        excess = len(text.encode()) - LIMIT_BYTES
        if excess <= 0:
            return text
        message = self.message.encode()
        keep = max(0, len(message) - excess - 8)
        while True:
            short = self.model_copy(update={"message": message[:keep].decode(errors="ignore") + "…"})
            text = short.model_dump_json(by_alias=True, exclude_none=True)
            if len(text.encode()) <= LIMIT_BYTES or keep == 0:
                return text
            keep = max(0, keep - 64)
