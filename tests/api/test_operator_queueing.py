"""Jobs of a pool with a queue: Kueue owns their suspension, and is played by a hand."""

import time
from collections.abc import Iterator

import pytest

from tests.support import kueue
from tests.support.apiserver import ApiServer
from tests.support.operator import OperatorProcess
from tests.support.waiting import wait_until
from tests.support.world import World

pytestmark = pytest.mark.api


@pytest.fixture(scope="module")
def world(installed: ApiServer, operator: OperatorProcess) -> Iterator[World]:
    pool = {"apiVersion": "strop.dev/v1alpha1", "kind": "ComputePool", "metadata": {"name": "queued"}}
    spec = {"cpuPerNode": "8", "memoryPerNode": "32Gi", "queueName": "team-queue", "cost": 50}
    installed.kubectl.apply({**pool, "spec": spec})
    world = World(installed, "team-queue")
    yield world
    world.close()


def test_a_queue_without_kueue_is_told(world: World) -> None:
    world.apply("too-early", compute={"pool": "queued"})
    assert "Kueue is not installed" in world.reaches("too-early", "Queued")["message"]
    child = world.batch.read_namespaced_job("too-early", world.namespace)
    assert child.metadata.labels["kueue.x-k8s.io/queue-name"] == "team-queue"
    assert child.spec.suspend


@pytest.fixture(scope="module")
def kueue_there(world: World, installed: ApiServer, operator: OperatorProcess) -> kueue.PlayedKueue:
    kueue.install(installed)
    # The operator finds Kueue by its next sweep; a new leader's first sweep is now.
    operator.terminate()
    operator.start()
    wait_until(operator.leads, "the operator leads again")
    return kueue.PlayedKueue(world)


def test_a_queued_job_waits_in_kueues_words_then_runs(world: World, kueue_there: kueue.PlayedKueue) -> None:
    world.apply("waits", compute={"pool": "queued"})
    wait_until(lambda: world.names("job", "batch", "waits"), "the Job is there")
    kueue_there.queue("waits", "insufficient unused quota for memory in flavor default")
    wait_until(lambda: "insufficient unused quota" in world.status("waits").get("message", ""), "the reason is told")
    assert world.condition("waits", "Queued") == ("True", "WaitingForQuota")
    assert world.pods("waits") == []
    kueue_there.admit("waits")
    pod = world.first_pod("waits")
    world.play_kubelet(pod, "Running")
    world.reaches("waits", "Running")
    assert world.condition("waits", "Queued")[0] == "False"
    time.sleep(1)
    assert not world.batch.read_namespaced_job("waits", world.namespace).spec.suspend


def test_a_pause_of_a_queued_job_goes_through_its_workload(world: World, kueue_there: kueue.PlayedKueue) -> None:
    world.apply("pausing", compute={"pool": "queued"})
    wait_until(lambda: world.names("job", "batch", "pausing"), "the Job is there")
    kueue_there.queue("pausing", "waiting")
    kueue_there.admit("pausing")
    world.play_kubelet(world.first_pod("pausing"), "Running")
    world.patch("pausing", suspend=True)
    wait_until(lambda: kueue_there.workload("pausing")["spec"]["active"] is False, "the Workload is deactivated")
    kueue_there.stop("pausing")
    wait_until(lambda: not world.pods("pausing"), "the pods are gone")
    world.reaches("pausing", "Suspended")
    world.patch("pausing", suspend=False)
    wait_until(lambda: kueue_there.workload("pausing")["spec"]["active"] is True, "the Workload is active again")
    assert world.batch.read_namespaced_job("pausing", world.namespace).spec.suspend, "that is Kueue's to change"
    kueue_there.admit("pausing")
    world.first_pod("pausing")
