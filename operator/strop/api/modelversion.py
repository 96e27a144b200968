"""ModelVersion: the immutable record of a published version. It outlives its job."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from strop.api.base import ApiModel, Column, DnsLabel, DnsName, Resource, ResourceType, Rule, Sha256, Timestamp

Digest = Annotated[str, Field(min_length=71, max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]


class RegistryLocation(ApiModel):
    """Where the version lies."""

    claim: DnsName = Field(description="Claim that holds the registry.")
    path: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[a-z0-9][-a-z0-9/]*[a-z0-9]$")] = Field(
        description="<namespace>/<model>/<N> in the volume."
    )
    size_bytes: Annotated[int, Field(ge=0)] = Field(description="Size of all files.")
    manifest_sha256: Sha256 = Field(description="Hash of manifest.json, which holds the hash of every other file.")


class BaseModelRecord(ApiModel):
    """What was tuned."""

    source: Annotated[str, Field(min_length=1, max_length=1024)] = Field(description="As the job gave it.")
    revision: Annotated[str, Field(max_length=255)] | None = Field(
        default=None, description="Commit that was fetched of an hf:// source."
    )
    fingerprint: Annotated[str, Field(min_length=1, max_length=80)] = Field(description="sha256 over its files.")


class DatasetRecord(ApiModel):
    """What it was tuned on."""

    fingerprint: Annotated[str, Field(min_length=1, max_length=80)] = Field(description="sha256 over the rows.")
    train_rows: Annotated[int, Field(ge=0)] = Field(description="Rows learned from.")
    validation_rows: Annotated[int, Field(ge=0)] = Field(description="Rows held out.")


class MetricRecord(ApiModel):
    """One metric on the held-out rows."""

    name: Annotated[str, Field(min_length=1, max_length=64)] = Field(description="Such as exact_match.")
    base: float | None = Field(default=None, description="Of the base model.")
    tuned: float | None = Field(default=None, description="Of the tuned model.")


class ProofRecord(ApiModel):
    """How one export compared with PyTorch."""

    artifact: Annotated[str, Field(min_length=1, max_length=128)] = Field(description="Folder in the version.")
    passed: bool = Field(description="Whether it was within all bounds; what is not, is not published.")
    max_logit_difference: float | None = Field(default=None, description="Largest absolute difference of a logit.")
    token_agreement: float | None = Field(default=None, description="Share of greedy tokens that agree, 0..1.")
    perplexity_ratio: float | None = Field(default=None, description="Perplexity over PyTorch's.")
    judged_by: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=16)] = Field(
        default=[],
        description="The numbers that decided, with their limits: logits and tokens of fp32, the perplexity of what is "
        "quantized, metrics of either.",
    )


class JobRecord(ApiModel):
    """The job that published it."""

    name: DnsName = Field(description="Name of the FineTuneJob.")
    uid: Annotated[str, Field(min_length=1, max_length=64)] = Field(description="Its uid.")


class ModelVersionSpec(ApiModel):
    """A published version: written once, never changed."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self == oldSelf", "a published version never changes", reason="FieldValueForbidden"),
    )

    model: DnsLabel = Field(description="Name in the registry.")
    version: Annotated[int, Field(ge=1)] = Field(description="Number in the registry.")
    task: Annotated[str, Field(min_length=1, max_length=64)] = Field(description="What it was tuned for.")
    method: Annotated[str, Field(min_length=1, max_length=64)] = Field(description="How it was tuned.")
    registry: RegistryLocation = Field(description="Where it lies.")
    plan_digest: Digest = Field(description="sha256 of what was computed.")
    base_model: BaseModelRecord = Field(description="What was tuned.")
    dataset: DatasetRecord = Field(description="What it was tuned on.")
    metrics: Annotated[list[MetricRecord], Field(max_length=64)] = Field(default=[], description="On held-out rows.")
    proofs: Annotated[list[ProofRecord], Field(max_length=16)] = Field(default=[], description="Exports, proven.")
    job: JobRecord = Field(description="The job that published it.")
    published_at: Timestamp = Field(description="When (RFC 3339).")


class ModelVersion(Resource):
    """A published version of a model: where it lies, what it came from and how it was proven."""

    resource: ClassVar[ResourceType] = ResourceType(
        plural="modelversions",
        singular="modelversion",
        short_names=("mv",),
        namespaced=True,
        columns=(
            Column("Model", ".spec.model", "Name in the registry."),
            Column("Version", ".spec.version", "Number in the registry.", "integer"),
            Column("Task", ".spec.task", "What it was tuned for."),
            Column("Method", ".spec.method", "How it was tuned."),
            Column("Base", ".spec.baseModel.source", "What was tuned."),
            Column("Path", ".spec.registry.path", "Folder in the registry volume.", wide=True),
            Column("Job", ".spec.job.name", "The job that published it.", wide=True),
            Column("Age", ".metadata.creationTimestamp", "Time since the version was recorded.", "date"),
        ),
    )

    kind: Literal["ModelVersion"] = "ModelVersion"
    spec: ModelVersionSpec = Field(description="The record.")
