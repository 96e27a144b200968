"""The program that `helm test` runs."""

import importlib.util
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.helm import CHART, only, render

SCRIPT = CHART / "files" / "check.py"
KINDS = ["computepools", "finetunejobs", "modelversions"]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("chart_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ASK_FOR_SECONDS", 0.0)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    return module


class Answers(BaseHTTPRequestHandler):
    """An operator at /readyz and an API server at /group."""

    ready = True
    starting = 0
    """Requests that are turned away before the first one is answered."""
    served = tuple(KINDS)

    def do_GET(self) -> None:
        if self.starting:
            type(self).starting -= 1
            self.send_error(503)
            return
        if self.path == "/readyz" and not self.ready:
            self.send_error(503)
            return
        body = json.dumps({"resources": [{"name": name} for name in [*self.served, "finetunejobs/status"]]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def answers(check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Answers]]:
    handler = type("Handler", (Answers,), {})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(check, "API_GROUP", f"{address}/group")
        monkeypatch.setattr(check, "ACCOUNT", None)
        monkeypatch.setenv("READY_URL", f"{address}/readyz")
        monkeypatch.setenv("STROP_KINDS", ",".join(KINDS))
        yield handler
        server.shutdown()
        thread.join()


def test_all_is_well(check: ModuleType, answers: type[Answers], capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main() == 0
    assert "ready" in capsys.readouterr().out


def test_operator_is_not_ready(check: ModuleType, answers: type[Answers], capsys: pytest.CaptureFixture[str]) -> None:
    answers.ready = False
    assert check.main() == 1
    assert "503" in capsys.readouterr().err


def test_operator_that_is_only_just_there_is_waited_for(
    check: ModuleType, answers: type[Answers], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "ASK_FOR_SECONDS", 30.0)
    answers.starting = 3
    assert check.main() == 0
    assert answers.starting == 0
    assert capsys.readouterr().err.count("503") == 1


def test_waiting_ends_before_the_pod_is_ended(check: ModuleType) -> None:
    source = SCRIPT.read_text()
    (seconds,) = re.findall(r"^ASK_FOR_SECONDS = (.*)$", source, flags=re.MULTILINE)
    deadline = only(render(), "Pod")["spec"]["activeDeadlineSeconds"]
    assert 60 <= float(seconds) + 2 * check.TIMEOUT_SECONDS < deadline


def test_a_kind_is_missing(check: ModuleType, answers: type[Answers], capsys: pytest.CaptureFixture[str]) -> None:
    answers.served = ("computepools",)
    assert check.main() == 1
    assert "finetunejobs, modelversions" in capsys.readouterr().err


def test_operator_cannot_be_reached(
    check: ModuleType, answers: type[Answers], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("READY_URL", "http://127.0.0.1:1/readyz")
    assert check.main() == 1
    assert "refused" in capsys.readouterr().err


def test_pod_runs_the_script_as_it_stands_and_asks_for_the_chart_s_kinds() -> None:
    manifests = render()
    (container,) = only(manifests, "Pod")["spec"]["containers"]
    assert container["args"] == [SCRIPT.read_text()]
    definitions = [each for each in manifests if each["kind"] == "CustomResourceDefinition"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["STROP_KINDS"].split(",") == sorted(each["spec"]["names"]["plural"] for each in definitions)
    assert environment["READY_URL"] == "http://strop-metrics.strop-system.svc:8080/readyz"
