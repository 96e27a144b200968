"""`spec.compute`: where a job runs, and with how much."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from strop.api.base import ApiModel, CpuQuantity, DnsLabel, ImageReference, MemoryQuantity


class ResourcesSpec(ApiModel):
    """Resources of one trainer pod."""

    cpu: CpuQuantity | None = Field(
        default=None, description="CPUs, such as 2 or 1500m. Left out: all that the pool allows."
    )
    memory: MemoryQuantity | None = Field(default=None, description="Memory, such as 8Gi. Left out: by the estimate.")
    accelerators: Annotated[int, Field(ge=0, le=64)] | None = Field(
        default=None,
        description="Accelerators, of the kind that the pool has: none, or one a rank. Left out: one a rank where the "
        "pool has some.",
    )


class ComputeSpec(ApiModel):
    """Where it runs."""

    pool: DnsLabel = Field(
        default="auto", description="A ComputePool by name, or auto: the cheapest that fits and admits the namespace."
    )
    resources: ResourcesSpec | None = Field(default=None, description="Left out: from the memory estimate.")
    image: ImageReference | None = Field(
        default=None, description="Trainer image. Left out: the pool's, else the installation's."
    )
