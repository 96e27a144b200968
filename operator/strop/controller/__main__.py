"""The operator process: health first, then progress, then the Lease, then work; the same backwards at its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

import aiohttp

from strop.cluster.client import ApiError, Client, load_configuration
from strop.cluster.resources import JOBS
from strop.controller.kopf_app import Watcher
from strop.controller.lease import Lease, LeaseLostError
from strop.controller.reconcile import Reconciler
from strop.controller.settings import Settings
from strop.progress.certificates import Authority
from strop.progress.health import Health
from strop.progress.metrics import Metrics
from strop.progress.server import ProgressServer
from strop.progress.writes import ProgressWriter

LOGGER = logging.getLogger("strop")

BAD_CONFIGURATION: Final = 78
ENDED: Final = 1
STOP_SECONDS: Final = 5.0
"""What is under way at SIGTERM may take so long to end."""
FIRST_PAUSE: Final = 1.0
LAST_PAUSE: Final = 60.0


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def main() -> None:
    """Run the operator until it is told to stop."""
    try:
        settings = Settings.from_environment(os.environ)
    except ValueError as error:
        sys.stderr.write(f"strop-operator: {error}\n")
        sys.exit(BAD_CONFIGURATION)
    _configure_logging(settings)
    sys.exit(asyncio.run(Operator(settings).run()))


def _configure_logging(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else logging.Formatter(text))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    LOGGER.setLevel(settings.log_level)
    if settings.log_level == "DEBUG":
        logging.getLogger("kopf").setLevel(settings.log_level)
    else:  # at each start it warns that it has no signals to handle, which is as it should be
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)


class Operator:
    """All parts of the process, wired together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._metrics = Metrics()
        self._listens = False
        self._watches = False

    async def run(self) -> int:
        """Run until a signal or the loss of the Lease; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        settings = self._settings
        client = Client(await load_configuration())
        authority = Authority(
            client, settings.namespace, settings.tls_secret, settings.progress_host, settings.pod_name
        )
        reconciler = Reconciler(client, settings, self._metrics, lambda: authority.bundle)
        lease = Lease(client, settings.namespace, settings.lease_name, settings.pod_name, settings.lease_seconds)
        writer = ProgressWriter(client, self._metrics, settings.progress_seconds)
        progress = ProgressServer(client, writer, self._metrics, authority.context, settings.progress_port)
        health = Health(settings.metrics_port, self._metrics, reconciler.queue, self._is_ready(reconciler, lease))
        await health.start()
        try:
            work = self._work(authority, progress, writer, reconciler, lease)
            return await self._until_stopped(work)
        finally:
            await asyncio.wait({asyncio.ensure_future(lease.release())}, timeout=STOP_SECONDS)
            await progress.stop()
            await health.stop()
            await client.close()

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> int:
        task = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        code = 0
        if task.done():
            _tell_end(task.exception())
            code = ENDED
        else:
            LOGGER.info("told to stop")
        task.cancel()
        stopping.cancel()
        await asyncio.wait({task, stopping}, timeout=STOP_SECONDS)
        return code

    async def _work(
        self,
        authority: Authority,
        progress: ProgressServer,
        writer: ProgressWriter,
        reconciler: Reconciler,
        lease: Lease,
    ) -> None:
        """Begin what every replica does, then wait for the Lease, then do what only the leader does."""
        async with asyncio.TaskGroup() as group:
            await _patiently(authority.renew, "the progress server's certificate")
            await progress.start()
            self._listens = True
            group.create_task(authority.renew_forever())
            group.create_task(writer.write_forever())
            if self._settings.leader_election:
                await lease.acquire()
                group.create_task(lease.hold())
            self._metrics.leader.set(1)
            group.create_task(reconciler.sweep_forever())
            group.create_task(self._watch_forever(reconciler))
            for _ in range(self._settings.workers):
                group.create_task(reconciler.work())

    async def _watch_forever(self, reconciler: Reconciler) -> None:
        """Watch, and begin anew when the watch ends or when Kueue comes or goes."""
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while True:
            await self._crds_are_served(reconciler)
            workloads = reconciler.workloads
            watcher = Watcher(
                self._settings.watch_namespaces,
                workloads,
                on_job=lambda key: _call(loop, reconciler.queue.add, key),
                on_pool=lambda: _call(loop, reconciler.pools_changed),
            )
            begin = loop.time()
            watch = asyncio.create_task(watcher.run())
            self._watches = True
            try:
                while not watch.done() and reconciler.workloads == workloads:
                    await asyncio.wait({watch}, timeout=self._settings.sweep_seconds / 4)
            finally:
                watch.cancel()
                await asyncio.wait({watch})
                self._watches = False
            if watch.cancelled():
                continue
            self._metrics.watch_restarts.inc()
            pause = FIRST_PAUSE if loop.time() - begin > LAST_PAUSE else min(pause * 2, LAST_PAUSE)
            LOGGER.warning("the watch ended (%r) and begins anew in %.0f s", watch.exception(), pause)
            await asyncio.sleep(pause)

    @staticmethod
    async def _crds_are_served(reconciler: Reconciler) -> None:
        """A watch of what is not served yet would never begin."""
        while reconciler.swept_at is None:  # noqa: ASYNC110 - the first sweep lists the jobs, and so proves it
            await asyncio.sleep(0.05)

    def _is_ready(self, reconciler: Reconciler, lease: Lease) -> Any:
        def ready() -> str | None:
            if not self._listens:
                return "the progress server does not listen yet"
            if self._settings.leader_election and not lease.held:
                # Whoever waits for another's end is ready; a rollout would end with one that can never follow.
                return lease.trouble
            if reconciler.swept_at is None:
                return f"no {JOBS.plural} were listed yet"
            return None if self._watches else "no watch runs"

        return ready


def _tell_end(error: BaseException | None) -> None:
    """The Lease is lost now and then; whatever else ends the operator is a bug, and told with its traceback."""
    lost = error.subgroup(LeaseLostError) if isinstance(error, BaseExceptionGroup) else None
    if lost:
        LOGGER.error("the operator ends: %s", lost.exceptions[0])
    else:
        LOGGER.error("the operator ends", exc_info=error)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    """Call from the watching thread; at the very end the loop may be gone already."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *args)


async def _patiently(step: Any, what: str) -> None:
    """Do a first step that may meet an API server that is not there yet."""
    pause = FIRST_PAUSE
    while True:
        try:
            await step()
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            LOGGER.warning("%s: %s; again in %.0f s", what, error, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)
        else:
            return


if __name__ == "__main__":
    main()
