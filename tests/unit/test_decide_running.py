"""A job that runs: what does not stop it, and what is told of it."""

import dataclasses

import pytest

from strop.api.names import Phase, Reason
from strop.planning.inputs import PlanError
from tests.support.decide.seen import HELD, begun, done, look, unschedulable
from tests.support.jobs import JOB, make_child, make_job, owner_reference, running_pod


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


@pytest.mark.parametrize(("pods", "attempt"), [(2, 1), (3, 2), (4, 2), (5, 3)])
def test_an_attempt_has_a_pod_on_each_of_the_nodes(pods: int, attempt: int) -> None:
    observed = begun(pods=(running_pod(),), job=make_job(status={"attempts": pods}, **HELD))
    plan = observed.plan
    assert plan is not None
    placement = plan.placement.model_copy(update={"nodes": 2})
    status = look(dataclasses.replace(observed, plan=plan.model_copy(update={"placement": placement}))).status
    assert status is not None
    assert status.attempts == pods
    told = f" (attempt {attempt})" if attempt > 1 else ""
    assert (status.message or "").startswith(f"the trainer runs{told}")


def test_a_long_message_is_cut_to_what_the_schema_takes() -> None:
    status = look(begun(pods=(unschedulable("x" * 5000),))).status
    assert status is not None
    assert len(status.message or "") == 2048
