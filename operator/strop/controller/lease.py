"""Leader election by a Lease: one operator at a time decides. A leader that may have lost it ends at once.

The client library's own election compares wall clocks of different machines and never gives the Lease back.
Times of others are not trusted here: a Lease is free when it has not changed for its whole duration, by our own clock.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import aiohttp

from strop.cluster.client import ApiError, Client
from strop.cluster.moment import Present
from strop.cluster.resources import LEASES
from strop.desired.metadata import Manifest

LOGGER = logging.getLogger(__name__)

CALM: Final = (ApiError, aiohttp.ClientError, TimeoutError)
"""What is tried again, as long as the Lease is valid."""


class LeaseLostError(Exception):
    """Another operator may be working now."""


class Lease:
    """The Lease, as one candidate sees it."""

    def __init__(self, client: Client, namespace: str, name: str, identity: str, seconds: float) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._seconds = seconds
        self._seen: tuple[str, float] = ("", 0.0)
        self.held = False
        self.trouble: str | None = None
        """Why the last try told nothing of who holds it; None where it did."""

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        LOGGER.info("waiting for Lease %s/%s", self._namespace, self._name)
        while not self.held:
            self.held = await self._try(self._seconds / 3)
            if not self.held:
                await asyncio.sleep(self._seconds / 3)
        LOGGER.info("%s holds Lease %s/%s", self._identity, self._namespace, self._name)

    async def hold(self) -> None:
        """Renew the Lease for as long as it can be.

        Raises:
            LeaseLostError: it was taken, or could not be renewed in time.
        """
        pause = self._seconds / 3
        # Ours alone until a third of its time is left: nobody else may take it before its end.
        deadline = self._time() + self._seconds * 2 / 3
        while True:
            await asyncio.sleep(pause)
            begin = self._time()
            if await self._try(max(deadline - begin, 0.0)):
                pause, deadline = self._seconds / 3, begin + self._seconds * 2 / 3
            elif self._time() >= deadline:
                self.held = False
                raise LeaseLostError(f"Lease {self._namespace}/{self._name} could not be renewed in time")
            else:
                pause = self._seconds / 15

    async def release(self) -> None:
        """Give the Lease back, so that the next operator need not wait for its end."""
        if not self.held:
            return
        self.held = False
        try:
            found = await self._client.get(LEASES, self._name, self._namespace)
            if found and found["spec"].get("holderIdentity") == self._identity:
                await self._write(found, holder="", seconds=1)
        except CALM as error:
            LOGGER.warning("the Lease is not given back, and runs out by itself: %s", error)

    async def _try(self, patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                found = await self._client.get(LEASES, self._name, self._namespace)
                if found is not None and not self._is_free(found):
                    self.trouble = None
                    return False
                await self._write(found, self._identity, round(self._seconds))
        except CALM as error:
            self.trouble = f"Lease {self._namespace}/{self._name}: {str(error) or 'no answer in time'}"
            LOGGER.warning("%s", self.trouble)
            return False
        self.trouble = None
        return True

    def _is_free(self, found: Manifest) -> bool:
        holder = found["spec"].get("holderIdentity")
        if not holder or holder == self._identity:
            return True
        if self.held:
            raise LeaseLostError(f"Lease {self._namespace}/{self._name} is held by {holder} now")
        version, since = self._seen
        if version != found["metadata"]["resourceVersion"]:
            self._seen = (found["metadata"]["resourceVersion"], self._time())
            return False
        return self._time() - since > float(found["spec"].get("leaseDurationSeconds") or self._seconds)

    async def _write(self, found: Manifest | None, holder: str, seconds: int) -> None:
        """By server-side apply, so that the right to make the Lease can be bound to its name.

        A field manager of its own makes two candidates that make it at once collide.
        """
        spec = (found or {}).get("spec", {})
        now = Present.now().micro
        ours = spec.get("holderIdentity") == self._identity
        guard = {"resourceVersion": found["metadata"]["resourceVersion"]} if found else {}
        manifest = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace, **guard},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": seconds,
                "acquireTime": spec.get("acquireTime") if ours else now,
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (not ours),
            },
        }
        await self._client.apply(manifest, manager=f"strop-{self._identity}"[:128], force=found is not None)

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()
