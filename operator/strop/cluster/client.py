"""Calls to the API server: plain JSON over the official asynchronous client, which brings TLS and credentials.

Its generated models are left out on purpose: they cost memory, and drop fields that they do not know.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Literal
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.incluster_config import SERVICE_HOST_ENV_NAME, load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config

from strop.api.names import FIELD_MANAGER
from strop.cluster.resources import Resource, resource_of
from strop.desired.metadata import Manifest

TIMEOUT_SECONDS: Final = 30.0
PAGE: Final = 500
"""Objects of one page of a list."""

NOT_FOUND: Final = 404
CONFLICT: Final = 409
UNPROCESSABLE: Final = 422

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"


class ApiError(Exception):
    """The API server answered with an error.

    Attributes:
        status: HTTP status.
        reason: CamelCase word of the API server, such as AlreadyExists.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


async def load_configuration() -> Configuration:
    """Return credentials: the pod's own in a cluster, else those of KUBECONFIG."""
    configuration = Configuration()
    if SERVICE_HOST_ENV_NAME in os.environ and not os.environ.get("KUBECONFIG"):
        load_incluster_config(client_configuration=configuration)
    else:
        await load_kube_config(client_configuration=configuration)
    return configuration


class Client:
    """Verbs of the API server on JSON documents."""

    def __init__(self, configuration: Configuration) -> None:
        self._api = ApiClient(configuration)
        self._timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def request(
        self,
        method: Literal["GET", "POST", "PATCH", "DELETE"],
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Any:
        """Make one call and return the answer.

        Raises:
            ApiError: the API server refused.
            aiohttp.ClientError: it could not be reached.
            TimeoutError: it did not answer in time.
        """
        headers = {"Accept": "application/json", "Content-Type": content_type}
        url = self._api.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        answer = await self._api.call_api(method, url, headers, body, _request_timeout=self._timeout)
        content = await answer.read()
        if answer.status >= 400:  # noqa: PLR2004 - HTTP
            raise _error(answer.status, answer.reason or "", content)
        return json.loads(content)

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Manifest | None:
        """Return an object; None where there is none."""
        try:
            found: Manifest = await self.request("GET", resource.path(namespace, name))
        except ApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return {"apiVersion": resource.api_version, "kind": resource.kind, **found}

    async def list(
        self, resource: Resource, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> list[Manifest]:
        """Return all objects that the selectors match; without a namespace, of all of them."""
        return [item async for item in self.pages(resource, namespace, labels=labels, fields=fields)]

    async def pages(
        self, resource: Resource, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> AsyncIterator[Manifest]:
        """Yield objects page by page, so that a long list is never held as a whole."""
        selectors = {"labelSelector": labels, "fieldSelector": fields}
        query = {"limit": str(PAGE), **{key: value for key, value in selectors.items() if value}}
        while True:
            page = await self.request("GET", resource.path(namespace), query=query)
            for item in page.get("items") or []:
                yield {"apiVersion": resource.api_version, "kind": resource.kind, **item}
            proceed = page.get("metadata", {}).get("continue")
            if not proceed:
                return
            query["continue"] = proceed

    async def create(self, manifest: Manifest) -> Manifest:
        """Make an object that is not there yet.

        Raises:
            ApiError: 409 AlreadyExists where it is.
        """
        resource = resource_of(manifest)
        path = resource.path(manifest["metadata"].get("namespace"))
        created: Manifest = await self.request("POST", path, query={"fieldManager": FIELD_MANAGER}, body=manifest)
        return created

    async def apply(
        self, manifest: Manifest, *, subresource: str | None = None, manager: str = FIELD_MANAGER, force: bool = True
    ) -> Manifest:
        """Make an object what its manifest says, by server-side apply.

        Args:
            manifest: With a uid, only the object of this uid is changed, and none is made.
            subresource: Such as status.
            manager: Field manager.
            force: Whether to take fields over that another manager has.
        """
        metadata = manifest["metadata"]
        path = resource_of(manifest).path(metadata.get("namespace"), metadata["name"], subresource)
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        applied: Manifest = await self.request("PATCH", path, query=query, body=manifest, content_type=APPLY)
        return applied

    async def patch(self, target: Manifest, body: Manifest) -> Manifest:
        """Change the object that was read, if nobody has changed it since."""
        metadata = target["metadata"]
        guard = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        guarded = {**body, "metadata": {**body.get("metadata", {}), **guard}}
        path = resource_of(target).path(metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": FIELD_MANAGER}
        patched: Manifest = await self.request("PATCH", path, query=query, body=guarded, content_type=MERGE)
        return patched

    async def delete(self, target: Manifest, propagation: str = "Background") -> None:
        """Delete the object that was read, if nobody has changed it since; one that is gone is gone."""
        metadata = target["metadata"]
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
        }
        try:
            await self.request(
                "DELETE", resource_of(target).path(metadata.get("namespace"), metadata["name"]), body=options
            )
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise


def _error(status: int, reason: str, content: bytes) -> ApiError:
    try:
        answer = json.loads(content)
        return ApiError(status, answer.get("reason") or reason, answer.get("message") or "")
    except (ValueError, AttributeError):
        return ApiError(status, reason, content[:200].decode(errors="replace"))
