"""The loop around a look: what fails is tried again with patience; a sweep asks for what can still change."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from strop.cluster.client import ApiError
from strop.cluster.key import Key
from strop.controller import reconcile as module
from strop.controller.reconcile import Reconciler, find_workloads
from strop.controller.settings import Settings
from strop.progress.metrics import Metrics

KEY = Key("ns", "job")
SETTINGS = Settings("strop-system", "trainer:1", "https://progress:8443")


class Served:
    """An API server that serves a list of jobs."""

    def __init__(self, jobs: list[dict[str, Any]] | None = None, kueue: ApiError | str = "v1beta2") -> None:
        self.jobs = jobs or []
        self.kueue = kueue
        self.asked: list[str | None] = []

    async def pages(self, resource: object, namespace: str | None = None) -> AsyncIterator[dict[str, Any]]:
        self.asked.append(namespace)
        for job in self.jobs:
            yield job

    async def request(self, *_: Any) -> Any:
        if isinstance(self.kueue, ApiError):
            raise self.kueue
        return {"preferredVersion": {"version": self.kueue}}


def reconciler(client: Any = None, settings: Settings = SETTINGS) -> tuple[Reconciler, Metrics]:
    metrics = Metrics()
    return Reconciler(client or Served(), settings, metrics, lambda: "PEM"), metrics


def job(name: str, phase: str | None = None, *, deleting: bool = False, **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name, **({"deletionTimestamp": "x"} if deleting else {})}
    return {"metadata": metadata, "spec": spec, **({"status": {"phase": phase}} if phase else {})}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ApiError(409, "Conflict", "changed"), "conflict"),
        (ApiError(404, "NotFound", "gone"), "conflict"),
        (ApiError(500, "InternalError", "broken"), "error"),
        (aiohttp.ClientConnectionError("refused"), "unreachable"),
        (TimeoutError(), "unreachable"),
        (ValueError("a bug"), "bug"),
    ],
)
async def test_a_look_that_fails_is_taken_again(
    error: Exception, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    async def observe(*_: Any) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise error

    monkeypatch.setattr(module, "observe", observe)
    loop, metrics = reconciler()
    worker = asyncio.create_task(loop.work())
    loop.queue.add(KEY)
    await asyncio.sleep(0.2)
    assert looks == 1
    await asyncio.sleep(1.0)
    assert looks == 2
    worker.cancel()
    text = metrics.render().decode()
    assert f'strop_reconcile_seconds_count{{outcome="{outcome}"}} 1.0' in text
    assert 'strop_reconcile_seconds_count{outcome="ok"} 1.0' in text


async def test_a_sweep_asks_for_what_can_still_change() -> None:
    jobs = [
        job("new"),
        job("runs", "Running"),
        job("done", "Complete"),
        job("failed", "Failed"),
        job("leaving", "Complete", deleting=True),
        job("expires", "Failed", ttlSecondsAfterFinished=60),
    ]
    loop, metrics = reconciler(Served(jobs))
    await loop.sweep()
    asked = {(await loop.queue.take()).name for _ in range(loop.queue.depth())}
    assert asked == {"new", "runs", "leaving", "expires"}
    assert 'strop_jobs{phase="Failed"} 2.0' in metrics.render().decode()
    assert loop.swept_at is not None


async def test_a_job_that_is_gone_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Served([job("runs", "Running")])
    loop, metrics = reconciler(client)
    await loop.sweep()
    await loop.queue.take()
    client.jobs = []
    await loop.sweep()
    loop.queue.finish(Key("ns", "runs"))

    async def observe(*_: Any) -> None:
        return None

    monkeypatch.setattr(module, "observe", observe)
    assert await loop.reconcile(Key("ns", "runs")) is None
    assert 'strop_jobs{phase="Running"} 0.0' in metrics.render().decode()


async def test_a_sweep_keeps_to_the_namespaces_that_are_watched() -> None:
    client = Served()
    settings = Settings("strop-system", "trainer:1", "https://progress:8443", watch_namespaces=("a", "b"))
    loop, _ = reconciler(client, settings)
    await loop.sweep()
    assert client.asked == ["a", "b"]


async def test_a_changed_pool_is_news_for_jobs_that_no_pool_could_take() -> None:
    loop, _ = reconciler(Served([job("refused", "Invalid"), job("runs", "Running")]))
    await loop.sweep()
    for _ in range(2):
        loop.queue.finish(await loop.queue.take())
    loop.pools_changed()
    assert loop.queue.depth() == 1
    assert (await loop.queue.take()).name == "refused"


async def test_a_pool_that_comes_while_a_job_is_looked_at_is_seen_by_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where one file has the job before its pool: the look had read the pools, and not told yet that it has none."""
    pools: list[str] = []
    seen: list[list[str]] = []
    told = asyncio.Event()

    async def observe(*_: Any) -> None:
        seen.append(list(pools))
        await told.wait()

    monkeypatch.setattr(module, "observe", observe)
    loop, _ = reconciler()
    worker = asyncio.create_task(loop.work())
    loop.queue.add(KEY)
    await asyncio.sleep(0.05)
    pools.append("cpu")
    loop.pools_changed()
    told.set()
    await asyncio.sleep(0.05)
    worker.cancel()
    assert seen == [[], ["cpu"]]


async def test_kueue_is_used_in_the_version_that_the_cluster_prefers() -> None:
    found = await find_workloads(Served(kueue="v1beta2"))  # type: ignore[arg-type]
    assert found is not None
    assert found.path("ns") == "/apis/kueue.x-k8s.io/v1beta2/namespaces/ns/workloads"
    assert await find_workloads(Served(kueue=ApiError(404, "NotFound", ""))) is None  # type: ignore[arg-type]
    with pytest.raises(ApiError):
        await find_workloads(Served(kueue=ApiError(500, "InternalError", "")))  # type: ignore[arg-type]
