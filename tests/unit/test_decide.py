"""The operator's promises, one row each: what is seen, and what is said and done about it."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from strop.api import names
from strop.api.computepool import ComputePoolSpec
from strop.api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from strop.api.names import Condition, Phase, Reason
from strop.decide.decide import decide
from strop.decide.decision import Apply, Create, Decision, Delete, Patch, SetFinalizer
from strop.decide.observed import Observed
from strop.decide.status import status_document
from strop.desired.children import build_applied
from strop.desired.metadata import Owner
from strop.planning.inputs import PlanError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import Plan
from tests.support.jobs import (
    INSTALLATION,
    JOB,
    JOB_UID,
    NAMESPACE,
    ended_pod,
    job_ended,
    job_spec,
    make_child,
    make_job,
    make_plan,
    make_pod,
    owner_reference,
    running_pod,
    termination,
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


def container_waits(reason: str, message: str = "") -> dict[str, Any]:
    return make_pod(state={"waiting": {"reason": reason, "message": message}})


def last_word(reason: str, message: str, stage: str = "prepare") -> str:
    return json.dumps({"stage": stage, "reason": reason, "message": message})


QUEUED = make_child(spec={"suspend": True}, labels={names.LABEL_QUEUE: "gpu"})
WORKLOAD = {
    "apiVersion": "kueue.x-k8s.io/v1beta1",
    "kind": "Workload",
    "metadata": {"name": "job-support-bot", "namespace": NAMESPACE, "uid": "w", "resourceVersion": "1"},
    "spec": {"active": True},
    "status": {
        "conditions": [
            {"type": "QuotaReserved", "status": "False", "message": "insufficient unused quota for nvidia.com/gpu"}
        ]
    },
}
MARKED = {"annotations": {names.ANNOTATION_PAUSED: "true", "strop.dev/plan-digest": make_plan().digest}}
PAUSED_JOB = make_job({"suspend": True}, **HELD)
PAUSED_WORKLOAD = {
    **WORKLOAD,
    "metadata": {**WORKLOAD["metadata"], **MARKED},
    "spec": {"active": False},
}


@dataclass(frozen=True)
class Case:
    """One row."""

    name: str
    observed: Observed
    phase: str
    reason: str
    words: str
    """Somewhere in the message."""
    actions: list[str] = field(default_factory=list)
    true: str = ""
    """Conditions that are True."""
    warning: bool = False


ACCEPTED = "Accepted Reconciling"
CASES = [
    Case(
        "a job that makes no Plan is told why",
        fresh(plan=None, pool=None, refusal=PlanError(Reason.NO_POOL_FITS, "needs 40 GiB, pool cpu has 16 GiB")),
        Phase.INVALID,
        Reason.NO_POOL_FITS,
        "needs 40 GiB",
        true="Stalled",
        warning=True,
    ),
    Case(
        "a missing source claim is told before a pod waits for it",
        fresh(claims={"strop-models": BOUND}),
        Phase.INVALID,
        Reason.CLAIM_NOT_FOUND,
        "claim models (a source of the job) is not in namespace team-a",
        true="Stalled",
        warning=True,
    ),
    Case(
        "a missing registry claim is told with the field that names it",
        fresh(claims={"models": BOUND}),
        Phase.INVALID,
        Reason.CLAIM_NOT_FOUND,
        "spec.output.claim",
        true="Stalled",
        warning=True,
    ),
    Case(
        "a claim that is being deleted is no claim",
        fresh(claims={"models": {"metadata": {"deletionTimestamp": "x"}}, "strop-models": BOUND}),
        Phase.INVALID,
        Reason.CLAIM_NOT_FOUND,
        "is being deleted",
        true="Stalled",
        warning=True,
    ),
    Case(
        "a missing ConfigMap is told",
        fresh(config_maps={}),
        Phase.INVALID,
        Reason.CONFIG_MAP_NOT_FOUND,
        "ConfigMap rows (configmap://rows/train.jsonl)",
        true="Stalled",
        warning=True,
    ),
    Case(
        "a ConfigMap without the key is told with the keys that it has",
        fresh(config_maps={"rows": frozenset({"b", "a"})}),
        Phase.INVALID,
        Reason.CONFIG_MAP_NOT_FOUND,
        "no key train.jsonl; found: a, b",
        true="Stalled",
        warning=True,
    ),
    Case(
        "someone else's Job of the same name is left alone",
        fresh(children={"Job": {"kind": "Job", "metadata": {"name": JOB}}}),
        Phase.INVALID,
        Reason.NAME_TAKEN,
        f"a Job named {JOB} exists and is not of this job",
        true="Stalled",
        warning=True,
    ),
    Case(
        "children of an earlier job of the same name are waited for",
        fresh(children={"PersistentVolumeClaim": make_child("PersistentVolumeClaim", f"{JOB}-work", uid="other")}),
        Phase.PENDING,
        Reason.PROGRESSING,
        "of an earlier job of this name",
        true=ACCEPTED,
    ),
    Case(
        "a job that is created paused gets no children",
        fresh(job=make_job({"suspend": True})),
        Phase.SUSPENDED,
        Reason.SUSPENDED,
        "nothing is started",
        true="Accepted Suspended",
    ),
    Case(
        "a good job gets its finalizer first and its Job last",
        fresh(),
        Phase.STARTING,
        Reason.CREATED,
        "waiting for its pod",
        [
            "hold",
            "apply ConfigMap",
            "apply Service",
            "apply NetworkPolicy",
            "create PersistentVolumeClaim",
            "create Job",
        ],
        ACCEPTED,
    ),
    Case(
        "a start that was cut short goes on where it stopped",
        fresh(job=make_job(**HELD), children=applied_children()),
        Phase.STARTING,
        Reason.CREATED,
        "waiting for its pod",
        ["create PersistentVolumeClaim", "create Job"],
        ACCEPTED,
    ),
    Case(
        "a Job that someone deleted is made anew",
        fresh(
            job=make_job(status={"startTime": "2026-01-01T00:00:10Z"}, **HELD),
            children={
                **applied_children(),
                "PersistentVolumeClaim": make_child("PersistentVolumeClaim", f"{JOB}-work"),
            },
        ),
        Phase.STARTING,
        Reason.RESTARTED,
        "from the last checkpoint",
        ["create Job"],
        ACCEPTED,
        warning=True,
    ),
    Case(
        "a Job without a pod yet is waited for",
        begun(),
        Phase.STARTING,
        Reason.CREATED,
        "waiting for its pod",
        true=ACCEPTED,
    ),
    Case(
        "a changed child is put back",
        dataclasses.replace(
            begun(pods=(running_pod(),)),
            children={
                **begun().children,
                "Service": {**applied_children()["Service"], "spec": {"clusterIP": "None", "selector": {}}},
            },
        ),
        Phase.RUNNING,
        Reason.TRAINING,
        "the trainer runs",
        ["apply Service"],
        f"{ACCEPTED} Running",
    ),
    Case(
        "a Job of another Plan keeps its children as they are",
        dataclasses.replace(
            begun(pods=(running_pod(),)), children={"Job": make_child(annotations={"strop.dev/plan-digest": "other"})}
        ),
        Phase.RUNNING,
        Reason.TRAINING,
        "the trainer runs",
        true=f"{ACCEPTED} Running",
    ),
    Case(
        "a changed deadline reaches the Job",
        begun(job=make_job({"activeDeadlineSeconds": 60}, **HELD), pods=(running_pod(),)),
        Phase.RUNNING,
        Reason.TRAINING,
        "the trainer runs",
        ['patch Job {"activeDeadlineSeconds": 60}'],
        f"{ACCEPTED} Running",
    ),
    Case(
        "a removed deadline reaches the Job",
        begun(child=make_child(spec={"activeDeadlineSeconds": 60}), pods=(running_pod(),)),
        Phase.RUNNING,
        Reason.TRAINING,
        "the trainer runs",
        ['patch Job {"activeDeadlineSeconds": null}'],
        f"{ACCEPTED} Running",
    ),
    Case(
        "a queue that leaves no room is quoted",
        begun(child=QUEUED, kueue=True, workload=WORKLOAD),
        Phase.QUEUED,
        Reason.WAITING_FOR_QUOTA,
        "waiting in queue gpu: insufficient unused quota for nvidia.com/gpu",
        true=f"{ACCEPTED} Queued",
    ),
    Case(
        "a queue that has not looked yet is just waited for",
        begun(child=QUEUED, kueue=True),
        Phase.QUEUED,
        Reason.WAITING_FOR_QUOTA,
        "waiting in queue gpu",
        true=f"{ACCEPTED} Queued",
    ),
    Case(
        "an evicted job waits again",
        begun(
            child=QUEUED,
            kueue=True,
            workload={
                **WORKLOAD,
                "status": {"conditions": [{"type": "Evicted", "status": "True", "message": "preempted by team-b"}]},
            },
        ),
        Phase.QUEUED,
        Reason.WAITING_FOR_QUOTA,
        "evicted: preempted by team-b",
        true=f"{ACCEPTED} Queued",
    ),
    Case(
        "a Workload without a word is just waited for",
        begun(child=QUEUED, kueue=True, workload={**WORKLOAD, "status": {}}),
        Phase.QUEUED,
        Reason.WAITING_FOR_QUOTA,
        "waiting in queue gpu",
        true=f"{ACCEPTED} Queued",
    ),
    Case(
        "a Workload that an administrator deactivated is not ours to activate",
        begun(child=QUEUED, kueue=True, workload={**WORKLOAD, "spec": {"active": False}}),
        Phase.QUEUED,
        Reason.WAITING_FOR_QUOTA,
        "it has been deactivated",
        true=f"{ACCEPTED} Queued",
    ),
    Case(
        "a queue without Kueue is told",
        begun(child=QUEUED),
        Phase.QUEUED,
        Reason.WAITING_FOR_QUOTA,
        "Kueue is not installed",
        true=f"{ACCEPTED} Queued",
    ),
    Case(
        "a Job that someone else suspended is not ours to resume",
        begun(child=make_child(spec={"suspend": True})),
        Phase.QUEUED,
        Reason.WAITING_FOR_QUOTA,
        "suspended by someone else",
        true=f"{ACCEPTED} Queued",
    ),
    Case(
        "a pause stops the pods",
        begun(job=PAUSED_JOB, pods=(running_pod(),)),
        Phase.SUSPENDED,
        Reason.SUSPENDED,
        "stop with a checkpoint",
        ['patch Job {"suspend": true}'],
        "Accepted Suspended",
    ),
    Case(
        "a paused job stays paused",
        begun(job=PAUSED_JOB, child=make_child(spec={"suspend": True}, **MARKED)),
        Phase.SUSPENDED,
        Reason.SUSPENDED,
        "spec.suspend is set",
        true="Accepted Suspended",
    ),
    Case(
        "a pause of a queued job goes through its Workload",
        begun(job=PAUSED_JOB, child=QUEUED, kueue=True, workload=WORKLOAD),
        Phase.SUSPENDED,
        Reason.SUSPENDED,
        "spec.suspend is set",
        ['patch Workload {"active": false}'],
        "Accepted Suspended",
    ),
    Case(
        "a paused Workload stays paused",
        begun(job=PAUSED_JOB, child=QUEUED, kueue=True, workload=PAUSED_WORKLOAD),
        Phase.SUSPENDED,
        Reason.SUSPENDED,
        "spec.suspend is set",
        true="Accepted Suspended",
    ),
    Case(
        "a pause waits for the Workload that Kueue has yet to make",
        begun(job=PAUSED_JOB, child=QUEUED, kueue=True),
        Phase.SUSPENDED,
        Reason.SUSPENDED,
        "spec.suspend is set",
        true="Accepted Suspended",
    ),
    Case(
        "what we paused is resumed",
        begun(child=make_child(spec={"suspend": True}, **MARKED)),
        Phase.STARTING,
        Reason.STARTING,
        "resumed",
        ['patch Job {"suspend": false}'],
        ACCEPTED,
    ),
    Case(
        "the Workload that we paused is resumed",
        begun(child=QUEUED, kueue=True, workload=PAUSED_WORKLOAD),
        Phase.STARTING,
        Reason.STARTING,
        "resumed",
        ['patch Workload {"active": true}'],
        ACCEPTED,
    ),
    Case(
        "no node that fits, in the scheduler's words",
        begun(pods=(unschedulable("0/2 nodes are available: 2 Insufficient memory."),)),
        Phase.PENDING,
        Reason.UNSCHEDULABLE,
        "no node fits: 0/2 nodes are available: 2 Insufficient memory.",
        true=ACCEPTED,
        warning=True,
    ),
    Case(
        "no node that fits, without words",
        begun(pods=(unschedulable(""),)),
        Phase.PENDING,
        Reason.UNSCHEDULABLE,
        "no node fits",
        true=ACCEPTED,
        warning=True,
    ),
    Case(
        "an unbound claim is named",
        begun(
            pods=(unschedulable("0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."),),
            claims={"models": {"status": {"phase": "Pending"}}, "strop-models": BOUND},
        ),
        Phase.PENDING,
        Reason.CLAIM_UNBOUND,
        "not bound to a volume yet: claim models (",
        true=ACCEPTED,
        warning=True,
    ),
    Case(
        "an unbound work claim is named, too",
        dataclasses.replace(
            begun(pods=(unschedulable("pod has unbound immediate PersistentVolumeClaims"),)),
            children={
                **begun().children,
                "PersistentVolumeClaim": make_child(
                    "PersistentVolumeClaim", f"{JOB}-work", status={"phase": "Pending"}
                ),
            },
        ),
        Phase.PENDING,
        Reason.CLAIM_UNBOUND,
        f"claim {JOB}-work (",
        true=ACCEPTED,
        warning=True,
    ),
    Case(
        "a claim that was deleted meanwhile is named",
        begun(pods=(unschedulable('persistentvolumeclaim "models" not found'),)),
        Phase.PENDING,
        Reason.CLAIM_NOT_FOUND,
        "claim models",
        true=ACCEPTED,
        warning=True,
    ),
    Case(
        "a scheduling gate is a queue",
        begun(pods=(unschedulable("", "SchedulingGated"),)),
        Phase.QUEUED,
        Reason.WAITING_FOR_QUOTA,
        "scheduling gate",
        true=f"{ACCEPTED} Queued",
    ),
    *(
        Case(
            f"an image that cannot be pulled is named ({waiting})",
            begun(pods=(container_waits(waiting, "not found"),)),
            Phase.PENDING,
            Reason.IMAGE_PULL,
            "the image trainer:1 cannot be pulled: not found",
            true=ACCEPTED,
            warning=True,
        )
        for waiting in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
    ),
    Case(
        "a missing Secret is told",
        begun(pods=(container_waits("CreateContainerConfigError", 'secret "hub" not found'),)),
        Phase.PENDING,
        Reason.SECRET_NOT_FOUND,
        'secret "hub" not found',
        true=ACCEPTED,
        warning=True,
    ),
    Case(
        "a ConfigMap that was deleted meanwhile is told",
        begun(pods=(container_waits("CreateContainerConfigError", 'configmap "rows" not found'),)),
        Phase.PENDING,
        Reason.CONFIG_MAP_NOT_FOUND,
        'configmap "rows" not found',
        true=ACCEPTED,
        warning=True,
    ),
    Case(
        "a container that does not start is told",
        begun(pods=(container_waits("CreateContainerError", "no such runtime"),)),
        Phase.STARTING,
        Reason.STARTING,
        "does not start: no such runtime",
        true=ACCEPTED,
    ),
    Case(
        "a container that is being created is just waited for",
        begun(pods=(container_waits("ContainerCreating"),)),
        Phase.STARTING,
        Reason.STARTING,
        "is being started",
        true=ACCEPTED,
    ),
    Case(
        "a pod that was just made is just waited for",
        begun(pods=(make_pod(),)),
        Phase.STARTING,
        Reason.STARTING,
        "is being started",
        true=ACCEPTED,
    ),
    Case(
        "a pod that Pod Security refuses is told",
        begun(refused_pods=("", 'Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest"')),
        Phase.PENDING,
        Reason.POD_REFUSED,
        'the cluster refuses the pod: pods "x" is forbidden: violates PodSecurity',
        true=ACCEPTED,
        warning=True,
    ),
    Case(
        "a ResourceQuota that leaves no room is a queue",
        begun(refused_pods=('Error creating: pods "x" is forbidden: exceeded quota: team, requested: memory=4Gi',)),
        Phase.QUEUED,
        Reason.WAITING_FOR_QUOTA,
        "exceeded quota: team",
        true=f"{ACCEPTED} Queued",
    ),
    Case(
        "a trainer that runs",
        begun(pods=(running_pod(),)),
        Phase.RUNNING,
        Reason.TRAINING,
        "the trainer runs",
        true=f"{ACCEPTED} Running",
    ),
    Case(
        "a trainer that runs says what it does",
        begun(pods=(running_pod(),), job=make_job(status={"progress": {"stage": "fetch"}}, **HELD)),
        Phase.RUNNING,
        Reason.TRAINING,
        "fetching model and data",
        true=f"{ACCEPTED} Running",
    ),
    Case(
        "a trainer that exports is about to publish",
        begun(pods=(running_pod(),), job=make_job(status={"progress": {"stage": "prove"}}, **HELD)),
        Phase.PUBLISHING,
        Reason.PROGRESSING,
        "proving the exports",
        true=f"{ACCEPTED} Running",
    ),
    Case(
        "a second attempt tells how the first ended",
        begun(pods=(ended_pod(137, reason="OOMKilled"), running_pod(name="b", created="2026-01-01T00:05:00Z"))),
        Phase.RUNNING,
        Reason.TRAINING,
        "(attempt 2); the attempt before ended: out of memory",
        true=f"{ACCEPTED} Running",
    ),
    Case(
        "a trainer that has ended well is not waited for as if it had not begun",
        begun(pods=(ended_pod(0, termination().dump()),)),
        Phase.PUBLISHING,
        Reason.PROGRESSING,
        "the trainer has ended; its Job is being closed",
        true=f"{ACCEPTED} Running",
    ),
    Case(
        "between two attempts the cause is told",
        begun(pods=(ended_pod(69, last_word("SourceUnavailable", "huggingface.co did not answer", "fetch")),)),
        Phase.STARTING,
        Reason.RESTARTED,
        "attempt 1 ended: fetch: huggingface.co did not answer; another follows",
        true=ACCEPTED,
        warning=True,
    ),
    *(
        Case(
            f"after the last attempt nothing is promised ({why})",
            begun(child=child, pods=pods_, job=make_job({"backoffLimit": limit}, **HELD)),
            Phase.RUNNING,
            Reason.TRAINING,
            f"attempt {len(pods_)} ended: ",
            true=f"{ACCEPTED} Running",
        )
        for why, child, pods_, limit in (
            ("exit code", make_child(), (ended_pod(65, last_word("BadData", "line 7")),), 3),
            ("back-off limit", make_child(), (ended_pod(70, name="a"), ended_pod(70, name="b")), 1),
            ("the Job's target", make_child(status=job_ended("FailureTarget")), (ended_pod(70),), 3),
        )
    ),
    Case(
        "a disruption does not use up the attempts",
        begun(
            job=make_job({"backoffLimit": 0}, **HELD),
            pods=(ended_pod(137, conditions=[{"type": "DisruptionTarget", "status": "True"}]),),
        ),
        Phase.STARTING,
        Reason.RESTARTED,
        "another follows",
        true=ACCEPTED,
        warning=True,
    ),
    Case(
        "a preemption with a checkpoint is no failure",
        begun(pods=(ended_pod(75, last_word("Preempted", "checkpoint at step 30 saved", "train")),)),
        Phase.STARTING,
        Reason.PREEMPTED,
        "checkpoint at step 30 saved",
        true=ACCEPTED,
    ),
    Case(
        "bad data fails the job in the trainer's words",
        begun(
            child=make_child(status=job_ended("Failed", "PodFailurePolicy")),
            pods=(ended_pod(65, last_word("BadData", "rows/train.jsonl line 7: no assistant turn")),),
        ),
        Phase.FAILED,
        Reason.BAD_DATA,
        "prepare: rows/train.jsonl line 7: no assistant turn",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "an end by lack of memory fails the job with the numbers",
        begun(
            child=make_child(status=job_ended("Failed", "BackoffLimitExceeded")),
            pods=(ended_pod(137, reason="OOMKilled"), ended_pod(137, reason="OOMKilled", name="b")),
            plan=make_plan(
                placement={
                    "estimate": {
                        "weights": 1,
                        "gradients": 1,
                        "optimizer": 1,
                        "activations": 1,
                        "overhead": 1,
                        "total": 3 * 1024**3,
                        "basis": "preset smollm2",
                    }
                }
            ),
        ),
        Phase.FAILED,
        Reason.OUT_OF_MEMORY,
        "at its limit of 4Gi; the estimate was 3.0 GiB (preset smollm2). Raise compute.resources.memory",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "several attempts are counted",
        begun(
            child=make_child(status=job_ended("Failed", "BackoffLimitExceeded")),
            pods=(ended_pod(70, name="a"), ended_pod(70, "Traceback\nKeyError: 'x'\n", name="b")),
        ),
        Phase.FAILED,
        Reason.TRAINER_FAILED,
        "exit code 70 (an unexpected error; tried again): KeyError: 'x' (after 2 attempts)",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "an exit code that nobody knows is told with the end of the log",
        begun(
            child=make_child(status=job_ended("Failed", "BackoffLimitExceeded")), pods=(ended_pod(3, "first\nlast\n"),)
        ),
        Phase.FAILED,
        Reason.TRAINER_FAILED,
        "exit code 3 (an unexpected end): last",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "a word of a foreign vocabulary does not become a reason",
        begun(
            child=make_child(status=job_ended("Failed", "PodFailurePolicy")),
            pods=(ended_pod(78, last_word("Weird reason", "does not fit", "")),),
        ),
        Phase.FAILED,
        Reason.BAD_CONFIGURATION,
        "does not fit",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "an evicted pod tells why",
        begun(
            child=make_child(status=job_ended("Failed", "BackoffLimitExceeded")),
            pods=(make_pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),),
        ),
        Phase.FAILED,
        Reason.TRAINER_FAILED,
        "The node was low on resource: memory.",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "a pod that vanished without a word",
        begun(child=make_child(status=job_ended("Failed", "BackoffLimitExceeded")), pods=(make_pod(phase="Failed"),)),
        Phase.FAILED,
        Reason.TRAINER_FAILED,
        "without a word",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "a failed Job whose pods are gone speaks for itself",
        begun(child=make_child(status=job_ended("Failed", "BackoffLimitExceeded", "Job has reached the limit"))),
        Phase.FAILED,
        Reason.BACKOFF_LIMIT,
        "Job has reached the limit",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "a failed Job without any word",
        begun(child=make_child(status=job_ended("Failed", "Other"))),
        Phase.FAILED,
        Reason.TRAINER_FAILED,
        "without a word",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "a deadline that passed is told with the deadline",
        begun(
            child=make_child(
                spec={"activeDeadlineSeconds": 60}, status=job_ended("Failed", "DeadlineExceeded", "Job was active")
            ),
            pods=(ended_pod(75, last_word("Preempted", "checkpoint saved")),),
        ),
        Phase.FAILED,
        Reason.DEADLINE_EXCEEDED,
        "not done within activeDeadlineSeconds (60 s)",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "a deadline that passed before any pod ended",
        begun(child=make_child(status=job_ended("Failed", "DeadlineExceeded"))),
        Phase.FAILED,
        Reason.DEADLINE_EXCEEDED,
        "activeDeadlineSeconds",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "a failure target is no failure yet: pods may still be ending",
        begun(child=make_child(status=job_ended("FailureTarget", "PodFailurePolicy")), pods=(running_pod(),)),
        Phase.RUNNING,
        Reason.TRAINING,
        "the trainer runs",
        true=f"{ACCEPTED} Running",
    ),
    Case(
        "what was published becomes a ModelVersion",
        begun(child=make_child(status=job_ended("Complete")), pods=(ended_pod(0, termination().dump()),)),
        Phase.COMPLETE,
        Reason.COMPLETE,
        "support-bot version 1 is published: eval_loss 2.5 → 0.8, exact_match 0 → 0.6",
        ["create ModelVersion"],
        "Accepted Complete Published",
    ),
    Case(
        "a version without metrics is a version",
        begun(
            child=make_child(status=job_ended("Complete")),
            pods=(ended_pod(0, termination(metricsBase={}, metricsTuned={}).dump()),),
        ),
        Phase.COMPLETE,
        Reason.COMPLETE,
        "support-bot version 1 is published",
        ["create ModelVersion"],
        "Accepted Complete Published",
    ),
    Case(
        "a metric that the base model has not is told as such",
        begun(
            child=make_child(status=job_ended("Complete")),
            pods=(ended_pod(0, termination(metricsBase={}, metricsTuned={"exact_match": 0.5}).dump()),),
        ),
        Phase.COMPLETE,
        Reason.COMPLETE,
        "exact_match ? → 0.5",
        ["create ModelVersion"],
        "Accepted Complete Published",
    ),
    Case(
        "a ModelVersion that we made already stays as it is",
        begun(
            child=make_child(status=job_ended("Complete")),
            pods=(ended_pod(0, termination().dump()),),
            versions={"support-bot-v1": {"spec": {"job": {"uid": JOB_UID}}}},
        ),
        Phase.COMPLETE,
        Reason.COMPLETE,
        "support-bot version 1 is published",
        true="Accepted Complete Published",
    ),
    Case(
        "a done trainer whose last word is gone",
        begun(child=make_child(status=job_ended("Complete")), pods=(ended_pod(0, "garbage"),)),
        Phase.COMPLETE,
        Reason.FINISHED,
        "its last word is gone",
        true="Accepted Complete",
    ),
    Case(
        "a deletion ends the pods first",
        begun(
            job=make_job(deletionTimestamp="2026-01-01T00:10:00Z", **HELD),
            pods=(running_pod(),),
        ),
        Phase.DELETING,
        Reason.DELETING,
        f"waiting for the end of pod {JOB}-0-abcde",
        ["delete Job foreground"],
        "Reconciling",
    ),
    Case(
        "a deletion waits for a Job that is going",
        begun(
            job=make_job(deletionTimestamp="2026-01-01T00:10:00Z", **HELD),
            child=make_child(deletionTimestamp="2026-01-01T00:10:00Z"),
        ),
        Phase.DELETING,
        Reason.DELETING,
        "waiting for the end of its Job",
        true="Reconciling",
    ),
    Case(
        "a deletion ends the work claim after the pods",
        fresh(
            job=make_job(deletionTimestamp="2026-01-01T00:10:00Z", **HELD),
            children={"PersistentVolumeClaim": make_child("PersistentVolumeClaim", f"{JOB}-work")},
        ),
        Phase.DELETING,
        Reason.DELETING,
        f"waiting for claim {JOB}-work to go",
        ["delete PersistentVolumeClaim"],
        "Reconciling",
    ),
    Case(
        "a deletion waits for a claim that is going",
        fresh(
            job=make_job(deletionTimestamp="2026-01-01T00:10:00Z", **HELD),
            children={
                "PersistentVolumeClaim": make_child("PersistentVolumeClaim", f"{JOB}-work", deletionTimestamp="x")
            },
        ),
        Phase.DELETING,
        Reason.DELETING,
        f"waiting for claim {JOB}-work to go",
        true="Reconciling",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_state_is_told_and_acted_on(case: Case) -> None:
    decision = look(case.observed)
    status = decision.status
    assert status is not None
    assert (status.phase, case.words in (status.message or "")) == (case.phase, True), status.message
    assert done(decision) == case.actions
    assert sorted(kind for kind, value in conditions(status).items() if value == "True") == sorted(case.true.split())
    assert decision.events[-1].reason == case.reason
    assert decision.events[-1].type == ("Warning" if case.warning else "Normal")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_second_look_at_the_same_things_says_nothing_new(case: Case) -> None:
    """What the first look said becomes the status; the second must not change it, nor tell it again."""
    first = look(case.observed)
    assert first.status is not None
    previous = first.status.model_dump(by_alias=True, exclude_none=True)
    previous["progress"] = case.observed.job.get("status", {}).get("progress", {})
    second = look(
        dataclasses.replace(case.observed, job={**case.observed.job, "status": previous}), "2026-01-01T00:11:00Z"
    )
    assert second.status is not None
    assert second.status.conditions == first.status.conditions
    assert second.status.phase == first.status.phase
    own = {Reason.RESUMED, Reason.PUBLISHED}  # told once more until the action that goes with it is seen
    if first.status.start_time is None or case.reason != Reason.CREATED:
        assert [event for event in second.events if event.reason not in own] == []


def test_the_time_of_a_condition_is_that_of_its_change() -> None:
    first = look(begun(pods=(running_pod(),)), "2026-01-01T00:01:00Z")
    assert first.status is not None
    before = first.status.model_dump(by_alias=True, exclude_none=True)
    after = look(
        begun(
            job=make_job(status=before, **HELD),
            child=make_child(status=job_ended("Complete")),
            pods=(ended_pod(0, termination().dump()),),
        ),
        "2026-01-01T00:10:00Z",
    ).status
    assert after is not None
    times = {condition.type: condition.last_transition_time for condition in after.conditions}
    assert times[Condition.ACCEPTED] == "2026-01-01T00:01:00Z"
    assert times[Condition.RUNNING] == times[Condition.COMPLETE] == "2026-01-01T00:10:00Z"
    assert conditions(after)[Condition.RUNNING] == "False"
    assert conditions(after)[Condition.RECONCILING] == "False"


def test_a_complete_job_has_all_that_a_user_asks_for() -> None:
    status = look(
        begun(child=make_child(status=job_ended("Complete")), pods=(ended_pod(0, termination().dump()),))
    ).status
    assert status is not None
    written = status_document(status)
    assert written["modelVersion"] == {
        "name": "support-bot-v1",
        "version": 1,
        "path": "team-a/support-bot/1",
        "claim": "strop-models",
    }
    assert written["metrics"] == {"exact_match": "0 → 0.6", "eval_loss": "2.5 → 0.8"}
    assert written["stageSeconds"] == {"check": 0.5, "train": 60.0}
    assert written["startTime"] == "2026-01-01T00:00:10Z"
    assert written["completionTime"] == "2026-01-01T00:10:00Z"
    assert written["progress"] == {"display": "100%"}
    assert written["planDigest"] == make_plan().digest
    assert written["pool"] == "cpu"
    assert written["attempts"] == 1


def test_a_version_of_another_registry_does_not_take_the_name() -> None:
    decision = look(
        begun(
            child=make_child(status=job_ended("Complete")),
            pods=(ended_pod(0, termination().dump()),),
            versions={"support-bot-v1": {"spec": {"job": {"uid": "other"}}}},
        )
    )
    (action,) = decision.actions
    assert isinstance(action, Create)
    assert action.manifest["metadata"]["name"] == "support-bot-v1-11111111"


def test_an_earlier_plan_that_cannot_be_read_does_not_hide_the_end() -> None:
    observed = begun(
        child=make_child(status=job_ended("Complete")),
        pods=(ended_pod(0, termination().dump()),),
        plan=None,
        pool=None,
        refusal=PlanError(Reason.POOL_NOT_FOUND, "gone"),
    )
    status = look(observed).status
    assert status is not None
    assert status.phase == Phase.COMPLETE
    assert reason_of(status, Condition.ACCEPTED) == Reason.PLANNED


def test_a_job_that_runs_survives_the_loss_of_its_pool_and_its_spec() -> None:
    decision = look(
        begun(
            pods=(running_pod(),),
            spec=None,
            plan=None,
            pool=None,
            refusal=PlanError(Reason.INVALID, "a field of a later version"),
        )
    )
    assert decision.status is not None
    assert decision.status.phase == Phase.RUNNING
    assert done(decision) == []


@pytest.mark.parametrize("condition", [Condition.COMPLETE, Condition.FAILED])
def test_what_has_ended_is_never_run_again(condition: str) -> None:
    before = ended_status(condition)
    decision = look(fresh(job=make_job(status=before, **HELD)))
    assert decision.actions == ()
    assert decision.events == ()
    assert decision.status is not None
    assert decision.status.phase == condition
    assert decision.requeue_after is None


def test_a_changed_ttl_of_a_finished_job_is_observed() -> None:
    job = make_job(status=ended_status(Condition.COMPLETE), generation=2, **HELD)
    status = look(fresh(job=job)).status
    assert status is not None
    assert status.observed_generation == 2


def test_a_complete_job_gives_its_work_claim_back_and_a_failed_one_keeps_it() -> None:
    for condition, actions in ((Condition.COMPLETE, ["delete PersistentVolumeClaim"]), (Condition.FAILED, [])):
        assert done(look(begun(job=make_job(status=ended_status(condition), **HELD)))) == actions
    going = make_child("PersistentVolumeClaim", f"{JOB}-work", deletionTimestamp="x")
    observed = begun(job=make_job(status=ended_status(Condition.COMPLETE), **HELD))
    observed = dataclasses.replace(observed, children={**observed.children, "PersistentVolumeClaim": going})
    assert done(look(observed)) == []


@pytest.mark.parametrize(
    ("now", "actions", "again"),
    [
        ("2026-01-01T00:10:00Z", [], 60.0),
        ("2026-01-01T00:10:59Z", [], 1.0),
        ("2026-01-01T00:11:00Z", ["delete FineTuneJob"], None),
        ("2026-01-02T00:00:00Z", ["delete FineTuneJob"], None),
    ],
)
def test_a_finished_job_is_deleted_when_its_time_has_come(now: str, actions: list[str], again: float | None) -> None:
    job = make_job({"ttlSecondsAfterFinished": 60}, status=ended_status(Condition.FAILED), **HELD)
    decision = look(fresh(job=job), now)
    assert done(decision) == actions
    assert decision.requeue_after == again


def test_a_deletion_lets_the_job_go_when_all_is_gone() -> None:
    decision = look(fresh(job=make_job(deletionTimestamp="2026-01-01T00:10:00Z", **HELD)))
    assert done(decision) == ["release"]
    assert decision.status is None


def test_a_deletion_that_others_hold_up_is_none_of_ours() -> None:
    decision = look(fresh(job=make_job(deletionTimestamp="2026-01-01T00:10:00Z", finalizers=["other/finalizer"])))
    assert decision == Decision()


def test_a_deleted_complete_job_stays_complete_to_the_last() -> None:
    job = make_job(status=ended_status(Condition.COMPLETE), deletionTimestamp="2026-01-01T00:10:00Z", **HELD)
    status = look(begun(job=job)).status
    assert conditions(status)[Condition.COMPLETE] == "True"


def test_a_pod_that_blocks_a_deletion_is_named_with_its_node() -> None:
    pod = running_pod()
    pod["spec"]["nodeName"] = "node-1"
    status = look(begun(job=make_job(deletionTimestamp="2026-01-01T00:10:00Z", **HELD), pods=(pod,))).status
    assert status is not None
    assert status.message == f"waiting for the end of pod {JOB}-0-abcde on node-1"


def test_pods_of_others_that_carry_our_label_do_not_count() -> None:
    stranger = running_pod()
    stranger["metadata"]["ownerReferences"] = [owner_reference("Job", "other", "x")]
    status = look(begun(pods=(stranger,))).status
    assert status is not None
    assert status.phase == Phase.STARTING


def test_someone_elses_object_is_not_written_over_while_we_run() -> None:
    observed = begun(pods=(running_pod(),))
    children = {**observed.children, "Service": make_child("Service", f"{JOB}-trainer", uid="other")}
    assert done(look(dataclasses.replace(observed, children=children))) == []


def test_attempts_never_count_down() -> None:
    observed = begun(pods=(running_pod(),), job=make_job(status={"attempts": 4}, **HELD))
    status = look(observed).status
    assert status is not None
    assert status.attempts == 4
    assert "(attempt 4)" in (status.message or "")


def test_a_long_message_is_cut_to_what_the_schema_takes() -> None:
    status = look(begun(pods=(unschedulable("x" * 5000),))).status
    assert status is not None
    assert len(status.message or "") == 2048


@pytest.mark.parametrize(
    ("observed", "words"),
    [
        (fresh(config_maps={}), "waits for ConfigMap rows (key train.jsonl)"),
        (fresh(claims={"strop-models": BOUND}), "waits for claim models (a source of the job)"),
        (
            fresh(claims={"models": BOUND}, config_maps={}),
            "waits for claim strop-models (the registry, see spec.output.claim), ConfigMap rows (key train.jsonl)",
        ),
    ],
)
def test_what_the_same_file_may_bring_is_waited_for_before_a_job_is_invalid(observed: Observed, words: str) -> None:
    decision = look(observed, "2026-01-01T00:00:29Z")
    assert decision.status is not None
    assert (decision.status.phase, decision.status.message) == (Phase.PENDING, words)
    assert conditions(decision.status) == {"Accepted": "Unknown", "Reconciling": "True", "Running": "False"}
    assert reason_of(decision.status, Condition.ACCEPTED) == Reason.WAITING_FOR_INPUT
    assert [(event.type, event.note) for event in decision.events] == [("Normal", words)]
    assert (decision.actions, decision.requeue_after) == ((), 1.0)

    later = dataclasses.replace(observed, job=make_job(status=status_document(decision.status)))
    assert look(later, "2026-01-01T00:00:29Z").events == ()
    late = look(later, "2026-01-01T00:00:30Z")
    assert late.status is not None
    assert late.status.phase == Phase.INVALID
    assert conditions(late.status) == {
        "Accepted": "False",
        "Reconciling": "False",
        "Running": "False",
        "Stalled": "True",
    }

    come = look(dataclasses.replace(fresh(), job=later.job), "2026-01-01T00:00:29Z")
    assert conditions(come.status) == {"Accepted": "True", "Reconciling": "True", "Running": "False"}


@pytest.mark.parametrize(
    "observed",
    [
        fresh(claims={}, config_maps={"rows": frozenset({"b"})}),
        fresh(config_maps={}, claims={"models": {"metadata": {"deletionTimestamp": "x"}}, "strop-models": BOUND}),
    ],
)
def test_what_waiting_does_not_mend_is_told_at_once(observed: Observed) -> None:
    decision = look(observed, "2026-01-01T00:00:01Z")
    assert decision.status is not None
    assert decision.status.phase == Phase.INVALID
    assert "no key train.jsonl" in (decision.status.message or "") or "being deleted" in (decision.status.message or "")


@pytest.mark.parametrize(
    ("observed", "seconds"),
    [
        (fresh(claims={}), 10.0),
        (fresh(plan=None, refusal=PlanError(Reason.POOL_NOT_FOUND, "x")), None),
        (begun(), 5.0),
        (begun(pods=(running_pod(),)), None),
        (begun(pods=(make_pod(),)), None),
        (begun(job=PAUSED_JOB, pods=(running_pod(),)), 1.0),
        (begun(job=PAUSED_JOB, child=make_child(spec={"suspend": True}, **MARKED)), None),
    ],
)
def test_another_look_is_taken_only_where_no_watch_tells(observed: Observed, seconds: float | None) -> None:
    assert look(observed).requeue_after == seconds


@pytest.mark.parametrize("code", [code for code in ExitCode if code not in (ExitCode.OK, ExitCode.INTERNAL)])
def test_every_exit_code_has_its_reason(code: ExitCode) -> None:
    decision = look(begun(child=make_child(status=job_ended("Failed", "PodFailurePolicy")), pods=(ended_pod(code),)))
    assert reason_of(decision.status, Condition.FAILED) != Reason.TRAINER_FAILED


def test_an_ended_pod_without_an_exit_code_is_still_an_end() -> None:
    pod = ended_pod(1)
    del pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
    status = look(begun(child=make_child(status=job_ended("Failed")), pods=(pod,))).status
    assert reason_of(status, Condition.FAILED) == Reason.TRAINER_FAILED
