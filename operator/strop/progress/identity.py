"""Who reports: a token says which pod, and the pod's owners say which job. Nobody reports for another's job."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from typing import Any, Final, NamedTuple

from strop.api.names import TOKEN_AUDIENCE
from strop.cluster.client import Client
from strop.cluster.resources import BATCH_JOBS, PODS, TOKEN_REVIEWS, Resource
from strop.desired.metadata import Manifest

VALID_SECONDS: Final = 60.0
"""How long an answer is believed, good or bad."""
REMEMBERED: Final = 4096
REVIEWS: Final = 16
"""Reviews at the same time: a flood of bad tokens must not become a flood on the API server."""
TOKEN_LIMIT: Final = 4096
POD_NAME: Final = "authentication.kubernetes.io/pod-name"
POD_UID: Final = "authentication.kubernetes.io/pod-uid"
ACCOUNT_PREFIX: Final = "system:serviceaccount:"


class Reporter(NamedTuple):
    """A pod, and the job that it trains."""

    namespace: str
    pod_uid: str
    job: str
    job_uid: str


class Identities:
    """Turns tokens into reporters, and remembers for a while."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: OrderedDict[str, tuple[float, Reporter | None]] = OrderedDict()
        self._reviews = asyncio.Semaphore(REVIEWS)

    async def of(self, token: str) -> Reporter | None:
        """Return whose token it is; None where it is of no trainer pod.

        Raises:
            ApiError: the API server refused to tell.
        """
        if not token or len(token) > TOKEN_LIMIT:
            return None
        key = hashlib.sha256(token.encode()).hexdigest()
        expires, reporter = self._known.get(key, (0.0, None))
        if time.monotonic() < expires:
            return reporter
        async with self._reviews:
            reporter = await self._review(token)
        self._known[key] = (time.monotonic() + VALID_SECONDS, reporter)
        self._known.move_to_end(key)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return reporter

    async def _review(self, token: str) -> Reporter | None:
        review = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "metadata": {},
            "spec": {"token": token, "audiences": [TOKEN_AUDIENCE]},
        }
        status = (await self._client.create(review)).get("status") or {}
        if not status.get("authenticated") or TOKEN_AUDIENCE not in (status.get("audiences") or []):
            return None
        user = status.get("user") or {}
        account = str(user.get("username", ""))
        pod_name, pod_uid = _extra(user, POD_NAME), _extra(user, POD_UID)
        if not account.startswith(ACCOUNT_PREFIX) or not pod_name or not pod_uid:
            return None
        namespace = account.removeprefix(ACCOUNT_PREFIX).partition(":")[0]
        return await self._of_pod(namespace, pod_name, pod_uid)

    async def _of_pod(self, namespace: str, name: str, uid: str) -> Reporter | None:
        pod = await self._client.get(PODS, name, namespace)
        if pod is None or pod["metadata"]["uid"] != uid:
            return None
        owner = _controller(pod, BATCH_JOBS)
        child = await self._client.get(BATCH_JOBS, owner["name"], namespace) if owner else None
        if owner is None or child is None or child["metadata"]["uid"] != owner["uid"]:
            return None
        job = _controller(child, None)
        return Reporter(namespace, uid, job["name"], job["uid"]) if job else None


def _extra(user: dict[str, Any], name: str) -> str:
    values = (user.get("extra") or {}).get(name) or [""]
    return str(values[0])


def _controller(child: Manifest, resource: Resource | None) -> dict[str, Any] | None:
    kind = resource.kind if resource else "FineTuneJob"
    owners = child["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller") and owner["kind"] == kind), None)
