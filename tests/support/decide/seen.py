"""What the operator sees, as small as it may be, and what its decision says in a word."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from strop.api import names
from strop.api.computepool import ComputePoolSpec
from strop.api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from strop.decide.decide import decide
from strop.decide.decision import Apply, Create, Decision, Delete, Patch, SetFinalizer
from strop.decide.observed import Observed
from strop.desired.children import build_applied
from strop.desired.metadata import Owner
from strop_trainer.plan import Plan
from tests.support.jobs import (
    INSTALLATION,
    JOB,
    JOB_UID,
    NAMESPACE,
    job_spec,
    make_child,
    make_job,
    make_plan,
    make_pod,
)

POOL = ComputePoolSpec.model_validate({"cpuPerNode": "8", "memoryPerNode": "16Gi"})

BOUND = {"metadata": {"name": "x"}, "status": {"phase": "Bound"}}

HELD = {"finalizers": [names.FINALIZER]}


@dataclass(frozen=True)
class At:
    """A moment that a test chooses."""

    text: str = "2026-01-01T00:10:00Z"

    def since(self, timestamp: str) -> float:
        return (datetime.fromisoformat(self.text) - datetime.fromisoformat(timestamp)).total_seconds()


def applied_children(plan: Plan | None = None) -> dict[str, Any]:
    children = build_applied(plan or make_plan(), Owner(NAMESPACE, JOB, JOB_UID), INSTALLATION)
    return {child["kind"]: child for child in children}


def fresh(**changes: Any) -> Observed:
    """A job that has just been applied, with all its inputs there."""
    base = Observed(
        job=make_job(),
        spec=FineTuneJobSpec.model_validate(job_spec()),
        plan=make_plan(),
        pool=POOL,
        claims={"models": BOUND, "strop-models": BOUND},
        config_maps={"rows": frozenset({"train.jsonl"})},
    )
    return dataclasses.replace(base, **changes)


def begun(
    child: Mapping[str, Any] | None = None,
    pods: tuple[Any, ...] = (),
    job: Any = None,
    **changes: Any,
) -> Observed:
    """A job whose children are all there."""
    claim = make_child("PersistentVolumeClaim", f"{JOB}-work", status={"phase": "Bound"})
    return fresh(
        job=job or make_job(**HELD),
        children={**applied_children(), "PersistentVolumeClaim": claim, "Job": child or make_child()},
        pods=pods,
        **changes,
    )


def look(observed: Observed, now: str = "2026-01-01T00:10:00Z") -> Decision:
    return decide(observed, At(now), INSTALLATION)


def done(decision: Decision) -> list[str]:
    """The actions, one word or two each."""
    words = []
    for action in decision.actions:
        match action:
            case SetFinalizer(present):
                words.append("hold" if present else "release")
            case Apply(manifest):
                words.append(f"apply {manifest['kind']}")
            case Create(manifest):
                words.append(f"create {manifest['kind']}")
            case Patch(target, body):
                words.append(f"patch {target['kind']} {json.dumps(body['spec'])}")
            case Delete(target, propagation):
                words.append(f"delete {target['kind']}" + (" foreground" if propagation == "Foreground" else ""))
    return words


def conditions(status: FineTuneJobStatus | None) -> dict[str, str]:
    assert status is not None
    return {condition.type: condition.status for condition in status.conditions}


def reason_of(status: FineTuneJobStatus | None, kind: str) -> str:
    assert status is not None
    return next(condition.reason for condition in status.conditions if condition.type == kind)


def ended_status(condition: str, at: str = "2026-01-01T00:10:00Z", **more: Any) -> dict[str, Any]:
    return {
        "phase": condition,
        "completionTime": at,
        "observedGeneration": 1,
        "conditions": [{"type": condition, "status": "True", "reason": "X", "message": "m", "lastTransitionTime": at}],
        **more,
    }


def unschedulable(message: str, reason: str = "Unschedulable") -> dict[str, Any]:
    return make_pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}])
