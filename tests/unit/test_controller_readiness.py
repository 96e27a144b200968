"""Readiness: a rollout goes on, and `helm install --wait` returns, only once the new pod can do its work."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from strop.controller import __main__ as module
from strop.controller.__main__ import Operator
from strop.controller.settings import Settings
from tests.support.ports import free_ports

OTHERS = {
    "metadata": {"resourceVersion": "1"},
    "spec": {"holderIdentity": "another", "leaseDurationSeconds": 3600},
}


@pytest.fixture
async def forbidden(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[set[str]]:
    """An API server whose Lease another operator holds; the resources in the set are forbidden."""
    kinds: set[str] = set()

    async def answer(request: web.Request) -> web.Response:
        kind = request.path.split("/")[-2]
        if kind in kinds:
            return web.json_response({"reason": "Forbidden", "message": f"{kind} is forbidden"}, status=403)
        if kind == "leases":
            return web.json_response(OTHERS)
        return web.json_response({}, status=404 if request.method == "GET" else 200)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def load() -> Configuration:
        return Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")

    monkeypatch.setattr(module, "load_configuration", load)
    yield kinds
    await runner.cleanup()


async def readiness(seconds: float) -> tuple[int, str]:
    """Run an operator for a while, and return what it says of itself then."""
    metrics, progress = free_ports(2)
    settings = Settings(
        "strop-system", "trainer:1", "https://localhost:8443", metrics_port=metrics, progress_port=progress
    )
    running = asyncio.create_task(Operator(settings).run())
    try:
        await asyncio.sleep(seconds)
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{metrics}/readyz") as answer:
            return answer.status, await answer.text()
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_one_that_waits_for_anothers_end_is_ready(forbidden: set[str]) -> None:
    assert await readiness(0.5) == (200, "ok\n")


@pytest.mark.parametrize(
    ("kind", "words"),
    [("secrets", "the progress server does not listen yet\n"), ("leases", "403 Forbidden: leases is forbidden\n")],
)
async def test_one_that_cannot_work_is_not(kind: str, words: str, forbidden: set[str]) -> None:
    forbidden.add(kind)
    status, text = await readiness(0.5)
    assert status == 503
    assert text.endswith(words)
