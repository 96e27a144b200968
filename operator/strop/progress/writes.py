"""Writing progress into the status of jobs: the latest report of each, now and then, and never too many at once."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

import aiohttp

from strop.api.finetunejob import Progress
from strop.api.names import API_VERSION
from strop.cluster.client import CONFLICT, NOT_FOUND, UNPROCESSABLE, ApiError, Client
from strop.cluster.resources import JOBS
from strop.progress.identity import Reporter
from strop.progress.metrics import Metrics
from strop.progress.reports import merged

LOGGER = logging.getLogger(__name__)

MANAGER: Final = "strop-progress"
"""A field manager of its own: what it writes and what the operator decides never touch."""
WRITE_SECONDS: Final = 0.1
"""Between two writes of all jobs: ten a second at most."""
FORGET_SECONDS: Final = 900.0
TICK_SECONDS: Final = 0.25


@dataclass
class _Entry:
    """What is known of one job's progress."""

    reporter: Reporter
    progress: Progress
    written: Progress | None
    due: float
    heard: float


class ProgressWriter:
    """Keeps the latest report of each job until it is written."""

    def __init__(self, client: Client, metrics: Metrics, seconds: float) -> None:
        """Prepare the writer.

        Args:
            client: The API server.
            metrics: Where it is counted.
            seconds: Shortest time between two writes of one job.
        """
        self._client = client
        self._metrics = metrics
        self._seconds = seconds
        self._entries: dict[str, _Entry] = {}

    async def report(self, reporter: Reporter, progress: Progress) -> None:
        """Take a report in; it is written soon. A change of stage is written at once.

        Raises:
            ApiError: what is known of a job that is new here could not be read.
        """
        now = self._time()
        entry = self._entries.get(reporter.job_uid)
        if entry is None:
            written = await self._read(reporter)
            # Another replica may have heard this trainer before.
            entry = self._entries.setdefault(
                reporter.job_uid, _Entry(reporter, written or progress, written, due=now, heard=now)
            )
        of_same_pod = entry.reporter.pod_uid == reporter.pod_uid
        if progress.stage != entry.progress.stage:
            entry.due = min(entry.due, now)
        entry.progress = merged(entry.progress, progress) if of_same_pod else progress
        entry.reporter, entry.heard = reporter, now

    async def write_forever(self) -> None:
        """Write what is due, oldest first."""
        while True:
            now = self._time()
            due = [entry for entry in self._entries.values() if entry.due <= now and _differs(entry)]
            for entry in sorted(due, key=lambda entry: entry.due):
                await self._write(entry)
                await asyncio.sleep(WRITE_SECONDS)
            for uid in [uid for uid, entry in self._entries.items() if now - entry.heard > FORGET_SECONDS]:
                del self._entries[uid]
            await asyncio.sleep(TICK_SECONDS)

    async def _read(self, reporter: Reporter) -> Progress | None:
        job = await self._client.get(JOBS, reporter.job, reporter.namespace)
        found = ((job or {}).get("status") or {}).get("progress")
        return Progress.model_validate(found) if found else None

    async def _write(self, entry: _Entry) -> None:
        reporter, progress = entry.reporter, entry.progress
        entry.due = self._time() + self._seconds
        manifest = {
            "apiVersion": API_VERSION,
            "kind": "FineTuneJob",
            "metadata": {"name": reporter.job, "namespace": reporter.namespace, "uid": reporter.job_uid},
            "status": {"progress": progress.model_dump(by_alias=True, exclude_none=True)},
        }
        try:
            # Not forced: the display of a job that is complete is the operator's.
            await self._client.apply(manifest, subresource="status", manager=MANAGER, force=False)
        except ApiError as error:
            if error.status in (NOT_FOUND, CONFLICT, UNPROCESSABLE):
                entry.written = progress
                self._metrics.writes.labels("dropped").inc()
                return
            self._failed(reporter, error)
        except (aiohttp.ClientError, TimeoutError) as error:
            self._failed(reporter, error)
        else:
            entry.written = progress
            self._metrics.writes.labels("written").inc()

    def _failed(self, reporter: Reporter, error: Exception) -> None:
        self._metrics.writes.labels("failed").inc()
        LOGGER.warning("progress of %s/%s is not written yet: %s", reporter.namespace, reporter.job, error)

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()


def _differs(entry: _Entry) -> bool:
    """A report that says nothing new but its time is not worth a write."""
    if entry.written is None:
        return True
    return entry.progress.model_copy(update={"updated_at": None}) != entry.written.model_copy(
        update={"updated_at": None}
    )
