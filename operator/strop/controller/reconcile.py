"""The loop: workers take keys, look, decide and act; a sweep finds what events did not tell."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

import aiohttp

from strop.api.finetunejob import FineTuneJobStatus
from strop.api.names import Phase
from strop.cluster.client import CONFLICT, NOT_FOUND, ApiError, Client
from strop.cluster.key import Key
from strop.cluster.moment import Present
from strop.cluster.resources import JOBS, KUEUE_GROUP, Resource, workloads
from strop.controller.act import act
from strop.controller.events import EventRecorder
from strop.controller.observe import observe
from strop.controller.queue import KeyedQueue
from strop.controller.settings import Settings
from strop.decide.decide import decide
from strop.desired.installation import Installation
from strop.desired.metadata import Manifest
from strop.planning.inputs import PlanSettings
from strop.progress.metrics import Metrics

LOGGER = logging.getLogger(__name__)

ENDED: Final = frozenset({Phase.COMPLETE, Phase.FAILED})


class Reconciler:
    """Brings what is there to what is asked for, job by job."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        metrics: Metrics,
        authority: Callable[[], str],
    ) -> None:
        """Prepare the loop; nothing runs yet.

        Args:
            client: The API server.
            settings: The operator's configuration.
            metrics: Where it is counted.
            authority: Returns the PEM certificates that trainers check the progress server by.
        """
        self.queue = KeyedQueue()
        self.workloads: Resource | None = None
        self.swept_at: float | None = None
        self._client = client
        self._settings = settings
        self._metrics = metrics
        self._authority = authority
        self._events = EventRecorder(client, settings.pod_name)
        self._plan_settings = PlanSettings(image=settings.trainer_image)
        self._phases: dict[Key, str] = {}
        metrics.observe_queue(self.queue.depth, self._phases)

    def pools_changed(self) -> None:
        """Look again at jobs that no pool could take, and at those whose look may have read the pools before."""
        for key, phase in list(self._phases.items()):
            if phase == Phase.INVALID:
                self.queue.add(key)
        for key in self.queue.taken():
            self.queue.add(key)

    async def work(self) -> None:
        """Take keys for ever, one at a time."""
        while True:
            await self._look(await self.queue.take())

    async def _look(self, key: Key) -> None:
        begin, outcome = time.perf_counter(), "ok"
        try:
            again = await self.reconcile(key)
        except ApiError as error:
            outcome = "conflict" if error.status in (CONFLICT, NOT_FOUND) else "error"
            level = logging.INFO if outcome == "conflict" else logging.WARNING
            LOGGER.log(level, "%s: %s; again in %.1f s", key, error, self.queue.retry(key))
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = "unreachable"
            words = f"{type(error).__name__}: {error}"
            LOGGER.warning(
                "%s: the API server is out of reach (%s); again in %.1f s", key, words, self.queue.retry(key)
            )
        except Exception:
            outcome = "bug"
            LOGGER.exception("%s: unexpected; again in %.1f s", key, self.queue.retry(key))
        else:
            self.queue.finish(key)
            if again is not None:
                self.queue.add_after(key, again)
        self._metrics.looks.labels(outcome).observe(time.perf_counter() - begin)

    async def reconcile(self, key: Key) -> float | None:
        """Look at a job once, and return the seconds until it needs another look, if it needs one.

        Raises:
            ApiError: the API server refused a read or a write.
        """
        observed = await observe(self._client, key, self._plan_settings, self.workloads)
        if observed is None:
            self._phases.pop(key, None)
            return None
        decision = decide(observed, Present.now(), self._installation())
        await act(self._client, self._events, observed.job, decision)
        self._note(key, observed.job, decision.status)
        return decision.requeue_after

    def _note(self, key: Key, job: Manifest, status: FineTuneJobStatus | None) -> None:
        before = (job.get("status") or {}).get("phase")
        phase = (status.phase if status else before) or Phase.PENDING
        self._phases[key] = phase
        if phase != before:
            LOGGER.info("%s: %s (%s)", key, phase, status.message if status else "")

    async def sweep_forever(self) -> None:
        """Sweep now and then, for ever; a sweep that fails is tried again soon."""
        pause = 1.0
        while True:
            try:
                await self.sweep()
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                LOGGER.warning("sweep failed: %s; again in %.0f s", error, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 60.0)
            else:
                pause = 1.0
                await asyncio.sleep(self._settings.sweep_seconds)

    async def sweep(self) -> None:
        """Ask for a look at every job that has something left to happen.

        Raises:
            ApiError: the API server refused.
        """
        self.workloads = await find_workloads(self._client)
        found: set[Key] = set()
        for namespace in self._settings.watch_namespaces or (None,):
            async for job in self._client.pages(JOBS, namespace):
                key = Key(job["metadata"]["namespace"], job["metadata"]["name"])
                found.add(key)
                self._phases[key] = (job.get("status") or {}).get("phase") or Phase.PENDING
                if not _is_settled(job):
                    self.queue.add(key)
        for gone in self._phases.keys() - found:
            self.queue.add(gone)
        self.swept_at = time.monotonic()
        self._metrics.sweeps.inc()

    def _installation(self) -> Installation:
        settings = self._settings
        return Installation(
            namespace=settings.namespace,
            trainer_image=settings.trainer_image,
            progress_url=settings.progress_url,
            progress_ca=self._authority(),
            progress_port=settings.progress_port,
            pull_policy=settings.trainer_pull_policy,
            pull_secrets=settings.trainer_pull_secrets,
            operator_labels=settings.operator_labels,
            network_policy=settings.network_policy,
        )


def _is_settled(job: Manifest) -> bool:
    """A job that has ended and is not to be deleted: its last look was taken when it ended or when we began."""
    phase = (job.get("status") or {}).get("phase")
    leaves = "deletionTimestamp" in job["metadata"] or job["spec"].get("ttlSecondsAfterFinished") is not None
    return phase in ENDED and not leaves


async def find_workloads(client: Client) -> Resource | None:
    """Return Kueue's Workloads in the version that the cluster prefers; None where there is no Kueue.

    Raises:
        ApiError: the API server refused to tell.
    """
    try:
        group = await client.request("GET", f"/apis/{KUEUE_GROUP}")
    except ApiError as error:
        if error.status == NOT_FOUND:
            return None
        raise
    return workloads(group["preferredVersion"]["version"])
