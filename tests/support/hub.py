"""A server on the loopback that speaks as much of the Hugging Face hub's API as downloads need."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """Files of one repository, by revision `main` and by commit."""

    files: dict[str, bytes]
    private: bool = False
    gated: bool = False
    commit: str = COMMIT
    """Of `files`."""
    earlier: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Commit → files."""

    def move(self, commit: str, files: dict[str, bytes]) -> None:
        """Let `main` be another commit."""
        self.earlier[self.commit] = self.files
        self.commit, self.files = commit, files

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return commit and files of a revision, if there is one."""
        if revision in {"main", self.commit}:
            return self.commit, self.files
        return (revision, self.earlier[revision]) if revision in self.earlier else None


@dataclass
class Hub:
    """The server; `repositories` has keys such as `models/owner/name` and `datasets/owner/name`."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    token: str = "hf_right"
    broken: int = 0
    """Answers this status to everything while it is not 0."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each request."""

    def __enter__(self) -> Self:
        """Start."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub._answer(self)

            def do_GET(self) -> None:
                hub._answer(self)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub._answer(self)

            def log_message(self, *_args: object) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._http.shutdown()
        self._http.server_close()

    def _answer(self, request: Any) -> None:
        parts = urlsplit(request.path)
        path = unquote(parts.path)
        self.asked.append((request.command, path))
        if self.broken:
            _send(request, self.broken, b"", {})
            return
        api = path.startswith("/api/")
        segments = path.removeprefix("/api").strip("/").split("/")
        if not api and segments[0] != "datasets":
            segments.insert(0, "models")
        name, rest = "/".join(segments[:3]), segments[3:]
        repository = self.repositories.get(name)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None or (repository.private and token != self.token):
            status = 404 if token == self.token else 401  # as the hub: it does not tell which names exist
            _send(request, status, b"Repository not found", {"X-Error-Code": "RepoNotFound"})
        elif repository.gated and token != self.token and not api:
            _send(request, 403, b"Access to it is restricted", {"X-Error-Code": "GatedRepo"})
        elif api:
            self._answer_api(request, name, repository, rest, parse_qs(parts.query))
        else:
            self._answer_file(request, repository, rest)

    def _answer_api(
        self, request: Any, name: str, repository: Repository, rest: list[str], query: dict[str, list[str]]
    ) -> None:
        del query
        revision = rest[1] if len(rest) > 1 else "main"
        there = repository.at(revision)
        if there is None:
            _send(request, 404, b"Invalid rev id", {"X-Error-Code": "RevisionNotFound"})
        elif rest[:1] == ["tree"]:
            tree = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}  # noqa: S324
                for path, content in there[1].items()
            ]
            _send(request, 200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        else:
            info = {
                "id": name.split("/", 1)[1],
                "sha": there[0],
                "private": repository.private,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [{"rfilename": path} for path in there[1]],
            }
            _send(request, 200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _answer_file(self, request: Any, repository: Repository, rest: list[str]) -> None:
        there = repository.at(rest[1]) if rest[:1] == ["resolve"] else None
        if there is None:
            _send(request, 404, b"Invalid rev id", {"X-Error-Code": "RevisionNotFound"})
            return
        commit, files = there
        content = files.get("/".join(rest[2:]))
        if content is None:
            _send(request, 404, b"Entry not found", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        _send(request, 200, content, headers)


def _send(request: Any, status: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
