import errno
import hashlib
import io
import os
import ssl
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from strop_trainer import sources
from strop_trainer.context import Settings
from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import DataFile, ModelSource
from strop_trainer.sources import web
from strop_trainer.sources.web import ATTEMPTS, download
from tests.support.https import FileServer

BODY = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    (tmp_path / "server").mkdir()
    with FileServer(tmp_path / "server", {"/rows.jsonl": BODY}) as found:
        monkeypatch.setenv("SSL_CERT_FILE", str(found.certificate))
        yield found


def fetch(server: FileServer, tmp_path: Path, path: str = "/rows.jsonl", sha256: str = SHA256) -> Path:
    return download(server.url + path, sha256, tmp_path / "into", pause=lambda _seconds: None)


def failing(server: FileServer, tmp_path: Path, path: str = "/rows.jsonl", sha256: str = SHA256) -> TrainerError:
    with pytest.raises(TrainerError) as caught:
        fetch(server, tmp_path, path, sha256)
    return caught.value


def test_a_file_comes_once(server: FileServer, tmp_path: Path) -> None:
    found = fetch(server, tmp_path, "/rows.jsonl?signature=secret")
    assert found.read_bytes() == BODY
    assert found.suffix == ".jsonl"
    assert fetch(server, tmp_path) == found
    assert len(server.asked) == 1
    assert [path.name for path in found.parent.iterdir()] == [found.name]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_goes_on_where_it_stopped(server: FileServer, tmp_path: Path, ranges: bool) -> None:
    server.cut_after, server.ranges = [700_000, 100_000], ranges
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert server.asked[1] == ("/rows.jsonl", "bytes=700000-")
    assert len(server.asked) == 3


def test_what_passes_is_tried_again_and_not_for_ever(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [503, 429, 500]
    assert fetch(server, tmp_path).read_bytes() == BODY
    server.asked.clear()
    server.statuses = [503] * 50
    error = failing(server, tmp_path, "/other")
    assert error.exit_code is ExitCode.SOURCE_UNAVAILABLE
    assert len(server.asked) == ATTEMPTS


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, ExitCode.NO_PERMISSION),
        (403, ExitCode.NO_PERMISSION),
        (404, ExitCode.MISSING_INPUT),
        (410, ExitCode.MISSING_INPUT),
        (400, ExitCode.BAD_CONFIGURATION),
    ],
)
def test_what_stays_is_not_tried_again(server: FileServer, tmp_path: Path, status: int, code: ExitCode) -> None:
    server.statuses = [status]
    error = failing(server, tmp_path, "/rows.jsonl?signature=secret")
    assert error.exit_code is code
    assert str(status) in error.message
    assert "secret" not in error.message
    assert len(server.asked) == 1


def test_another_content_than_was_meant_is_refused_and_not_kept(server: FileServer, tmp_path: Path) -> None:
    error = failing(server, tmp_path, sha256="0" * 64)
    assert error.exit_code is ExitCode.BAD_DATA
    assert f"sha256 is {SHA256}, expected {'0' * 64}" in error.message
    assert list((tmp_path / "into").iterdir()) == []


def test_a_redirect_stays_on_https(server: FileServer, tmp_path: Path) -> None:
    server.redirects = {
        "/a": server.url + "/rows.jsonl",
        "/b": "http://127.0.0.1:9/rows.jsonl?signature=secret",
        "/c": "file:///etc/passwd?signature=secret",
    }
    assert fetch(server, tmp_path, "/a").read_bytes() == BODY
    for path in ("/b", "/c"):
        error = failing(server, tmp_path, f"{path}?signature=secret", "1" * 64)
        assert "secret" not in error.message
        assert error.exit_code is ExitCode.BAD_CONFIGURATION
        assert "which is not https" in error.message or "is not allowed" in error.message


