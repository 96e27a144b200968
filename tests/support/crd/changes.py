"""What may become of a resource, and what may not."""

from collections.abc import Mapping
from typing import Any

from tests.support.crd.cases import Transition
from tests.support.crd.documents import ABSENT

FIXED = "fixed once the job is created; delete the job, or give a new one another name"


def _fixed(name: str, *reject: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> Transition:
    return Transition("FineTuneJob", "spec", f".{name}", FIXED, reject, before or {})


TRANSITIONS: tuple[Transition, ...] = (
    # With one task and one method, what becomes another is refused by what this version can do as well.
    _fixed("task", {"spec.task": "translation"}),
    _fixed("method", {"spec.method.lora.rank": 16}, {"spec.method": ABSENT}, {"spec.method": {"type": "qlora"}}),
    _fixed("model", {"spec.model.source": "hf://owner/other"}, {"spec.model.revision": ABSENT}),
    _fixed("dataset", {"spec.dataset.maxRows": 10}, {"spec.dataset.validation": ABSENT}),
    _fixed("compute", {"spec.compute.pool": "gpu"}, {"spec.compute": ABSENT}, {"spec.compute.resources.memory": "9Gi"}),
    _fixed("backoffLimit", {"spec.backoffLimit": 2}, {"spec.backoffLimit": ABSENT}),
    _fixed("training", {"spec.training.learningRate": 0.1}, {"spec.training": ABSENT}),
    _fixed("training", {"spec.training": {}}, before={"spec.training": ABSENT}),
    _fixed("distributed", {"spec.distributed": {}}, {"spec.distributed": ABSENT}),
    _fixed("distributed", {"spec.distributed": {}}, before={"spec.distributed": ABSENT}),
    _fixed("evaluation", {"spec.evaluation.minimum{}": 0.1}, {"spec.evaluation": ABSENT}),
    _fixed("evaluation", {"spec.evaluation": {}}, before={"spec.evaluation": ABSENT}),
    _fixed("checkpoint", {"spec.checkpoint.keep": 1}, {"spec.checkpoint": ABSENT}),
    _fixed("checkpoint", {"spec.checkpoint": {}}, before={"spec.checkpoint": ABSENT}),
    _fixed("output", {"spec.output.model": "other"}, {"spec.output": ABSENT}),
    _fixed("output", {"spec.output": {}}, before={"spec.output": ABSENT}),
    _fixed("credentials", {"spec.credentials.name": "other"}, {"spec.credentials": ABSENT}),
    _fixed("credentials", {"spec.credentials": {"name": "hub"}}, before={"spec.credentials": ABSENT}),
    Transition(
        "ModelVersion",
        "spec",
        "",
        "a published version never changes",
        ({"spec.version": 2}, {"spec.metrics": []}, {"spec.registry.path": "default/answers/2"}),
    ),
)

MUTABLE: dict[str, tuple[Mapping[str, Any], ...]] = {
    "FineTuneJob": (
        {},
        {"spec.suspend": False},
        {"spec.suspend": ABSENT},
        {"spec.activeDeadlineSeconds": 7200},
        {"spec.activeDeadlineSeconds": ABSENT},
        {"spec.ttlSecondsAfterFinished": 0},
        {"spec.ttlSecondsAfterFinished": ABSENT},
        {"metadata.labels": {"team": "a"}},
    ),
    "ComputePool": ({}, {"spec.maxNodes": 5}, {"spec.accelerator": ABSENT}),
    "ModelVersion": ({}, {"metadata.labels": {"team": "a"}}),
}
"""Changes that are taken."""
