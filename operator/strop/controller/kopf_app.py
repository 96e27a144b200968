"""Watching, by kopf: each event only names the job to look at. This is the one file that knows kopf.

It runs in a thread with a loop of its own, since kopf cancels every task of its loop when it ends, and it ends on
errors that pass by themselves. The `watch` that ended is begun anew; what it missed, the sweep finds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import kopf

from strop.api import names
from strop.controller.client import load_configuration
from strop.controller.queue import Key
from strop.controller.resources import BATCH_JOBS, JOBS, PODS, POOLS, Resource

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
        """Watch until cancelled, or until kopf gives up.

        Raises:
            Exception: whatever ended kopf.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if not ended.done():
                ended.set_exception(error) if error else ended.set_result(None)

        def work() -> None:
            error: BaseException | None = None
            try:
                asyncio.run(self._operate())
            except BaseException as raised:  # noqa: BLE001 - handed on to the waiting task
                error = raised
            loop.call_soon_threadsafe(settle, error)

        threading.Thread(target=work, name="kopf", daemon=True).start()
        try:
            await ended
        finally:
            self._stop.set()

    async def _operate(self) -> None:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.watching.chunk_size = 500
        settings.watching.server_timeout = 600
        settings.queueing.idle_timeout = 1.0
        settings.process.ultimate_exiting_timeout = None
        settings.watching.label_selectors[PODS.plural] = names.LABEL_JOB
        settings.watching.label_selectors[BATCH_JOBS.group, BATCH_JOBS.plural] = names.LABEL_JOB
        await kopf.operator(
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
    _, _, token = ((await configuration.auth_settings()).get("BearerToken", {}).get("value") or "").partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )
