"""The plain port: /livez, /readyz and /metrics. Each always answers, and says why where it says no."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from aiohttp import web

from strop.progress.metrics import Metrics

STUCK_SECONDS: Final = 600.0
"""No look at a job takes so long, unless it hangs."""
WAIT_SECONDS: Final = 120.0
"""No job waits so long for a look, unless the workers are overrun."""


class Queue(Protocol):
    """How long the operator's queue keeps jobs waiting."""

    def longest_look(self) -> float:
        """Return the seconds that the slowest worker has been looking."""

    def oldest_wait(self) -> float:
        """Return the seconds that the longest waiting job has waited for a worker."""


class Health:
    """The server of the plain port."""

    def __init__(self, port: int, metrics: Metrics, queue: Queue, why_unready: Callable[[], str | None]) -> None:
        """Prepare the server.

        Args:
            port: To listen on; 0 picks one.
            metrics: What /metrics shows.
            queue: What /livez and /readyz look at.
            why_unready: Returns what is missing for readiness; None where nothing is.
        """
        self._port = port
        self._metrics = metrics
        self._queue = queue
        self._why_unready = why_unready
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        return int(self._runner.addresses[0][1]) if self._runner else self._port

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._render)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, port=self._port).start()

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _livez(self, _: web.Request) -> web.Response:
        look = self._queue.longest_look()
        return _answer(f"a look at a job has taken {look:.0f} s" if look > STUCK_SECONDS else None)

    async def _readyz(self, _: web.Request) -> web.Response:
        wait = self._queue.oldest_wait()
        return _answer(f"a job has waited {wait:.0f} s for a look" if wait > WAIT_SECONDS else self._why_unready())

    async def _render(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})


def _answer(trouble: str | None) -> web.Response:
    return web.Response(status=503, text=f"{trouble}\n") if trouble else web.Response(text="ok\n")
