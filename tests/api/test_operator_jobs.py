"""The operator process against a real API server and controller-manager; a hand plays the kubelet."""

import time
from collections.abc import Iterator

import pytest

from tests.support.apiserver import ApiServer
from tests.support.helm import CHART, RELEASE, helm
from tests.support.helm import NAMESPACE as OWN
from tests.support.jobs import termination
from tests.support.operator import OperatorProcess
from tests.support.waiting import wait_until
from tests.support.world import World

pytestmark = pytest.mark.api

POOL = {"name": "cpu", "spec": {"cpuPerNode": "8", "memoryPerNode": "32Gi"}}


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """A server of its own: the definitions and pools belong to the release."""
    with ApiServer(audit=True) as server:
        helm(
            *("install", RELEASE, CHART, "--namespace", OWN, "--create-namespace", "--wait=hookOnly"),
            values={"pools": [POOL]},
            kubeconfig=server.kubeconfig,
        )
        yield server


@pytest.fixture(scope="module")
def operator(server: ApiServer) -> Iterator[OperatorProcess]:
    """One operator with exactly the rights that the chart gives it."""
    kubeconfig = server.service_account_kubeconfig(OWN, RELEASE)
    with OperatorProcess(kubeconfig, OWN, lease_name=RELEASE) as process:
        yield process


@pytest.fixture(scope="module")
def world(server: ApiServer, operator: OperatorProcess) -> Iterator[World]:
    world = World(server, "team-a")
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
