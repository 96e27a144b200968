"""What all resource types share: camelCase on the wire, nothing unknown, CEL rules beside the fields they bind."""

from __future__ import annotations

from typing import Annotated, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Rule(NamedTuple):
    """One CEL rule of a schema (`x-kubernetes-validations`)."""

    rule: str
    message: str
    """Names the field and what is allowed."""
    field_path: str | None = None
    """Such as `.rank`; None blames the object itself."""


class ApiModel(BaseModel):
    """Base of every part of a resource."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")
    rules: ClassVar[tuple[Rule, ...]] = ()


class StatusModel(BaseModel):
    """Base of what the operator itself writes: fields of a newer version are kept out of the way, not refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")
    rules: ClassVar[tuple[Rule, ...]] = ()


DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
DnsName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
Quantity = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
Sha256 = Annotated[str, Field(min_length=64, max_length=64, pattern=r"^[0-9a-f]{64}$")]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
QualifiedName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=317,
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
    ),
]
ImageReference = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\s]+$")]


class LocalReference(ApiModel):
    """The name of an object in the same namespace."""

    name: DnsName = Field(description="Name of the object, in the job's own namespace.")


class StatusCondition(StatusModel):
    """One condition, as Kubernetes' own metav1.Condition."""

    type: str = Field(max_length=316, description="Type of the condition, such as Complete.")
    status: str = Field(max_length=7, description="True, False or Unknown.")
    reason: str = Field(max_length=1024, description="Stable CamelCase word for why.")
    message: str = Field(max_length=32768, description="For a person.")
    last_transition_time: str = Field(max_length=64, description="When status last changed (RFC 3339).")
    observed_generation: int | None = Field(default=None, ge=0, description="Generation of the spec it speaks of.")
