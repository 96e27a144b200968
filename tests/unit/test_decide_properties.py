"""Whatever is seen, in whatever combination: a decision is made, it is lawful, and it settles."""

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from strop.api import names
from strop.api.finetunejob import FineTuneJobStatus
from strop.api.names import Condition
from strop.decide.decide import decide
from strop.decide.decision import Create, Decision, Delete, SetFinalizer
from strop.decide.observed import Observed
from strop.decide.status import status_document
from strop.planning.inputs import PlanError
from tests.support.decide.queueing import WORKLOAD
from tests.support.decide.seen import BOUND, POOL, At, applied_children, ended_status, fresh
from tests.support.jobs import (
    INSTALLATION,
    JOB,
    JOB_UID,
    ended_pod,
    job_ended,
    make_child,
    make_job,
    make_plan,
    make_pod,
    running_pod,
    termination,
)

PODS = st.lists(
    st.sampled_from(
        [
            make_pod(),
            running_pod(),
            make_pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]),
            make_pod(state={"waiting": {"reason": "ErrImagePull"}}),
            make_pod(phase="Unknown"),
            make_pod(phase="Failed"),
            ended_pod(0, termination().dump()),
            ended_pod(0),
            ended_pod(65, "not JSON"),
            ended_pod(137, reason="OOMKilled"),
        ]
    ),
    max_size=3,
)
JOBS = st.builds(
    lambda suspend, queue, status, deleting: make_child(
        spec={"suspend": suspend},
        status=status,
        **({"labels": {names.LABEL_QUEUE: "q"}} if queue else {}),
        **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleting else {}),
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from(
        [
            {},
            {"active": 1},
            job_ended("Complete"),
            job_ended("Failed", "PodFailurePolicy"),
            job_ended("Failed", "DeadlineExceeded"),
            job_ended("Failed", "BackoffLimitExceeded"),
            job_ended("SuccessCriteriaMet"),
        ]
    ),
    st.booleans(),
)
CLAIMS = st.sampled_from([make_child("PersistentVolumeClaim", f"{JOB}-work", uid=uid) for uid in (JOB_UID, "other")])
STATUSES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "progress": {"stage": "prove"}},
        ended_status(Condition.COMPLETE),
        ended_status(Condition.FAILED),
    ]
)


@st.composite
def observations(draw: st.DrawFn) -> Observed:
    metadata: dict[str, Any] = {}
    if draw(st.booleans()):
        metadata["finalizers"] = [names.FINALIZER]
    if draw(st.booleans()):
        metadata["deletionTimestamp"] = "2026-01-01T00:09:00Z"
    spec: dict[str, Any] = {"suspend": draw(st.booleans())}
    if draw(st.booleans()):
        spec["ttlSecondsAfterFinished"] = draw(st.sampled_from([0, 10**6]))
    job = make_job(spec, draw(STATUSES), **metadata)
    children = dict(applied_children()) if draw(st.booleans()) else {}
    if draw(st.booleans()):
        children["Job"] = draw(JOBS)
    if draw(st.booleans()):
        children["PersistentVolumeClaim"] = draw(CLAIMS)
    refused = draw(st.booleans())
    return dataclasses.replace(
        fresh(),
        job=job,
        plan=None if refused else make_plan(),
        pool=None if refused else POOL,
        refusal=PlanError("NoPoolFits", "too large") if refused else None,
        children=children,
        pods=tuple(draw(PODS)),
        claims=draw(st.sampled_from([{}, {"models": BOUND, "strop-models": BOUND}])),
        kueue=draw(st.booleans()),
        workload=draw(st.sampled_from([None, WORKLOAD])),
        refused_pods=draw(st.sampled_from([(), ("exceeded quota",)])),
    )


def look(observed: Observed) -> Decision:
    return decide(observed, At(), INSTALLATION)


@given(observations())
def test_a_decision_is_always_made_and_its_status_is_one_that_the_schema_takes(observed: Observed) -> None:
    decision = look(observed)
    if decision.status is not None:
        document = status_document(decision.status)
        assert FineTuneJobStatus.model_validate(document)
        kinds = [condition.type for condition in decision.status.conditions]
        assert len(kinds) == len(set(kinds)) <= 16


@given(observations())
def test_no_job_is_complete_and_failed_nor_settled_and_in_progress(observed: Observed) -> None:
    status = look(observed).status
    if status is None:
        return
    true = {condition.type for condition in status.conditions if condition.status == "True"}
    assert not {Condition.COMPLETE, Condition.FAILED} <= true
    assert not {Condition.RECONCILING, Condition.STALLED} <= true


@given(observations())
def test_nothing_is_made_for_a_job_that_is_deleted_or_has_ended(observed: Observed) -> None:
    decision = look(observed)
    status = observed.job.get("status") or {}
    ended = any(each["type"] in ("Complete", "Failed") for each in status.get("conditions", []))
    if "deletionTimestamp" in observed.job["metadata"] or ended:
        assert not [action for action in decision.actions if isinstance(action, Create)]


@given(observations())
def test_only_what_is_ours_is_deleted(observed: Observed) -> None:
    uid = observed.job["metadata"]["uid"]
    for action in look(observed).actions:
        if isinstance(action, Delete) and action.target["kind"] != "FineTuneJob":
            assert [owner["uid"] for owner in action.target["metadata"]["ownerReferences"]] == [uid]


@given(observations())
def test_the_finalizer_comes_before_everything_else_that_is_made(observed: Observed) -> None:
    decision = look(observed)
    held = names.FINALIZER in observed.job["metadata"].get("finalizers", [])
    if any(isinstance(action, Create) and action.manifest["kind"] == "Job" for action in decision.actions) and not held:
        assert decision.actions[0] == SetFinalizer(present=True)


@given(observations())
def test_the_second_look_at_the_same_things_writes_the_same_status(observed: Observed) -> None:
    first = look(observed)
    if first.status is None:
        return
    progress = (observed.job.get("status") or {}).get("progress")
    kept = {"progress": progress} if progress else {}

    def again(status: FineTuneJobStatus) -> FineTuneJobStatus:
        job = {**observed.job, "status": {**status_document(status), **kept}}
        found = look(dataclasses.replace(observed, job=job)).status
        assert found is not None
        return found

    second = again(first.status)
    assert status_document(again(second)) == status_document(second)
