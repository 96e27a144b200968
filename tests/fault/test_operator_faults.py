"""Whatever breaks between the operator and the API server, and whenever the operator dies: jobs end as they should."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.apiserver import ApiServer
from tests.support.faults import Fault, FaultProxy, Plan
from tests.support.helm import NAMESPACE, RELEASE
from tests.support.installed import installed_server
from tests.support.jobs import termination
from tests.support.operator import OperatorProcess
from tests.support.waiting import wait_until
from tests.support.world import World

pytestmark = [pytest.mark.api, pytest.mark.fault]

FAULTS: tuple[Fault, ...] = ("refuse", "drop-before", "drop-after")
WALKERS = 8
"""Jobs that go their way at the same time."""
MOST_WRITES = 30
"""More than a job's way takes; each number that is reached is tried."""


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with installed_server() as server:
        yield server


@pytest.fixture(scope="module")
def proxy(server: ApiServer) -> Iterator[FaultProxy]:
    with FaultProxy(server) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def world(server: ApiServer) -> Iterator[World]:
    world = World(server, "team-fault")
    yield world
    world.close()


def process(server: ApiServer, proxy: FaultProxy, lease_seconds: int = 3) -> OperatorProcess:
    kubeconfig = proxy.kubeconfig(server.service_account_kubeconfig(NAMESPACE, RELEASE))
    return OperatorProcess(kubeconfig, NAMESPACE, lease_name=RELEASE, lease_seconds=str(lease_seconds))


def whole_way(world: World, name: str) -> None:
    """From apply to a ModelVersion, then to nothing."""
    world.apply(name)
    pod = world.first_pod(name)
    world.play_end(pod, 0, termination(model=name, path=f"team-fault/{name}/1").dump())
    world.reaches(name, "Complete", 60)
    only_what_there_should_be(world, name)
    world.delete(name)
    wait_until(lambda: not world.job(name), lambda: f"{name} is gone: {world.story(name)}", 60)
    assert world.names("job", "batch", name) == []
    assert world.names("pod", "", name) == []
    assert world.names("pvc", "", name) == []


def only_what_there_should_be(world: World, name: str) -> None:
    assert len(world.pods(name)) == 1
    assert world.names("job", "batch", name) == [name]
    assert world.names("modelversion", "strop.dev", name) == [f"{name}-v1"]
    status = world.status(name)
    assert status["modelVersion"]["name"] == f"{name}-v1"
    assert world.condition(name, "Complete") == ("True", "Complete")


def test_each_write_of_a_jobs_way_may_break_in_each_way(server: ApiServer, proxy: FaultProxy, world: World) -> None:
    proxy.reset()
    with process(server, proxy, lease_seconds=60) as operator:
        wait_until(operator.leads, "it leads")
        proxy.plans["unbroken"] = Plan()
        whole_way(world, "unbroken")
        writes = [str(call) for call in proxy.numbered("unbroken")]
        assert 8 < len(writes) < MOST_WRITES, writes
        plans = {f"{fault}-{number}": Plan(fault, number) for fault in FAULTS for number in range(1, len(writes) + 1)}
        proxy.plans.update(plans)
        with ThreadPoolExecutor(WALKERS) as walkers:
            for done in [walkers.submit(whole_way, world, name) for name in plans]:
                done.result()
        broken = {call.name for call in proxy.calls if call.fault}
        # A way can be shorter than the one that was counted, by an Event: what it did not have cannot break.
        spared = {name: len(proxy.numbered(name)) for name in plans.keys() - broken}
        assert all(count < plans[name].number for name, count in spared.items()), spared
        assert len(broken) > len(FAULTS) * 8, spared


def test_the_operator_may_die_after_each_write(server: ApiServer, proxy: FaultProxy, world: World) -> None:
    proxy.reset()
    with process(server, proxy) as operator:
        wait_until(operator.leads, "it leads")
        for number in range(1, MOST_WRITES):
            name = f"killed-{number}"
            proxy.reset()
            proxy.plans[name] = Plan(
                "drop-after", number, on_break=lambda: operator.process and operator.process.kill()
            )
            world.apply(name)
            if not died(operator, world, name, number):
                break
            proxy.reset()
            operator.kill()
            operator.start()
            if world.job(name):
                finish(world, name)
        else:
            pytest.fail("a job's way has no end")
        assert number > 8


def died(operator: OperatorProcess, world: World, name: str, number: int) -> bool:
    """Walks a job's way until the operator dies; False where it lived to the end."""
    assert operator.process is not None
    deadline = time.monotonic() + 60
    ended = deleted = False
    while time.monotonic() < deadline:
        if operator.process.poll() is not None:
            return True
        pods = world.pods(name)
        if pods and not ended:
            world.play_end(pods[0], 0, termination(model=name, path=f"team-fault/{name}/1").dump())
            ended = True
        if ended and not deleted and world.phase(name) == "Complete":
            world.delete(name)
            deleted = True
        if deleted and not world.job(name):
            return False
        time.sleep(0.05)
    raise AssertionError(f"write {number} never came: {world.status(name)}")


def finish(world: World, name: str) -> None:
    """Walks the rest of a job's way."""
    if "deletionTimestamp" not in world.job(name)["metadata"]:
        wait_until(lambda: world.pods(name), f"a pod of {name}")
        if world.pods(name)[0]["status"]["phase"] == "Pending":
            world.play_end(world.pods(name)[0], 0, termination(model=name, path=f"team-fault/{name}/1").dump())
        world.reaches(name, "Complete", 60)
        only_what_there_should_be(world, name)
        world.delete(name)
    wait_until(lambda: not world.job(name), f"{name} is gone", 60)


def test_an_outage_of_the_api_server_is_ridden_out(server: ApiServer, proxy: FaultProxy, world: World) -> None:
    proxy.reset()
    with process(server, proxy, lease_seconds=15) as operator:
        wait_until(operator.leads, "it leads")
        world.apply("outage")
        pod = world.first_pod("outage")
        world.reaches("outage", "Starting")
        proxy.down = True
        time.sleep(1.5)
        proxy.down = False
        world.play_end(pod, 0, termination(model="outage", path="team-fault/outage/1").dump())
        world.reaches("outage", "Complete", 60)
        assert operator.process is not None
        assert operator.process.poll() is None


def test_a_long_outage_ends_the_leader_which_begins_anew(server: ApiServer, proxy: FaultProxy, world: World) -> None:
    proxy.reset()
    with process(server, proxy) as operator:
        wait_until(operator.leads, "it leads")
        proxy.down = True
        assert operator.process is not None
        assert operator.process.wait(30) == 1
        operator.start()
        time.sleep(2)
        assert operator.process.poll() is None, "it waits for the API server"
        proxy.down = False
        wait_until(operator.leads, "it leads again", 60)
        world.apply("after-outage")
        world.first_pod("after-outage")


def test_a_watch_that_ends_begins_anew(server: ApiServer, proxy: FaultProxy, world: World) -> None:
    """Kopf once hung for ever here: it waited for credentials from a task that was gone."""
    proxy.reset()
    proxy.denied = "/apis/batch/v1"
    with process(server, proxy) as operator:
        wait_until(operator.leads, "it leads")
        wait_until(lambda: "strop_watch_restarts_total 1.0" in operator.ask("/metrics")[1], "the watch ended")
        proxy.reset()
        world.apply("watched")
        pod = world.first_pod("watched")
        world.play_kubelet(pod, "Running")
        world.reaches("watched", "Running")
