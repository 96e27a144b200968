"""ComputePool: where trainer pods may run."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from strop.api.base import (
    ApiModel,
    Column,
    CpuQuantity,
    DnsLabel,
    DnsName,
    ImageReference,
    LabelValue,
    MemoryQuantity,
    QualifiedName,
    Resource,
    ResourceType,
    Rule,
)


class TolerationSpec(ApiModel):
    """A taint that trainer pods put up with."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.operator != 'Exists' || !has(self.value)",
            "not together with operator Exists",
            ".value",
            "FieldValueForbidden",
            lambda self: self.operator != "Exists" or self.value is None,
        ),
        Rule(
            "self.operator == 'Exists' || has(self.key)",
            "may be left out with operator Exists only",
            ".key",
            "FieldValueRequired",
            lambda self: self.operator == "Exists" or self.key is not None,
        ),
    )

    key: QualifiedName | None = Field(default=None, description="Key of the taint. Left out: any.")
    operator: Literal["Equal", "Exists"] = Field(default="Equal", description="How the value is compared.")
    value: LabelValue | None = Field(default=None, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint. Left out: any."
    )


class AcceleratorSpec(ApiModel):
    """The accelerators of each node: any extended resource."""

    resource_name: QualifiedName = Field(description="Extended resource, such as nvidia.com/gpu or amd.com/gpu.")
    memory: MemoryQuantity = Field(description="Memory of one accelerator, such as 24Gi.")
    per_node: Annotated[int, Field(ge=1, le=64)] = Field(default=1, description="Accelerators a node.")


class ComputePoolSpec(ApiModel):
    """A pool of like nodes."""

    node_selector: Annotated[dict[QualifiedName, LabelValue], Field(max_length=32)] = Field(
        default={}, description="Labels of the pool's nodes."
    )
    tolerations: Annotated[list[TolerationSpec], Field(max_length=32)] = Field(
        default=[], description="Taints of the pool's nodes."
    )
    cpu_per_node: CpuQuantity = Field(description="CPUs of a node that a trainer pod may use.")
    memory_per_node: MemoryQuantity = Field(description="Memory of a node that a trainer pod may use.")
    max_nodes: Annotated[int, Field(ge=1, le=10_000)] = Field(default=1, description="Nodes that one job may use.")
    accelerator: AcceleratorSpec | None = Field(default=None, description="Left out: a CPU pool.")
    cost: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        default=1, description="Relative cost of a node-hour: auto picks the cheapest pool that fits."
    )
    queue_name: DnsLabel | None = Field(
        default=None, description="Kueue LocalQueue, of that name in each job's namespace, that admits the jobs."
    )
    priority_class_name: DnsName | None = Field(default=None, description="PriorityClass of the trainer pods.")
    runtime_class_name: DnsName | None = Field(default=None, description="RuntimeClass of the trainer pods.")
    storage_class_name: DnsName | None = Field(default=None, description="StorageClass of the jobs' work volumes.")
    image: ImageReference | None = Field(default=None, description="Trainer image for this pool.")
    namespaces: Annotated[list[DnsLabel], Field(max_length=256)] = Field(
        default=[], description="Namespaces whose jobs may use the pool. Empty: all."
    )


def _name_is_free_label(self: ComputePool) -> bool:
    name = self.metadata.name
    return name is None or (name != "auto" and len(name) <= 63 and "." not in name)  # noqa: PLR2004


class ComputePool(Resource):
    """A pool of like nodes, on which fine-tuning jobs may run."""

    resource: ClassVar[ResourceType] = ResourceType(
        plural="computepools",
        singular="computepool",
        short_names=("cpool",),
        namespaced=False,
        columns=(
            Column("Accelerator", ".spec.accelerator.resourceName", "Extended resource; none on a CPU pool."),
            Column("Per Node", ".spec.accelerator.perNode", "Accelerators a node.", "integer"),
            Column("CPU", ".spec.cpuPerNode", "CPUs of a node that a trainer pod may use."),
            Column("Memory", ".spec.memoryPerNode", "Memory of a node that a trainer pod may use."),
            Column("Max Nodes", ".spec.maxNodes", "Nodes that one job may use.", "integer"),
            Column("Queue", ".spec.queueName", "Kueue LocalQueue.", wide=True),
            Column("Cost", ".spec.cost", "Relative cost of a node-hour.", "number", wide=True),
            Column("Age", ".metadata.creationTimestamp", "Time since the pool was created.", "date"),
        ),
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.metadata.name != 'auto' && size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')",
            "a pool's name is a label of at most 63 characters without dots, and not auto, which stands for any pool",
            ".metadata.name",
            check=_name_is_free_label,
        ),
    )

    kind: Literal["ComputePool"] = "ComputePool"
    spec: ComputePoolSpec = Field(description="The nodes, and who may use them.")
