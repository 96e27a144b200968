"""`https://`: one file whose sha256 the job knows."""

from __future__ import annotations

import errno
import hashlib
import http.client
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from strop_trainer.addresses import shown
from strop_trainer.context import say
from strop_trainer.errors import (
    FULL,
    TrainerError,
    bad_configuration,
    bad_data,
    broken_work_volume,
    missing_input,
    no_permission,
    source_unavailable,
)

ATTEMPTS = 5
TIMEOUT_SECONDS = 60
CHUNK = 1 << 20
_DISK = FULL | {errno.EROFS, errno.EIO}
"""Errors that no network has, but a write has, which names no file."""


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """A redirect must not leave https."""

    def redirect_request(  # noqa: PLR0917 - the signature of urllib
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != "https":
            fp.close()
            raise bad_configuration(f"{shown(req.full_url)}: redirected to {shown(newurl)}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, sha256: str | None, into: Path, *, pause: Callable[[float], object] | None = None) -> Path:
    """Fetch a file, going on where a broken connection stopped, and return its path once its hash is right.

    Args:
        url: https address.
        sha256: hex digest that the file must have.
        into: folder for it; a file that is there already with this hash is kept.
        pause: waits the seconds between attempts; for tests.

    Raises:
        TrainerError: bad address, refused, not found, wrong hash, or no answer in several attempts.
    """
    parts, where = urlsplit(url), shown(url)
    if parts.scheme != "https" or not parts.netloc:
        raise bad_configuration(f"{where}: unknown kind of source, expected https://…")
    if not sha256:
        raise bad_configuration(f"{where}: sha256 is required for an https:// source")
    suffix = "".join(Path(parts.path).suffixes[-2:])
    name = sha256[:32] + (suffix if re.fullmatch(r"[.\w]{0,16}", suffix) else "")
    target, part = into / name, into / f".{name}.part"
    if target.is_file():
        return target
    into.mkdir(parents=True, exist_ok=True)
    wait = pause or threading.Event().wait
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _append_rest(url, part)
            break
        except urllib.error.HTTPError as error:
            problem = _refused(where, error)
        except (OSError, http.client.HTTPException) as error:
            # The numbers of errors of TLS are its own.
            if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
                if error.errno in _DISK:
                    raise broken_work_volume(error) from None
                if error.errno is not None and error.filename is not None:
                    raise  # the disk, not the network
            problem = source_unavailable(f"{where}: {getattr(error, 'reason', error) or type(error).__name__}")
        if attempt == ATTEMPTS or problem.reason != "SourceUnavailable":
            raise problem
        say(f"  {problem.message}; attempt {attempt + 1} of {ATTEMPTS} in {2**attempt} s")
        wait(2**attempt)
    found = _sha256(part)
    if found != sha256.lower():
        part.unlink()
        raise bad_data(f"{where}: sha256 is {found}, expected {sha256}")
    part.rename(target)
    return target


def _append_rest(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 - https, checked
    opener = urllib.request.build_opener(_HttpsOnly)
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            go_on = answer.status == http.client.PARTIAL_CONTENT
            expected = answer.headers.get("Content-Length")
            written = 0
            with part.open("ab" if go_on else "wb") as file:
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    written += len(chunk)
            if expected is not None and written < int(expected):
                raise http.client.IncompleteRead(b"", int(expected) - written)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        # All of it was there already, or the file has changed: the hash decides.


def _refused(where: str, error: urllib.error.HTTPError) -> TrainerError:
    error.close()
    # What urllib says of a redirect that it does not follow has the address in it.
    reason = str(error.reason).replace(error.filename, shown(error.filename))
    if error.code in {401, 403}:
        return no_permission(f"{where}: refused with {error.code} {reason}")
    if error.code in {404, 410}:
        return missing_input(f"{where}: {error.code} {reason}")
    if error.code in {408, 425, 429} or error.code >= http.client.INTERNAL_SERVER_ERROR:
        return source_unavailable(f"{where}: {error.code} {reason}")
    return bad_configuration(f"{where}: {error.code} {reason}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
