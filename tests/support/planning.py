"""Jobs and pools for planning, as small as they may be."""

from typing import Any

from strop.api.computepool import ComputePoolSpec
from strop.planning.inputs import Job, Pool

SMOLLM = "pvc://base-models/smollm2-135m-instruct"


def place(document: dict[str, Any], path: str, value: Any) -> None:
    """Set a field by its path, such as `method.lora.rank`; make the objects on the way."""
    *parents, last = path.split(".")
    for step in parents:
        document = document.setdefault(step, {})
    document[last] = value


def spec_of(**fields: Any) -> dict[str, Any]:
    """Return a spec; `__` in a name stands for a dot: training__maxSteps=5."""
    spec: dict[str, Any] = {
        "task": "chat",
        "model": {"source": SMOLLM},
        "dataset": {"train": [{"source": "configmap://rows/train.jsonl"}]},
    }
    for name, value in fields.items():
        place(spec, name.replace("__", "."), value)
    return spec


def manifest_of(name: str = "job", namespace: str | None = "team-a", **fields: Any) -> dict[str, Any]:
    """Return a FineTuneJob as a user writes it."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "strop.dev/v1alpha1", "kind": "FineTuneJob", "metadata": metadata, "spec": spec_of(**fields)}


def job_of(name: str = "job", **fields: Any) -> Job:
    """Return a job."""
    return Job.from_resource(manifest_of(name, **fields))


def pool_of(name: str = "cpu", **fields: Any) -> Pool:
    """Return a pool of roomy CPU nodes; fields are those of its spec, in snake case."""
    return Pool(name, ComputePoolSpec(**{"cpu_per_node": "4", "memory_per_node": "32Gi", **fields}))


def gpu_pool_of(name: str = "gpu", memory: str = "24Gi", per_node: int = 1, **fields: Any) -> Pool:
    """Return a pool of nodes with accelerators."""
    accelerator = {"resourceName": "nvidia.com/gpu", "memory": memory, "perNode": per_node}
    return pool_of(name, accelerator=accelerator, **fields)
