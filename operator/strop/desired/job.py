"""The child Job: what may be tried again is tried again, what may not fails at once."""

from __future__ import annotations

from strop.api import names
from strop.api.computepool import ComputePoolSpec
from strop.api.finetunejob import FineTuneJobSpec
from strop.desired.installation import Installation
from strop.desired.metadata import TRAINER, Manifest, Owner, metadata
from strop.desired.pod import build_pod_template
from strop_trainer.exit_codes import NON_RETRIABLE, ExitCode
from strop_trainer.plan import Plan


def build_job(
    plan: Plan, spec: FineTuneJobSpec, owner: Owner, pool: ComputePoolSpec, installation: Installation
) -> Manifest:
    """Return the Job. It is created once; only its suspension and its deadline are changed later.

    A Job for a queue begins suspended, as Kueue starts it.
    """
    queue = {names.LABEL_QUEUE: pool.queue_name} if pool.queue_name else {}
    nodes = plan.placement.nodes
    deadline = spec.active_deadline_seconds
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(plan, owner, owner.name, queue),
        "spec": {
            "completionMode": "Indexed",
            "completions": nodes,
            "parallelism": nodes,
            "backoffLimit": spec.backoff_limit,
            **({"activeDeadlineSeconds": deadline} if deadline else {}),
            "suspend": bool(queue),
            # Two pods of one index must never write the same checkpoints.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": build_pod_template(plan, owner, pool, installation),
        },
    }


def _failure_rules() -> list[Manifest]:
    """The first rule that matches decides; what none matches counts against the back-off limit."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Ignore", "onExitCodes": _exit_codes(ExitCode.PREEMPTED)},
        {"action": "FailJob", "onExitCodes": _exit_codes(*NON_RETRIABLE)},
    ]


def _exit_codes(*codes: ExitCode) -> Manifest:
    return {"containerName": TRAINER, "operator": "In", "values": sorted(int(code) for code in codes)}
