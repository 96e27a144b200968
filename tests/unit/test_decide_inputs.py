"""What a job needs and is not there yet: waited for, then told."""

import dataclasses

import pytest

from strop.api.names import Condition, Phase, Reason
from strop.decide.observed import Observed
from strop.decide.status import status_document
from tests.support.decide.seen import BOUND, conditions, fresh, look, reason_of
from tests.support.jobs import make_job


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
