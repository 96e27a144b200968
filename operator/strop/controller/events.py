"""Events about a job: what is said again is counted, not repeated."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from typing import Final

import aiohttp

from strop.api.names import GROUP
from strop.cluster.client import CONFLICT, MERGE, NOT_FOUND, ApiError, Client
from strop.cluster.moment import Present
from strop.cluster.resources import EVENTS
from strop.decide.decision import EventNote
from strop.desired.metadata import Manifest

LOGGER = logging.getLogger(__name__)

NOTE_LIMIT: Final = 1024
"""Bytes of UTF-8, though the API server speaks of characters where it refuses more."""
REMEMBERED: Final = 4096
"""Events whose count is kept in memory; of older ones the count starts anew."""


class EventRecorder:
    """Writes Events, at best effort: losing one never holds up a job."""

    def __init__(self, client: Client, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._counts: OrderedDict[str, int] = OrderedDict()

    async def record(self, job: Manifest, notes: tuple[EventNote, ...]) -> None:
        """Write Events about a job."""
        for note in notes:
            try:
                await self._record(job, note)
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                LOGGER.warning("Event %s of %s is lost: %s", note.reason, job["metadata"]["name"], error)

    async def _record(self, job: Manifest, note: EventNote) -> None:
        metadata = job["metadata"]
        digest = hashlib.sha256("\0".join([metadata["uid"], note.reason, note.note]).encode()).hexdigest()[:16]
        name = f"{metadata['name']}.{digest}"
        key = f"{metadata['namespace']}/{name}"
        now = Present.now().micro
        count = self._counts.get(key, 0) + 1
        if count > 1 and not await self._count_on(metadata["namespace"], name, count, now):
            count = 1
        if count == 1:
            try:
                await self._client.create(self._event(job, note, name, now))
            except ApiError as error:
                if error.status != CONFLICT:
                    raise
                count = 2
                await self._count_on(metadata["namespace"], name, count, now)
        self._counts[key] = count
        self._counts.move_to_end(key)
        if len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)

    async def _count_on(self, namespace: str, name: str, count: int, now: str) -> bool:
        """Return False where the Event is gone: the API server forgets one that was not counted on for an hour."""
        series = {"series": {"count": count, "lastObservedTime": now}}
        try:
            await self._client.request("PATCH", EVENTS.path(namespace, name), body=series, content_type=MERGE)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            return False
        return True

    def _event(self, job: Manifest, note: EventNote, name: str, now: str) -> Manifest:
        metadata = job["metadata"]
        return {
            "apiVersion": EVENTS.api_version,
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "eventTime": now,
            "reportingController": f"{GROUP}/operator",
            "reportingInstance": self._instance,
            "type": note.type,
            "reason": note.reason,
            "action": note.reason,
            "note": _cut(note.note),
            "regarding": {
                "apiVersion": job["apiVersion"],
                "kind": job["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
        }


def _cut(note: str) -> str:
    whole, mark = note.encode(), "…"
    if len(whole) <= NOTE_LIMIT:
        return note
    return whole[: NOTE_LIMIT - len(mark.encode())].decode(errors="ignore") + mark
