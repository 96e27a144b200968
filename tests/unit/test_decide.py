"""The operator's promises, one row each: what is seen, and what is said and done about it."""

import dataclasses

import pytest

from strop.api.names import Reason
from strop.decide.observed import Observed
from strop.planning.inputs import PlanError
from tests.support.decide.case import Case
from tests.support.decide.deletion import DELETION
from tests.support.decide.ending import ENDING
from tests.support.decide.queueing import MARKED, PAUSED_JOB, QUEUEING
from tests.support.decide.running import RUNNING
from tests.support.decide.seen import begun, conditions, done, fresh, look
from tests.support.decide.starting import STARTING
from tests.support.jobs import make_child, make_pod, running_pod

CASES = [*STARTING, *QUEUEING, *RUNNING, *ENDING, *DELETION]


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
