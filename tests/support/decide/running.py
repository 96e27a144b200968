"""The operator's promises to a job whose pods wait, start, run and start again."""

import dataclasses
from typing import Any

from strop.api.names import Phase, Reason
from tests.support.decide.case import ACCEPTED, Case
from tests.support.decide.ending import last_word
from tests.support.decide.seen import BOUND, HELD, begun, unschedulable
from tests.support.jobs import JOB, ended_pod, job_ended, make_child, make_job, make_pod, running_pod, termination


def container_waits(reason: str, message: str = "") -> dict[str, Any]:
    return make_pod(state={"waiting": {"reason": reason, "message": message}})


RUNNING = [
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
        "what keeps a container from being created is told",
        begun(pods=(container_waits("ContainerCreating"),), warning='MountVolume.SetUp failed for volume "rows"'),
        Phase.STARTING,
        Reason.STARTING,
        'is being started; its node warns: MountVolume.SetUp failed for volume "rows"',
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
        "a stage that an earlier attempt reported is not that of this one",
        begun(
            pods=(running_pod(),),
            job=make_job(status={"progress": {"stage": "prove", "updatedAt": "2026-01-01T00:00:09Z"}}, **HELD),
        ),
        Phase.RUNNING,
        Reason.TRAINING,
        "the trainer runs",
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
]
