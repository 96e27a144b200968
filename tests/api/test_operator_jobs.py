"""The operator process against a real API server and controller-manager; a hand plays the kubelet."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.support.apiserver import ApiServer
from tests.support.jobs import termination
from tests.support.operator import OperatorProcess
from tests.support.waiting import wait_until
from tests.support.world import World

pytestmark = pytest.mark.api

POOL = {"cpuPerNode": "8", "memoryPerNode": "32Gi"}


@pytest.fixture(scope="module")
def world(installed: ApiServer, operator: OperatorProcess) -> Iterator[World]:
    world = World(installed, "team-a")
    yield world
    world.close()


def test_a_job_becomes_a_model_version(world: World) -> None:
    begin = time.monotonic()
    world.apply("tune")
    pod = world.first_pod("tune")
    assert time.monotonic() - begin < 5
    status = world.reaches("tune", "Starting")
    assert status["pool"] == "cpu"
    assert status["planDigest"].startswith("sha256:")

    world.play_kubelet(pod, "Running")
    world.reaches("tune", "Running")
    assert world.condition("tune", "Running") == ("True", "Training")

    message = termination(model="tune", planDigest=status["planDigest"], path="team-a/tune/1").dump()
    world.play_end(pod, 0, message)
    status = world.reaches("tune", "Complete")
    assert status["modelVersion"]["name"] == "tune-v1"
    assert status["message"].startswith("tune version 1 is published")
    version = world.kubectl.get("modelversion", "tune-v1", "-n", world.namespace)
    assert version["spec"]["registry"]["path"] == "team-a/tune/1"
    world.kubectl.wait("condition=Complete", "ftj/tune", "-n", world.namespace, timeout=5)
    events = world.kubectl("events", "--for", "finetunejob/tune", "-n", world.namespace, check=True).stdout
    assert "Created" in events
    assert "Published" in events
    wait_until(lambda: "deletionTimestamp" in claim(world, "tune-work"), "the work claim is given back")


def claim(world: World, name: str) -> dict[str, object]:
    items = world.kubectl.get("pvc", "-n", world.namespace)["items"]
    found = [item["metadata"] for item in items if item["metadata"]["name"] == name]
    return found[0] if found else {"deletionTimestamp": "gone"}


def test_an_identical_job_changes_nothing(world: World) -> None:
    world.apply("twice")
    pod = world.first_pod("twice")
    before = world.kubectl.get("job", "twice", "-n", world.namespace)["metadata"]["uid"]
    wait_until(lambda: world.phase("twice") == "Starting", "it starts")
    settled = world.job("twice")["metadata"]["resourceVersion"]
    world.apply("twice")
    time.sleep(2)
    assert world.job("twice")["metadata"]["resourceVersion"] == settled
    assert world.kubectl.get("job", "twice", "-n", world.namespace)["metadata"]["uid"] == before
    assert [each["metadata"]["uid"] for each in world.pods("twice")] == [pod["metadata"]["uid"]]


def test_bad_data_fails_at_once_in_the_trainers_words(world: World) -> None:
    world.apply("bad-data")
    pod = world.first_pod("bad-data")
    word = {"stage": "prepare", "reason": "BadData", "message": "rows/train.jsonl line 7: no assistant turn"}
    world.play_end(pod, 65, json.dumps(word))
    status = world.reaches("bad-data", "Failed")
    assert status["message"] == "prepare: rows/train.jsonl line 7: no assistant turn"
    assert world.condition("bad-data", "Failed") == ("True", "BadData")
    assert world.condition("bad-data", "Stalled") == ("True", "BadData")
    assert len(world.pods("bad-data")) == 1


def test_what_may_pass_is_tried_again_and_a_checkpoint_costs_no_attempt(world: World) -> None:
    world.apply("retried", backoffLimit=1)
    for code, reason in ((75, "Preempted"), (75, "Preempted"), (69, "SourceUnavailable")):
        pod = world.first_pod("retried")
        world.play_end(pod, code, json.dumps({"stage": "fetch", "reason": reason, "message": f"exit {code}"}))
        world.next_pod("retried", pod)
    pod = world.first_pod("retried")
    world.play_kubelet(pod, "Running")
    status = world.reaches("retried", "Running")
    assert status["attempts"] == 4
    assert "the attempt before ended: fetch: exit 69" in status["message"]
    world.play_end(pod, 137, reason="OOMKilled")
    status = world.reaches("retried", "Failed")
    assert world.condition("retried", "Failed") == ("True", "OutOfMemory")
    assert "at its limit of" in status["message"]


def test_a_claim_that_comes_after_the_job_is_waited_for(world: World) -> None:
    world.apply("no-claim", model={"source": "pvc://later/model", "parameters": "135M"})
    status = world.reaches("no-claim", "Pending")
    assert status["message"] == "waits for claim later (a source of the job)"
    assert world.condition("no-claim", "Accepted") == ("Unknown", "WaitingForInput")
    assert world.names("job", "batch", "no-claim") == []
    assert "finalizers" not in world.job("no-claim")["metadata"]
    world.claim("later")
    world.first_pod("no-claim")
    wait_until(lambda: world.condition("no-claim", "Accepted") == ("True", "Planned"), "the job is accepted")
    assert world.condition("no-claim", "Stalled") == ("", "")


def test_a_missing_key_is_told_with_those_that_are_there(world: World) -> None:
    world.apply("no-key", dataset={"train": [{"source": "configmap://rows/other.jsonl"}]})
    assert "no key other.jsonl; found: train.jsonl" in world.reaches("no-key", "Invalid")["message"]


def test_a_pool_that_is_made_later_is_used(world: World, installed: ApiServer) -> None:
    world.apply("no-pool", compute={"pool": "later"})
    world.reaches("no-pool", "Invalid")
    assert world.condition("no-pool", "Accepted") == ("False", "PoolNotFound")
    pool = {"apiVersion": "strop.dev/v1alpha1", "kind": "ComputePool", "metadata": {"name": "later"}}
    installed.kubectl.apply({**pool, "spec": {**POOL, "cost": 100}})
    world.first_pod("no-pool")
    installed.kubectl("delete", "computepool", "later", check=True)


def test_someone_elses_job_is_left_alone(world: World) -> None:
    pod = {"containers": [{"name": "x", "image": "x"}], "restartPolicy": "Never"}
    theirs = {"metadata": {"name": "taken"}, "spec": {"suspend": True, "template": {"spec": pod}}}
    world.batch.create_namespaced_job(world.namespace, theirs)
    world.apply("taken")
    assert "exists and is not of this job" in world.reaches("taken", "Invalid")["message"]
    world.delete("taken")
    wait_until(lambda: not world.job("taken"), "the job is gone")
    assert world.batch.read_namespaced_job("taken", world.namespace).metadata.deletion_timestamp is None


def test_a_pause_stops_the_pods_and_a_resumption_starts_them(world: World) -> None:
    world.apply("paused")
    world.play_kubelet(world.first_pod("paused"), "Running")
    world.reaches("paused", "Running")
    world.patch("paused", suspend=True)
    wait_until(lambda: not world.pods("paused"), "the pods are gone")
    wait_until(lambda: world.status("paused")["message"] == "spec.suspend is set", "the pause is over with its pods")
    assert world.phase("paused") == "Suspended"
    assert world.condition("paused", "Suspended") == ("True", "Suspended")
    world.patch("paused", suspend=False)
    world.first_pod("paused")
    assert world.condition("paused", "Suspended")[0] == "False"


def test_a_job_that_is_made_paused_starts_when_resumed(world: World) -> None:
    world.apply("made-paused", suspend=True)
    world.reaches("made-paused", "Suspended")
    assert world.names("job", "batch", "made-paused") == []
    world.patch("made-paused", suspend=False)
    world.first_pod("made-paused")


def test_a_deadline_fails_the_job(world: World) -> None:
    world.apply("late", activeDeadlineSeconds=600)
    world.play_kubelet(world.first_pod("late"), "Running")
    world.reaches("late", "Running")
    world.patch("late", activeDeadlineSeconds=1)
    status = world.reaches("late", "Failed", 40)
    assert world.condition("late", "Failed") == ("True", "DeadlineExceeded")
    assert "(1 s)" in status["message"]
    assert status["completionTime"]


def test_a_finished_job_is_deleted_when_its_time_has_come(world: World) -> None:
    world.apply("short-lived", ttlSecondsAfterFinished=1)
    world.play_end(world.first_pod("short-lived"), 78)
    wait_until(lambda: not world.job("short-lived"), "the job is gone")
    wait_until(lambda: not world.names("pods", "", "short-lived"), "its pods are gone")


@pytest.mark.parametrize("phase", ["Invalid", "Starting", "Running", "Suspended", "Complete", "Failed"])
def test_a_deletion_leaves_nothing_in_any_phase(world: World, phase: str) -> None:
    name = f"gone-{phase.lower()}"
    world.apply(name, **({"compute": {"pool": "nowhere"}} if phase == "Invalid" else {}))
    if phase != "Invalid":
        pod = world.first_pod(name)
        if phase == "Suspended":
            world.patch(name, suspend=True)
        elif phase == "Running":
            world.play_kubelet(pod, "Running")
        elif phase == "Complete":
            world.play_end(pod, 0, termination(model=name, path=f"team-a/{name}/1").dump())
        elif phase == "Failed":
            world.play_end(pod, 65)
    world.reaches(name, phase)
    world.delete(name)
    begin = time.monotonic()
    wait_until(lambda: not world.job(name), lambda: f"{name} is gone: {world.story(name)}", 15)
    assert time.monotonic() - begin < 10
    for kind, group in (("job", "batch"), ("pod", ""), ("pvc", "")):
        assert world.names(kind, group, name) == []
    for kind in ("configmap", "service"):
        wait_until(lambda kind=kind: not world.names(kind, "", name), f"no {kind} is left")  # type: ignore[misc]


def test_a_name_can_be_used_again_at_once(world: World) -> None:
    world.apply("again")
    world.first_pod("again")
    first = world.job("again")["metadata"]["uid"]
    world.delete("again")
    wait_until(lambda: not world.job("again"), "the first is gone")
    world.apply("again")
    pod = world.first_pod("again")
    assert world.job("again")["metadata"]["uid"] != first
    environment = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
    assert environment["STROP_JOB_UID"] == world.job("again")["metadata"]["uid"]


def test_a_changed_child_is_put_back(world: World) -> None:
    world.apply("healed")
    world.first_pod("healed")
    world.reaches("healed", "Starting")
    world.core.delete_namespaced_service("healed-trainer", world.namespace)
    world.core.patch_namespaced_config_map("healed-plan", world.namespace, {"data": {"ca.crt": "broken"}})
    world.patch("healed", ttlSecondsAfterFinished=60)
    wait_until(lambda: world.names("service", "", "healed") == ["healed-trainer"], "the Service is back")

    def certificate() -> str:
        return str(world.core.read_namespaced_config_map("healed-plan", world.namespace).data["ca.crt"])

    wait_until(lambda: certificate().startswith("-----BEGIN CERTIFICATE-----"), "the ConfigMap is whole again")


def test_a_deleted_child_job_is_made_anew(world: World) -> None:
    world.apply("remade")
    pod = world.first_pod("remade")
    world.play_kubelet(pod, "Running")
    world.reaches("remade", "Running")
    world.batch.delete_namespaced_job("remade", world.namespace, propagation_policy="Foreground")
    wait_until(lambda: world.first_pod("remade")["metadata"]["uid"] != pod["metadata"]["uid"], "a pod of another Job")
    world.play_kubelet(world.first_pod("remade"), "Running")
    world.reaches("remade", "Running")


def test_a_quota_without_room_is_told_in_words(installed: ApiServer, operator: OperatorProcess) -> None:
    small = World(installed, "team-small")
    quota = {"metadata": {"name": "tiny"}, "spec": {"hard": {"requests.memory": "1Mi"}}}
    small.core.create_namespaced_resource_quota("team-small", quota)
    wait_until(
        lambda: small.core.read_namespaced_resource_quota("tiny", "team-small").status.hard, "the quota is in force"
    )
    small.apply("waits")
    message = small.reaches("waits", "Queued", 30)["message"]
    assert "ResourceQuota leaves no room" in message
    assert "exceeded quota: tiny" in message
    small.close()


def test_trainer_pods_are_admitted_where_pod_security_is_restricted(
    installed: ApiServer, operator: OperatorProcess
) -> None:
    strict = World(installed, "team-strict")
    strict.core.patch_namespace(
        "team-strict", {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    )
    strict.apply("safe")
    assert strict.first_pod("safe")
    strict.close()
