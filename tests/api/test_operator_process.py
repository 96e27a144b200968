"""The operator as a process: restarts, election, idleness, its end, its memory, and what it needs rights for."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.support.apiserver import ApiServer
from tests.support.helm import NAMESPACE as OWN
from tests.support.helm import RELEASE
from tests.support.jobs import termination
from tests.support.operator import OperatorProcess
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from tests.support.world import World

pytestmark = pytest.mark.api

USER = f"system:serviceaccount:{OWN}:{RELEASE}"
IDLE_SECONDS = 20
MEMORY_LIMIT = 120 * 2**20


@pytest.fixture(scope="module")
def world(installed: ApiServer) -> Iterator[World]:
    world = World(installed, "team-process")
    yield world
    world.close()


def process(installed: ApiServer, **environment: str) -> OperatorProcess:
    kubeconfig = installed.service_account_kubeconfig(OWN, RELEASE)
    return OperatorProcess(kubeconfig, OWN, **{"lease_name": RELEASE, **environment})


def versions(world: World, name: str) -> dict[str, str]:
    """uid and version of all that belongs to a job."""
    found = {}
    for kind in ("job", "pod", "pvc", "configmap", "service", "networkpolicy", "ftj"):
        items = world.kubectl.get(kind, "-n", world.namespace)["items"]
        for item in items:
            metadata = item["metadata"]
            if metadata["name"].startswith(name):
                found[f"{kind}/{metadata['name']}"] = f"{metadata['uid']} {metadata['resourceVersion']}"
    return found


def test_a_restart_changes_nothing_for_a_running_job(world: World, installed: ApiServer) -> None:
    port = str(free_port())
    with process(installed, progress_port=port) as first:
        world.apply("steady")
        world.play_kubelet(world.first_pod("steady"), "Running")
        world.reaches("steady", "Running")
        before = versions(world, "steady")
        first.kill()
    with process(installed, progress_port=port) as second:
        wait_until(second.leads, "the second leads")
        time.sleep(3)
        assert versions(world, "steady") == before


def test_what_happened_while_no_operator_was_there_is_found(world: World, installed: ApiServer) -> None:
    with process(installed) as first:
        for name in ("ends-alone", "dies-alone"):
            world.apply(name)
            world.first_pod(name)
        world.reaches("dies-alone", "Starting")
        assert first.terminate() == 0
    message = termination(model="ends-alone", path="team-process/ends-alone/1").dump()
    world.play_end(world.first_pod("ends-alone"), 0, message)
    world.delete("dies-alone")
    world.apply("born-alone")
    with process(installed):
        world.reaches("ends-alone", "Complete")
        wait_until(lambda: not world.job("dies-alone"), "the deleted job is gone")
        world.first_pod("born-alone")


def test_one_operator_decides_and_another_follows_at_once(world: World, installed: ApiServer) -> None:
    with process(installed, pod_name="first") as first, process(installed, pod_name="second") as second:
        wait_until(first.leads, "the first leads")
        assert not second.leads()
        assert second.ask("/readyz") == (200, "ok\n")
        begin = time.monotonic()
        assert first.terminate() == 0
        assert time.monotonic() - begin < 6
        wait_until(second.leads, "the second leads", 3)
        world.apply("after-handover")
        world.first_pod("after-handover")


def test_an_operator_that_loses_the_lease_ends(installed: ApiServer) -> None:
    with process(installed, pod_name="loser") as operator:
        wait_until(operator.leads, "it leads")
        body = {"spec": {"holderIdentity": "someone-else", "leaseDurationSeconds": 3600}}
        patch_lease(installed, body)
        wait_until(lambda: operator.process is not None and operator.process.poll() is not None, "it ends", 10)
        assert operator.process is not None
        assert operator.process.returncode == 1
    patch_lease(installed, {"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}})


def patch_lease(installed: ApiServer, body: dict[str, object]) -> None:
    arguments = ("patch", "lease", RELEASE, "-n", OWN, "--type=merge", "-p", json.dumps(body))
    installed.kubectl(*arguments, check=True)


def test_an_idle_operator_writes_nothing_but_its_lease_and_stays_small(world: World, installed: ApiServer) -> None:
    world.apply("idle")
    with process(installed, sweep_seconds="5") as operator:
        world.play_kubelet(world.first_pod("idle"), "Running")
        world.reaches("idle", "Running")
        time.sleep(3)
        before = len(world.audit())
        time.sleep(IDLE_SECONDS)
        asked = [each for each in world.audit()[before:] if each["user"]["username"] == USER and "objectRef" in each]
        writes = [event for event in asked if event["verb"] not in ("get", "list", "watch")]
        assert {event["objectRef"]["resource"] for event in writes} == {"leases"}
        assert any(event["objectRef"]["resource"] == "finetunejobs" for event in asked), "it did sweep"
        assert operator.memory() < MEMORY_LIMIT


def test_metrics_tell_what_it_does(world: World, installed: ApiServer) -> None:
    with process(installed) as operator:
        world.apply("measured")
        world.first_pod("measured")
        world.reaches("measured", "Starting")
        status, text = operator.ask("/metrics")
        assert status == 200
        assert 'strop_jobs{phase="Starting"}' in text
        assert 'strop_reconcile_seconds_count{outcome="ok"}' in text
        assert "process_resident_memory_bytes" in text


def test_bad_configuration_ends_it_with_words(installed: ApiServer) -> None:
    operator = process(installed, workers="many")
    operator.start()
    assert operator.process is not None
    assert operator.process.wait(30) == 78
    assert "STROP_WORKERS: found 'many'" in operator.log()
