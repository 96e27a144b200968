"""The operator's promises to a job that is being deleted."""

from strop.api.names import Phase, Reason
from tests.support.decide.case import Case
from tests.support.decide.seen import HELD, begun, fresh
from tests.support.jobs import JOB, make_child, make_job, running_pod

DELETION = [
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
