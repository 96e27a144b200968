"""`spec.compute`: where a job runs, and with how much."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from strop.api.base import ApiModel, CpuQuantity, DnsLabel, Found, ImageReference, MemoryQuantity, Rule
from strop.api.quantities import parse_quantity

LEAST_MEMORY: Final = "512Mi"
"""A trainer has 0.5 GiB of its own memory, without the libraries' files, before it loads a model. With less it is not
ended but stands still: the kernel drops the pages of the libraries and reads them again, and that without an end."""


class ResourcesSpec(ApiModel):
    """Resources of one trainer pod."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!has(self.memory) || !isQuantity(self.memory) || "
            f"quantity(self.memory).compareTo(quantity('{LEAST_MEMORY}')) >= 0",
            f"a trainer needs {LEAST_MEMORY} before it has loaded a model: give more, or leave it out",
            ".memory",
            check=lambda self: self.memory is None or parse_quantity(self.memory) >= parse_quantity(LEAST_MEMORY),
            found=Found("self.memory", lambda self: str(self.memory)),
        ),
    )

    cpu: CpuQuantity | None = Field(
        default=None, description="CPUs, such as 2 or 1500m. Left out: all that the pool allows."
    )
    memory: MemoryQuantity | None = Field(
        default=None, description=f"Memory, such as 8Gi; at least {LEAST_MEMORY}. Left out: by the estimate."
    )
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
