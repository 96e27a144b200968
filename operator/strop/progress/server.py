"""The progress server: takes what trainers report, from nobody but the pods of the job that it is about."""

from __future__ import annotations

import logging
import ssl
from typing import Final

import aiohttp
from aiohttp import web

from strop.cluster.client import ApiError, Client
from strop.cluster.moment import Present
from strop.progress.identity import Identities
from strop.progress.metrics import Metrics
from strop.progress.reports import read_report
from strop.progress.writes import ProgressWriter

LOGGER = logging.getLogger(__name__)

ROUTE: Final = "/v1alpha1/namespaces/{namespace}/finetunejobs/{name}/progress"
BODY_LIMIT: Final = 64 * 1024
BEARER: Final = "Bearer "


class ProgressServer:
    """The server of the TLS port."""

    def __init__(
        self, client: Client, writer: ProgressWriter, metrics: Metrics, context: ssl.SSLContext, port: int
    ) -> None:
        """Prepare the server.

        Args:
            client: The API server.
            writer: Takes what is accepted.
            metrics: Where it is counted.
            context: TLS; its certificate may change while it runs.
            port: To listen on; 0 picks one.
        """
        self._identities = Identities(client)
        self._writer = writer
        self._metrics = metrics
        self._context = context
        self._port = port
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        return int(self._runner.addresses[0][1]) if self._runner else self._port

    async def start(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_post(ROUTE, self._post)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=30)
        await self._runner.setup()
        await web.TCPSite(self._runner, port=self._port, ssl_context=self._context).start()

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _post(self, request: web.Request) -> web.Response:
        try:
            return await self._accept(request)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            LOGGER.warning("a report could not be checked: %s", error)
            return web.Response(status=503, text="the API server is out of reach\n")

    async def _accept(self, request: web.Request) -> web.Response:
        header = request.headers.get("Authorization", "")
        reporter = await self._identities.of(header.removeprefix(BEARER)) if header.startswith(BEARER) else None
        if reporter is None:
            return self._refuse(401, "unauthenticated", "the token is not of a trainer pod\n")
        if (reporter.namespace, reporter.job) != (request.match_info["namespace"], request.match_info["name"]):
            return self._refuse(403, "forbidden", f"this pod trains {reporter.namespace}/{reporter.job}\n")
        try:
            progress = read_report(await request.read(), Present.now().text)
        except ValueError as error:
            return self._refuse(400, "invalid", f"not a report: {error}\n")
        await self._writer.report(reporter, progress)
        self._metrics.posts.labels("accepted").inc()
        return web.json_response({})

    def _refuse(self, status: int, result: str, words: str) -> web.Response:
        self._metrics.posts.labels(result).inc()
        return web.Response(status=status, text=words)
