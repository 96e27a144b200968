"""A job that is being deleted: what is waited for, and what is left to others."""

from strop.api.names import Condition
from strop.decide.decision import Decision
from tests.support.decide.seen import HELD, begun, conditions, done, ended_status, fresh, look
from tests.support.jobs import JOB, make_job, running_pod


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
