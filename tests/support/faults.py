"""A proxy in front of an API server that numbers writes and breaks one: before it arrives, after it, or not at all."""

import asyncio
import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import aiohttp
import yaml
from aiohttp import web

from tests.support.apiserver import ApiServer

WRITES = frozenset({"POST", "PATCH", "PUT", "DELETE"})
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "content-encoding"})

Fault = Literal["refuse", "drop-before", "drop-after"]
"""refuse: 500 in the server's stead. drop-before: the connection breaks, the server hears nothing. drop-after: the
server does it, and the connection breaks before its answer is out."""


@dataclass
class Call:
    """One write that came by."""

    number: int
    method: str
    path: str
    name: str = ""
    """The object that it is about, of those that have a plan."""
    fault: Fault | None = None

    def __str__(self) -> str:
        return f"{self.number}. {self.method} {self.path}" + (f" [{self.fault}]" if self.fault else "")


@dataclass
class Plan:
    """Which write about one object, and about what belongs to it, breaks, and how."""

    fault: Fault | None = None
    number: int = 0
    """The write that breaks; 0: every one."""
    on_break: Callable[[], None] = field(default=lambda: None)
    """Called when one breaks."""


class FaultProxy:
    """Forwards everything, watches included.

    Attributes:
        calls: The writes that came by, in order.
        plans: Name of an object → what breaks. A name must not be the beginning of another, but for digits.
        down: Whether the server seems gone: every request breaks.
        denied: Paths that hold this text are answered with 403.
    """

    def __init__(self, server: ApiServer) -> None:
        self.calls: list[Call] = []
        self.plans: dict[str, Plan] = {}
        self.down = False
        self.denied = ""
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def kubeconfig(self, original: Path) -> Path:
        """Returns a kubeconfig with the same credentials that leads here."""
        document = yaml.safe_load(original.read_text())
        for cluster in document["clusters"]:
            cluster["cluster"] = {"server": f"http://127.0.0.1:{self._port}"}
        path = original.with_name(f"proxied-{self._port}-{original.name}")
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(document))
        return path

    def numbered(self, name: str) -> list[Call]:
        """Returns the writes about an object that has a plan."""
        return [call for call in self.calls if call.name == name]

    def reset(self) -> None:
        """Forgets all calls and plans."""
        self.calls, self.plans, self.down, self.denied = [], {}, False, ""

    async def _start(self) -> None:
        context = ssl.create_default_context(cafile=str(self._server.certificate_authority))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=("Content-Type", "User-Agent", "Accept-Encoding"),
        )
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        await self._session.close()
        await self._runner.cleanup()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _count(self, request: web.Request, body: bytes) -> Call | None:
        if request.method not in WRITES:
            return None
        call = Call(0, request.method, request.path)
        text = request.path + " " + body.decode()
        for name, plan in self.plans.items():
            if re.search(rf"\b{name}(?![0-9])", text) and "/leases/" not in request.path:
                call.name, call.number = name, 1 + len(self.numbered(name))
                if plan.fault and plan.number in (0, call.number):
                    call.fault = plan.fault
        self.calls.append(call)
        return call

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        call = self._count(request, body)
        fault = call.fault if call else None
        if self.denied and self.denied in request.path:
            return web.json_response({"kind": "Status", "code": 403, "reason": "Forbidden"}, status=403)
        if self.down or fault == "drop-before":
            return self._break(request, call)
        if fault == "refuse":
            status = {
                "kind": "Status",
                "status": "Failure",
                "reason": "InternalError",
                "message": "broken",
                "code": 500,
            }
            return web.json_response(status, status=500)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        url = self._server.url + request.raw_path
        async with self._session.request(request.method, url, headers=headers, data=body or None) as answer:
            if fault == "drop-after":
                await answer.read()
                return self._break(request, call)
            try:
                return await self._pass_on(request, answer)
            except ConnectionResetError:
                return web.Response(status=502)

    async def _pass_on(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        if "Content-Encoding" in answer.headers:
            kept["Content-Encoding"] = answer.headers["Content-Encoding"]
        response = web.StreamResponse(status=answer.status, headers=kept)
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            if self.down:
                return self._break(request, None)
            await response.write(chunk)
        await response.write_eof()
        return response

    def _break(self, request: web.Request, call: Call | None) -> web.StreamResponse:
        if call and call.name:
            self.plans[call.name].on_break()
        if request.transport:
            request.transport.abort()
        return web.Response(status=502)
