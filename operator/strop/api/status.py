"""`status` of a FineTuneJob: what the operator tells of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from strop.api.base import DnsName, MetricName, StageName, StatusCondition, StatusModel, Timestamp

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Progress(StatusModel):
    """How far training is."""

    stage: str = Field(
        default="", max_length=32, description="check, fetch, prepare, train, evaluate, export, prove or publish."
    )
    display: Annotated[str, Field(max_length=32)] | None = Field(
        default=None, description="For the column: the share done, such as 42%, or the stage outside training."
    )
    step: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Optimizer steps done.")
    total_steps: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Optimizer steps in all.")
    percent: Annotated[int, Field(ge=0, le=100)] | None = Field(default=None, description="Of the optimizer steps.")
    epoch: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Passes over the rows done.")
    loss: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="Training loss, rounded for display."
    )
    eval_loss: Annotated[str, Field(max_length=16)] | None = Field(default=None, description="Loss on held-out rows.")
    learning_rate: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="Current learning rate."
    )
    tokens_per_second: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Tokens trained a second.")
    eta_seconds: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Estimated seconds until training ends."
    )
    eta: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="For the column: the same, such as 3m20s."
    )
    updated_at: Timestamp | None = Field(default=None, description="When the trainer last reported (RFC 3339).")


class VersionReference(StatusModel):
    """The version that this job published."""

    name: DnsName = Field(description="Name of the ModelVersion.")
    version: int = Field(ge=1, description="Number in the registry.")
    path: str = Field(min_length=1, max_length=512, description="<namespace>/<model>/<N> in the registry volume.")
    claim: DnsName = Field(description="Claim that holds the registry.")


class FineTuneJobStatus(StatusModel):
    """What is known of the job. Level-based: derived anew from what is there."""

    observed_generation: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Generation of the spec that this speaks of."
    )
    phase: Annotated[str, Field(max_length=32)] | None = Field(
        default=None, description="One-word summary of the conditions."
    )
    conditions: Annotated[list[StatusCondition], Field(max_length=16)] = Field(
        default=[],
        description="Conditions.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    message: Annotated[str, Field(max_length=2048)] | None = Field(
        default=None, description="Why it waits, runs or failed, in words."
    )
    plan_digest: Annotated[str, Field(max_length=80)] | None = Field(
        default=None, description="sha256 of what is computed."
    )
    pool: Annotated[str, Field(max_length=253)] | None = Field(
        default=None, description="The ComputePool that was chosen."
    )
    progress: Progress | None = Field(default=None, description="How far training is.")
    attempts: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Trainer pods started so far; one that a pause ended may be left out."
    )
    stage_seconds: Annotated[dict[StageName, Seconds], Field(max_length=32)] | None = Field(
        default=None, description="Seconds in each finished stage."
    )
    model_version: VersionReference | None = Field(default=None, description="What was published.")
    metrics: Annotated[dict[MetricName, Annotated[str, Field(max_length=64)]], Field(max_length=64)] | None = Field(
        default=None, description="Metrics on held-out rows, base → tuned."
    )
    start_time: Timestamp | None = Field(default=None, description="When the first trainer pod started.")
    completion_time: Timestamp | None = Field(default=None, description="When the job ended.")