def test_an_unknown_certificate_is_not_trusted(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    error = failing(server, tmp_path)
    assert error.exit_code is ExitCode.SOURCE_UNAVAILABLE
    assert "CERTIFICATE_VERIFY_FAILED" in error.message


def test_a_server_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(TrainerError) as caught:
        download("https://127.0.0.1:9/x", SHA256, tmp_path, pause=lambda _seconds: None)
    assert caught.value.exit_code is ExitCode.SOURCE_UNAVAILABLE


def test_a_full_work_volume_is_no_silent_server(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / f".{SHA256[:32]}.jsonl.part").symlink_to("/dev/full")
    error = failing(server, tmp_path)
    assert error.exit_code is ExitCode.BAD_CONFIGURATION
    assert error.message.startswith("the work volume is full (")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EDQUOT, "the work volume is full (Disk quota exceeded)"),
        (errno.EROFS, "the work volume cannot be written (Read-only file system)"),
        (errno.EIO, "the work volume cannot be written (Input/output error)"),
    ],
)
def test_a_disk_that_fails_is_not_tried_again(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    class Failing(io.BytesIO):
        def write(self, _chunk: object) -> int:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "open", lambda *_args, **_named: Failing())
    error = failing(server, tmp_path)
    assert error.exit_code is ExitCode.BAD_CONFIGURATION
    assert words in error.message
    assert len(server.asked) == 1


def test_an_error_of_tls_with_the_number_of_a_disk_error_is_the_network(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def cut_off(_url: str, _part: Path) -> None:
        tried.append(1)
        raise ssl.SSLSyscallError(errno.EIO, "Some I/O error occurred")

    monkeypatch.setattr(web, "_append_rest", cut_off)
    assert failing(server, tmp_path).exit_code is ExitCode.SOURCE_UNAVAILABLE
    assert len(tried) == ATTEMPTS


def test_https_and_a_hash_are_required(tmp_path: Path) -> None:
    for url, sha256, words in (
        ("http://127.0.0.1/x", SHA256, "expected https://"),
        ("s3://bucket/x", SHA256, "unknown kind of source"),
        ("https://127.0.0.1/x", None, "sha256 is required"),
    ):
        with pytest.raises(TrainerError, match=words) as caught:
            download(url, sha256, tmp_path)
        assert caught.value.exit_code is ExitCode.BAD_CONFIGURATION


def test_models_and_rows_by_https(server: FileServer, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("m/config.json")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"{}"))
    server.files["/m.tar.gz"] = packed.getvalue()
    work = tmp_path / "work"
    settings = Settings(tmp_path, tmp_path, tmp_path, tmp_path, work, "uid")
    sha256 = hashlib.sha256(packed.getvalue()).hexdigest()
    folder = sources.fetch_model(ModelSource(source=f"{server.url}/m.tar.gz?secret", sha256=sha256), settings)
    assert (folder / "config.json").read_text() == "{}"
    (rows,) = sources.fetch_files(DataFile(source=f"{server.url}/rows.jsonl?secret", sha256=SHA256), settings)
    assert rows.name == f"{server.url}/rows.jsonl"
    assert rows.path.read_bytes() == BODY


def test_a_wrong_file_is_told_without_the_signature_of_its_address(server: FileServer, tmp_path: Path) -> None:
    server.files |= {"/rows.zip": BODY, "/m.tar.gz": BODY}
    settings = Settings(tmp_path, tmp_path, tmp_path, tmp_path, tmp_path / "work", "uid")
    for path, fetch_it in (
        ("/rows.zip", lambda source: sources.fetch_files(DataFile(source=source, sha256=SHA256), settings)),
        ("/m.tar.gz", lambda source: sources.fetch_model(ModelSource(source=source, sha256=SHA256), settings)),
    ):
        with pytest.raises(TrainerError) as caught:
            fetch_it(f"{server.url}{path}?signature=secret")
        assert f"{server.url}{path}: " in caught.value.message
        assert "secret" not in caught.value.message
    for url, sha256 in (("s3://bucket/x?signature=secret", SHA256), ("https://user:secret@127.0.0.1/x?secret", None)):
        with pytest.raises(TrainerError) as caught:
            download(url, sha256, tmp_path)
        assert "secret" not in caught.value.message
