"""Watching, by kopf: each event only names the job to look at. This is the one file that knows kopf.

It runs in a thread with a loop of its own, which is thrown away with all its tasks when one of them ends, as they do
on errors that pass by themselves. A watch that ended is begun anew; what it missed, the sweep finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

import kopf

from strop.api import names
from strop.cluster.client import load_configuration
from strop.cluster.key import Key
from strop.cluster.resources import BATCH_JOBS, JOBS, PODS, POOLS, Resource

LOGGER = logging.getLogger(__name__)

Fingerprint = tuple[object, ...]


class Watcher:
    """One run of kopf."""

    def __init__(
        self,
        namespaces: tuple[str, ...],
        workloads: Resource | None,
        on_job: Callable[[Key], None],
        on_pool: Callable[[], None],
    ) -> None:
        """Prepare a run.

        Args:
            namespaces: Those to watch; empty: all.
            workloads: Kueue's Workloads, where the cluster has them.
            on_job: Called with the job that an event is about, from the watching thread.
            on_pool: Called when a pool changed, from the watching thread.
        """
        self._namespaces = namespaces
        self._workloads = workloads
        self._on_job = on_job
        self._on_pool = on_pool
        self._seen: dict[str, Fingerprint] = {}
        self._stop = threading.Event()

    async def run(self) -> None:
        """Watch until cancelled, or until something in kopf ends.

        Raises:
            Exception: whatever ended kopf.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if not ended.done():
                ended.set_exception(error) if error else ended.set_result(None)

        def report(error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # our own loop may be gone by then
                loop.call_soon_threadsafe(settle, error)

        thread = threading.Thread(target=lambda: asyncio.run(self._operate(report)), name="kopf", daemon=True)
        thread.start()
        try:
            await ended
        finally:
            self._stop.set()

    async def _operate(self, report: Callable[[BaseException | None], None]) -> None:
        """Run kopf's tasks, and tell as soon as one of them ends.

        `kopf.operator` would wait for the others first; one that retries a request waits for credentials then, for
        ever, since the task that renews them is gone already.
        """
        error: BaseException | None = None
        try:
            tasks = await self._spawn()
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            error = next((task.exception() for task in ended if not task.cancelled() and task.exception()), None)
        except Exception as raised:  # noqa: BLE001 - handed on to the waiting task
            error = raised
        finally:
            report(error)

    async def _spawn(self) -> Collection[asyncio.Task[Any]]:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.watching.chunk_size = 500
        settings.watching.server_timeout = 600
        settings.queueing.idle_timeout = 1.0
        # A watch that fails for longer ends, and is begun anew with patience of our own, and seen in a metric.
        settings.networking.error_backoffs = (1, 2, 4)
        settings.process.ultimate_exiting_timeout = None
        settings.watching.label_selectors[PODS.plural] = names.LABEL_JOB
        settings.watching.label_selectors[BATCH_JOBS.group, BATCH_JOBS.plural] = names.LABEL_JOB
        return await kopf.spawn_tasks(
            registry=self._registry(),
            settings=settings,
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(_login)
        kopf.on.event(*_address(JOBS), registry=registry)(self._job_event)
        kopf.on.event(*_address(POOLS), registry=registry)(self._pool_event)
        kopf.on.event(*_address(BATCH_JOBS), registry=registry)(self._child_event)
        kopf.on.event(PODS.version, PODS.plural, registry=registry)(self._child_event)
        if self._workloads:
            kopf.on.event(*_address(self._workloads), registry=registry)(self._workload_event)
        return registry

    async def _job_event(self, event: Mapping[str, Any], **_: Any) -> None:
        body = event["object"]
        metadata = body["metadata"]
        if event["type"] == "DELETED":
            self._seen.pop(metadata["uid"], None)
        else:
            mark = _fingerprint(body)
            if self._seen.get(metadata["uid"]) == mark:
                return
            self._seen[metadata["uid"]] = mark
        self._on_job(Key(metadata["namespace"], metadata["name"]))

    async def _child_event(self, event: Mapping[str, Any], **_: Any) -> None:
        metadata = event["object"]["metadata"]
        if job := (metadata.get("labels") or {}).get(names.LABEL_JOB):
            self._on_job(Key(metadata["namespace"], job))

    async def _workload_event(self, event: Mapping[str, Any], **_: Any) -> None:
        metadata = event["object"]["metadata"]
        for owner in metadata.get("ownerReferences") or []:
            if owner["kind"] == "Job":
                self._on_job(Key(metadata["namespace"], owner["name"]))

    async def _pool_event(self, **_: Any) -> None:
        self._on_pool()


def _fingerprint(body: Mapping[str, Any]) -> Fingerprint:
    """What a look depends on: our own writes of status and progress ask for none, a change of stage does."""
    metadata, status = body["metadata"], body.get("status") or {}
    return (
        metadata.get("generation"),
        metadata.get("deletionTimestamp"),
        tuple(metadata.get("finalizers") or ()),
        (status.get("progress") or {}).get("stage"),
        status.get("completionTime"),
        bool(status.get("conditions")),
    )


def _address(resource: Resource) -> tuple[str, str, str]:
    return resource.group, resource.version, resource.plural


async def _login(**_: Any) -> kopf.ConnectionInfo:
    """Give kopf the very credentials of our own client, read anew each time it asks."""
    configuration = await load_configuration()
    # The client's loaders disagree on the scheme's case: "Bearer" from a kubeconfig, "bearer" in a pod.
    bearer = (await configuration.auth_settings()).get("BearerToken", {}).get("value") or ""
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        token=bearer.partition(" ")[2] or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )
