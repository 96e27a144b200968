"""FineTuneJob: model, data and method in; a proven version in the registry out."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from strop.api.base import ApiModel, Column, LocalReference, Resource, ResourceType, Rule
from strop.api.compute import ComputeSpec, ResourcesSpec
from strop.api.distributed import SHARED_RULES, DistributedSpec
from strop.api.evaluation import METRIC_RULES, EvaluationSpec
from strop.api.label_tasks import LABEL_RULES
from strop.api.method import METHOD_RULES, LoraSpec, MethodSpec, PromptSpec
from strop.api.not_yet import NOT_YET, SUPPORTED
from strop.api.output import ONNX_FORM_RULES, OnnxSpec, OutputSpec
from strop.api.sources import TEMPLATE_IS_CONVERSATION, TEXT_FILES, DatasetSpec, DataSource, ModelSpec
from strop.api.status import FineTuneJobStatus, Progress, VersionReference
from strop.api.training import BETA_IS_PREFERENCE, CheckpointSpec, TrainingSpec
from strop_trainer.plan import Task

# Other rooms name a job's parts by the resource that has them; which file has which part is this room's affair.
__all__ = (
    "SUPPORTED",
    "ComputeSpec",
    "DataSource",
    "DatasetSpec",
    "FineTuneJob",
    "FineTuneJobSpec",
    "FineTuneJobStatus",
    "LoraSpec",
    "ModelSpec",
    "OnnxSpec",
    "OutputSpec",
    "Progress",
    "PromptSpec",
    "ResourcesSpec",
    "TrainingSpec",
    "VersionReference",
)

JOB_NAME_LENGTH = 50
"""Characters: the names of the job's pods and Service add to it and must stay DNS labels of 63."""

_FIXED = "fixed once the job is created; delete the job, or give a new one another name"
_FIXED_REQUIRED = ("task", "model", "dataset", "method", "compute", "backoffLimit")
_FIXED_OPTIONAL = ("training", "distributed", "evaluation", "checkpoint", "output", "credentials")
_IMMUTABLE: tuple[Rule, ...] = (
    *(Rule(f"self.{name} == oldSelf.{name}", _FIXED, f".{name}", "FieldValueForbidden") for name in _FIXED_REQUIRED),
    *(
        Rule(
            f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})",
            _FIXED,
            f".{name}",
            "FieldValueForbidden",
        )
        for name in _FIXED_OPTIONAL
    ),
)


class FineTuneJobSpec(ApiModel):
    """A fine-tuning job. Fixed once created, but for suspend, activeDeadlineSeconds and ttlSecondsAfterFinished."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *NOT_YET,
        TEXT_FILES,
        TEMPLATE_IS_CONVERSATION,
        BETA_IS_PREFERENCE,
        *METHOD_RULES,
        *ONNX_FORM_RULES,
        *LABEL_RULES,
        *SHARED_RULES,
        *METRIC_RULES,
        *_IMMUTABLE,
    )

    task: Task = Field(description="What the model learns to do; preference is DPO on pairs of answers.")
    model: ModelSpec = Field(description="The base model.")
    dataset: DatasetSpec = Field(description="The rows.")
    method: MethodSpec = Field(default_factory=MethodSpec, description="How the model is tuned. Left out: lora.")
    training: TrainingSpec | None = Field(
        default=None, description="Hyperparameters. Left out: chosen, see `strop plan`."
    )
    distributed: DistributedSpec | None = Field(default=None, description="Several pods or ranks.")
    compute: ComputeSpec = Field(
        default_factory=ComputeSpec, description="Where it runs. Left out: the cheapest pool that fits."
    )
    evaluation: EvaluationSpec | None = Field(default=None, description="Measurements and gates on held-out rows.")
    checkpoint: CheckpointSpec | None = Field(default=None, description="When training state is saved.")
    output: OutputSpec | None = Field(default=None, description="What is published, and where.")
    credentials: LocalReference | None = Field(
        default=None,
        description="Secret with credentials for remote sources (key HF_TOKEN), given to the trainer as environment.",
    )
    suspend: bool = Field(default=False, description="Pause: the pods stop with a checkpoint, and go on when unset.")
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = Field(
        default=None, description="Seconds from the start after which the job is failed."
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = Field(
        default=None, description="Seconds after its end until the job is deleted; published versions stay."
    )
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = Field(
        default=3, description="Further attempts after a failure that may pass by itself."
    )


def _name_is_short_label(self: FineTuneJob) -> bool:
    name = self.metadata.name
    return name is None or (
        len(name) <= JOB_NAME_LENGTH and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) is not None
    )


class FineTuneJob(Resource):
    """Tunes a model on data, proves the result and publishes it as a version in a registry volume."""

    resource: ClassVar[ResourceType] = ResourceType(
        plural="finetunejobs",
        singular="finetunejob",
        short_names=("ftj",),
        namespaced=True,
        columns=(
            Column("Model", ".spec.model.source", "The base model."),
            Column("Method", ".spec.method.type", "The fine-tuning method."),
            Column("Phase", ".status.phase", "One-word summary of the conditions."),
            Column("Progress", ".status.progress.display", "Share of the optimizer steps that are done."),
            Column("Loss", ".status.progress.loss", "Training loss."),
            Column("Version", ".status.modelVersion.version", "The version that was published.", "integer"),
            Column("Pool", ".status.pool", "The ComputePool that was chosen.", wide=True),
            Column("ETA", ".status.progress.eta", "Estimated time until training ends.", wide=True),
            Column("Message", ".status.message", "Why it waits, runs or failed.", wide=True),
            Column("Age", ".metadata.creationTimestamp", "Time since the job was created.", "date"),
        ),
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"size(self.metadata.name) <= {JOB_NAME_LENGTH} && "
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            f"a job's name has at most {JOB_NAME_LENGTH} lower-case letters, digits and hyphens and "
            "starts with a letter, since its pods and its Service are named after it",
            ".metadata.name",
            check=_name_is_short_label,
        ),
    )

    kind: Literal["FineTuneJob"] = "FineTuneJob"
    spec: FineTuneJobSpec = Field(
        description="What is asked for. Fixed once created, but for suspend, deadline and TTL."
    )
    status: FineTuneJobStatus | None = Field(default=None, description="What is known; written by the operator.")
