"""The operator's promises to a job that is new, or whose children are not as they should be."""

import dataclasses

from strop.api.names import Phase, Reason
from strop.planning.inputs import PlanError
from tests.support.decide.case import ACCEPTED, Case
from tests.support.decide.seen import BOUND, HELD, applied_children, begun, fresh
from tests.support.jobs import JOB, make_child, make_job, running_pod

STARTING = [
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
        "a Job that was deleted is made anew only when its pods are gone: two must never write the same checkpoints",
        dataclasses.replace(
            begun(
                job=make_job(status={"phase": "Running", "startTime": "2026-01-01T00:00:10Z"}, **HELD),
                pods=(running_pod(),),
            ),
            children=applied_children(),
        ),
        Phase.STARTING,
        Reason.RESTARTED,
        f"the Job is gone, and is made anew once pod {JOB}-0-abcde has ended",
        true=ACCEPTED,
        warning=True,
    ),
]
