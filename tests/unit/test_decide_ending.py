"""A job that has ended: what its status holds, and what becomes of it."""

import dataclasses
import json
from typing import Any

import pytest

from strop.api.names import Condition, Phase, Reason
from strop.decide.decision import Create
from strop.decide.status import status_document
from strop.planning.inputs import PlanError
from strop_trainer.exit_codes import ExitCode
from tests.support.decide.seen import HELD, begun, conditions, done, ended_status, fresh, look, reason_of
from tests.support.jobs import JOB, ended_pod, job_ended, make_child, make_job, make_plan, running_pod, termination


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


@pytest.mark.parametrize("code", [code for code in ExitCode if code not in (ExitCode.OK, ExitCode.INTERNAL)])
def test_every_exit_code_has_its_reason(code: ExitCode) -> None:
    decision = look(begun(child=make_child(status=job_ended("Failed", "PodFailurePolicy")), pods=(ended_pod(code),)))
    assert reason_of(decision.status, Condition.FAILED) != Reason.TRAINER_FAILED


def test_an_ended_pod_without_an_exit_code_is_still_an_end() -> None:
    pod = ended_pod(1)
    del pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
    status = look(begun(child=make_child(status=job_ended("Failed")), pods=(pod,))).status
    assert reason_of(status, Condition.FAILED) == Reason.TRAINER_FAILED


def test_a_last_word_of_another_image_ends_the_job_whatever_is_in_it() -> None:
    word = termination(metricsBase={}, metricsTuned={"eval/loss": 0.5, "rouge_l": 0.25})
    word = word.model_copy(update={"stage_seconds": {"Train": 3.0, "train": 60.0, "export": -1.0}})
    decision = look(begun(child=make_child(status=job_ended("Complete")), pods=(ended_pod(0, word.dump()),)))
    assert decision.status is not None
    assert decision.status.phase == Phase.COMPLETE
    assert decision.status.stage_seconds == {"train": 60.0}
    assert decision.status.metrics == {"rouge_l": "? → 0.25"}
    assert "eval/loss ? → 0.5" in (decision.status.message or "")


@pytest.mark.parametrize(
    ("published", "told"),
    [
        ({"version": 0}, "spec.version: found 0"),
        ({"path": "Team A/1"}, "spec.registry.path: found 'Team A/1'"),
        ({"manifestSha256": "none"}, "spec.registry.manifestSha256: found 'none'"),
    ],
)
def test_a_version_that_the_api_server_would_refuse_for_ever_ends_the_job_without_a_record(
    published: dict[str, Any], told: str
) -> None:
    said = json.dumps(json.loads(termination().dump()) | {"published": _published() | published})
    decision = look(begun(child=make_child(status=job_ended("Complete")), pods=(ended_pod(0, said),)))
    assert decision.actions == ()
    assert decision.status is not None
    assert (decision.status.phase, decision.status.model_version) == (Phase.COMPLETE, None)
    assert told in (decision.status.message or "")
    assert conditions(decision.status)[Condition.PUBLISHED] == "False"


def _published() -> dict[str, Any]:
    published: dict[str, Any] = json.loads(termination().dump())["published"]
    return published
