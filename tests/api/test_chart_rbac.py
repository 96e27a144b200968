"""The chart's roles hold what the operator asks for, and nothing else: the API server's audit log is the witness."""

import json
import ssl
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import kueue
from tests.support.apiserver import ApiServer
from tests.support.helm import CHART, NAMESPACE, RELEASE, helm, only, render
from tests.support.jobs import termination
from tests.support.operator import OperatorProcess
from tests.support.rbac import asked, compare, granted
from tests.support.waiting import wait_until
from tests.support.world import World

pytestmark = pytest.mark.api

SIZE = {"cpuPerNode": "8", "memoryPerNode": "32Gi"}
POOLS = [{"name": "cpu", "spec": SIZE}, {"name": "queued", "spec": {**SIZE, "queueName": "training", "cost": 9}}]


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with ApiServer(audit=True) as server:
        helm(
            *("install", RELEASE, CHART, "--namespace", NAMESPACE, "--create-namespace", "--wait=hookOnly"),
            values={"pools": POOLS},
            kubeconfig=server.kubeconfig,
        )
        kueue.install(server)
        yield server


@pytest.fixture(scope="module")
def operator(server: ApiServer) -> Iterator[OperatorProcess]:
    kubeconfig = server.service_account_kubeconfig(NAMESPACE, RELEASE)
    with OperatorProcess(kubeconfig, NAMESPACE, lease_name=RELEASE) as process:
        yield process


def test_roles_are_what_the_operator_asks_for(server: ApiServer, operator: OperatorProcess) -> None:
    world = World(server, "team")
    try:
        publish_and_expire(world, operator)
        pause_and_resume(world)
        pause_in_queue(world)
        be_refused_and_deleted(world)
    finally:
        world.close()
    assert operator.terminate() == 0

    user = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
    events = [json.loads(line) for line in server.audit_log.read_text().splitlines()]
    manifests = render()
    roles = [only(manifests, "ClusterRole", RELEASE), only(manifests, "Role", f"{RELEASE}-own")]
    missing, unused = compare(granted(roles), asked(events, user))
    assert missing == []
    assert unused == []


def publish_and_expire(world: World, operator: OperatorProcess) -> None:
    """A job reports progress, publishes, ends, and is deleted when its time has come."""
    world.apply("tune")
    pod = world.first_pod("tune")
    world.play_kubelet(pod, "Running")
    world.reaches("tune", "Running")
    report(world, operator, "tune", pod)
    wait_until(lambda: world.status("tune").get("progress", {}).get("stage") == "train", "the progress is written")
    digest = world.status("tune")["planDigest"]
    world.play_end(pod, 0, termination(model="tune", planDigest=digest, path="team/tune/1").dump())
    world.reaches("tune", "Complete")
    world.patch("tune", ttlSecondsAfterFinished=0)
    wait_until(lambda: not world.job("tune"), "the job is deleted when its time has come")


def report(world: World, operator: OperatorProcess, job: str, pod: dict[str, Any]) -> None:
    """Posts progress as the pod's own trainer does."""
    metadata = pod["metadata"]
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": ["progress.strop.dev"],
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]},
        },
    }
    token = world.core.create_namespaced_service_account_token("default", world.namespace, request).status.token
    body = {"trainerStatus": {"metrics": [{"name": "stage", "value": "train"}]}}
    post = urllib.request.Request(
        f"https://localhost:{operator.progress_port}/v1alpha1/namespaces/{world.namespace}/finetunejobs/{job}/progress",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}"},
    )
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with urllib.request.urlopen(post, context=context, timeout=10) as answer:  # noqa: S310 - https
        assert answer.status == 200


def pause_and_resume(world: World) -> None:
    """Twice, so that the same Event is counted; a deadline is changed on the way."""
    world.apply("pausing")
    world.first_pod("pausing")
    for _ in range(2):
        world.patch("pausing", suspend=True, activeDeadlineSeconds=3600)
        world.reaches("pausing", "Suspended")
        world.patch("pausing", suspend=False)
        world.reaches("pausing", "Starting")
    world.delete("pausing")
    wait_until(lambda: not world.job("pausing"), "the job is deleted")


def pause_in_queue(world: World) -> None:
    """Where Kueue owns a job's suspension, its Workload is told."""
    world.apply("queued", compute={"pool": "queued"})
    wait_until(lambda: "queued" in world.names("jobs"), "the Job is created")
    job = world.batch.read_namespaced_job("queued", world.namespace)
    assert job.metadata.labels["kueue.x-k8s.io/queue-name"] == "training"
    played = kueue.PlayedKueue(world)
    played.queue("queued", "no quota left")
    world.patch("queued", suspend=True)
    wait_until(lambda: played.workload("queued")["spec"]["active"] is False, "the Workload is paused")
    world.delete("queued")
    wait_until(lambda: not world.job("queued"), "the job is deleted")


def be_refused_and_deleted(world: World) -> None:
    """Where no pod may be created, Events say why."""
    world.core.create_namespaced_resource_quota(
        world.namespace, {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    )
    wait_until(
        lambda: world.core.read_namespaced_resource_quota("none", world.namespace).status.hard, "the quota is in force"
    )
    world.apply("refused")
    world.reaches("refused", "Queued")
    world.delete("refused")
    wait_until(lambda: not world.job("refused"), "the job is deleted")
