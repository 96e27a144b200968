"""Jobs that are paused, evicted, deleted or orphaned of their operator while they train."""

import pytest

from tests.support.helm import NAMESPACE
from tests.support.team import TRAIN_SECONDS, Document, Team
from tests.support.waiting import wait_until

pytestmark = pytest.mark.cluster

RESUMES = "from the checkpoint of an earlier attempt"
# Ended by the tests, never by itself: some hundred steps are a matter of seconds.
LONG = {"maxSteps": 100_000, "maxLength": 128, "precision": "fp32"}


def trains(team: Team, name: str, **spec: object) -> Document:
    """Applies a job, waits until its first steps are done, and returns its pod."""
    team.apply(name, training=LONG, checkpoint={"everySteps": 100}, **spec)
    pod = team.first_pod(name)
    wait_until(
        lambda: step_of(team, name) >= 5,
        f"{name} trains: {team.status(name)}",
        TRAIN_SECONDS,
    )
    return pod


def test_a_pause_keeps_the_steps_that_were_done(team: Team) -> None:
    trains(team, "paused")
    team.patch("paused", suspend=True)
    wait_until(lambda: not team.pods("paused"), "the pod has stopped", 75)
    assert team.phase("paused") == "Suspended"
    done = step_of(team, "paused")
    team.patch("paused", suspend=False)
    pod = team.first_pod("paused")
    wait_until(lambda: RESUMES in log_of(team, pod), "it goes on from a checkpoint", TRAIN_SECONDS)
    wait_until(lambda: step_of(team, "paused") > done, "it gets further", TRAIN_SECONDS)
    team.delete("paused")
    wait_until(lambda: not team.job("paused"), "the job is gone", 75)


def test_a_deleted_pod_is_replaced_and_costs_no_attempt(team: Team) -> None:
    pod = trains(team, "evicted", backoffLimit=0)
    team.core.create_namespaced_pod_eviction(
        pod["metadata"]["name"],
        team.namespace,
        {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["metadata"]["name"]}},
    )
    another = team.next_pod("evicted", pod)
    wait_until(lambda: RESUMES in log_of(team, another), "it goes on from a checkpoint", TRAIN_SECONDS)
    assert team.phase("evicted") != "Failed"
    team.delete("evicted")
    wait_until(lambda: not team.job("evicted"), "the job is gone", 75)


def test_a_deletion_while_it_trains_leaves_nothing(team: Team) -> None:
    trains(team, "deleted")
    team.delete("deleted")
    wait_until(lambda: not team.job("deleted"), "the job is gone", 75)
    assert team.names("pod", "", "deleted") == []
    assert team.names("job", "batch", "deleted") == []
    wait_until(lambda: team.names("pvc", "", "deleted") == [], "its work claim is gone")
    assert "/deleted/" not in team.on_shelf("find", "/strop-models"), "neither a version nor a part of one"


def test_training_goes_on_without_an_operator(team: Team) -> None:
    team.apply("orphan")
    pod = team.first_pod("orphan")
    team.kubectl("scale", "deployment", "strop", "-n", NAMESPACE, "--replicas=0", check=True)
    try:
        wait_until(
            lambda: team.core.read_namespaced_pod(pod["metadata"]["name"], team.namespace).status.phase == "Succeeded",
            "the trainer ends well by itself",
            TRAIN_SECONDS,
        )
    finally:
        team.kubectl("scale", "deployment", "strop", "-n", NAMESPACE, "--replicas=1", check=True)
    status = team.reaches("orphan", "Complete", 60)
    assert status["modelVersion"]["name"] == "orphan-v1"
    assert [each["metadata"]["uid"] for each in team.pods("orphan")] == [pod["metadata"]["uid"]]


def log_of(team: Team, pod: Document) -> str:
    return team.kubectl("logs", "-n", team.namespace, pod["metadata"]["name"]).stdout


def step_of(team: Team, name: str) -> int:
    """The step that was last reported; 0 while an attempt has not come to training yet."""
    progress = team.status(name).get("progress") or {}
    return int(progress.get("step") or 0)
