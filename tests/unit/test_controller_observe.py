"""What is read of one job: what the Job controller says in Events counts while it says why there is no pod now."""

from typing import Any

import pytest

from strop.cluster.key import Key
from strop.cluster.resources import BATCH_JOBS, EVENTS, JOBS, PODS, POOLS, Resource
from strop.controller.observe import observe
from strop.decide.observed import Observed
from strop.planning.inputs import PlanSettings
from tests.support.jobs import JOB, NAMESPACE, ended_pod, job_ended, make_child, make_job, make_pod, running_pod

REFUSED = 'Error creating: pods "x" is forbidden: exceeded quota: team'


class Holding:
    """An API server that holds some objects."""

    def __init__(self, child: Any = None, pods: Any = (), events: Any = (), pools: Any = (), **spec: Any) -> None:
        self._objects = {JOBS: make_job(spec), BATCH_JOBS: child}
        self._lists = {PODS: pods, EVENTS: events, POOLS: pools}

    async def get(self, resource: Resource, *_: Any) -> Any:
        return self._objects.get(resource)

    async def list(self, resource: Resource, *_: Any, **__: Any) -> list[Any]:
        return list(self._lists.get(resource, ()))


def event(at: str, note: str = REFUSED) -> dict[str, Any]:
    return {"note": note, "deprecatedLastTimestamp": at}


def resumed(at: str) -> dict[str, Any]:
    return {"conditions": [{"type": "Suspended", "status": "False", "reason": "JobResumed", "lastTransitionTime": at}]}


@pytest.mark.parametrize(
    ("child", "pods", "at", "told"),
    [
        (make_child(), [], "2026-01-01T00:01:00Z", True),
        # Kueue, or spec.suspend, has let the Job go: a condition stays that says so.
        (make_child(status=resumed("2026-01-01T00:01:00Z")), [], "2026-01-01T00:01:00Z", True),
        (make_child(status=resumed("2026-01-01T00:01:00Z")), [], "2026-01-01T00:00:59Z", False),
        # An attempt has ended; its pod is kept, and the next one is refused.
        (make_child(), [ended_pod(75, created="2026-01-01T00:00:05Z")], "2026-01-01T00:10:00Z", True),
        (make_child(), [ended_pod(75, created="2026-01-01T00:00:05Z")], "2026-01-01T00:00:05.9Z", False),
        (make_child(), [running_pod()], "2026-01-01T00:10:00Z", False),
        (make_child(spec={"suspend": True}), [], "2026-01-01T00:10:00Z", False),
        (make_child(status=job_ended("FailureTarget")), [], "2026-01-01T00:10:00Z", False),
    ],
    ids=[
        "no pod was made yet",
        "refused after the Job was resumed",
        "refused before it was",
        "refused after an attempt",
        "refused before it",
        "a pod runs",
        "suspended",
        "about to fail",
    ],
)
async def test_a_pod_that_may_not_be_created_is_told_as_long_as_there_is_none(
    child: Any, pods: list[Any], at: str, told: bool
) -> None:
    client = Holding(child, pods, [event(at)])
    observed = await observe(client, Key(NAMESPACE, JOB), PlanSettings(), None)  # type: ignore[arg-type]
    assert observed is not None
    assert observed.refused_pods == ((REFUSED,) if told else ())


PLACED = [{"type": "PodScheduled", "status": "True"}]
CREATING = {"waiting": {"reason": "ContainerCreating"}}
UNMOUNTED = 'MountVolume.SetUp failed for volume "rows" : configmap "rows" not found'


def of_pod(at: str, kind: str, note: str) -> dict[str, Any]:
    return {"note": note, "type": kind, "deprecatedLastTimestamp": at}


WARNED = [of_pod("2026-01-01T00:01:00Z", "Warning", UNMOUNTED)]
MADE = make_pod(state=CREATING, conditions=PLACED)


@pytest.mark.parametrize(
    ("pod", "events", "told"),
    [
        (
            MADE,
            WARNED,
            UNMOUNTED,
        ),
        (make_pod(conditions=PLACED), WARNED, UNMOUNTED),
        (
            MADE,
            [of_pod("2026-01-01T00:01:09Z", "Normal", "Pulling image"), *WARNED],
            "",
        ),
        (MADE, [], ""),
        (running_pod(conditions=PLACED), WARNED, ""),
        (make_pod(), [of_pod("2026-01-01T00:01:00Z", "Warning", "0/2 nodes are available")], ""),
    ],
    ids=["created", "no state yet", "mounted since", "nothing was said", "runs", "has no node"],
)
async def test_the_last_warning_of_a_pod_that_is_being_made_is_read(pod: Any, events: list[Any], told: str) -> None:
    client = Holding(make_child(), [pod], events)
    observed = await observe(client, Key(NAMESPACE, JOB), PlanSettings(), None)  # type: ignore[arg-type]
    assert observed is not None
    assert observed.warning == told


async def test_the_latest_refusal_comes_last() -> None:
    events = [event("2026-01-01T00:03:00Z", "second"), event("2026-01-01T00:02:00Z", "first")]
    observed = await observe(
        Holding(make_child(), [], events),  # type: ignore[arg-type]
        Key(NAMESPACE, JOB),
        PlanSettings(),
        None,
    )
    assert observed is not None
    assert observed.refused_pods == ("first", "second")


def pool(name: str, memory: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"cpuPerNode": "8", "memoryPerNode": memory, **more}}


async def seen_with(*pools: Any, **spec: Any) -> Observed:
    model = {"source": "pvc://models/smollm2", "parameters": "135M"}
    client = Holding(pools=pools, model=model, **spec)
    observed = await observe(client, Key(NAMESPACE, JOB), PlanSettings(), None)  # type: ignore[arg-type]
    assert observed is not None
    return observed


NEWER = pool("newer", "64Gi", region="eu")
"""As where the resource types were upgraded, and the operator was not yet or was rolled back."""


async def test_a_pool_of_another_version_keeps_no_job_from_the_others() -> None:
    observed = await seen_with(pool("cpu", "16Gi"), NEWER)
    assert observed.refusal is None
    assert observed.plan is not None
    assert observed.plan.placement.pool == "cpu"
    assert observed.pool is not None


@pytest.mark.parametrize("spec", [{"compute": {"pool": "newer"}}, {}], ids=["named", "the only one that fits"])
async def test_a_pool_of_another_version_is_told_to_a_job_that_goes_without(spec: Any) -> None:
    observed = await seen_with(pool("cpu", "1Gi"), NEWER, **spec)
    assert observed.plan is None
    assert observed.refusal is not None
    assert "ComputePool newer: spec.region: unknown field" in observed.refusal.message
