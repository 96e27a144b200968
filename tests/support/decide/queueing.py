"""The operator's promises to a job that waits in a queue, or is paused."""

from strop.api import names
from strop.api.names import Phase, Reason
from tests.support.decide.case import ACCEPTED, Case
from tests.support.decide.seen import HELD, begun
from tests.support.jobs import NAMESPACE, make_child, make_job, make_plan, running_pod

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

QUEUEING = [
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
]
