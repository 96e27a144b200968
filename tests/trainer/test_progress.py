import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from strop_trainer.progress import Part, Progress, trainer_status


class Server:
    """Receives reports, as slowly and as badly as a test wants."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], Any]] = []
        self.status = 200
        self.go_on = threading.Event()
        self.go_on.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.received.append((dict(self.headers), json.loads(body)))
                outer.go_on.wait(20)
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1/progress"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.go_on.set()
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def environment(server: Server, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "token").write_text("secret\n")
    return {
        "KUBEFLOW_TRAINER_SERVER_URL": server.url,
        "KUBEFLOW_TRAINER_SERVER_TOKEN": str(tmp_path / "token"),
    }


def wait_for(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_the_body_is_what_stock_transformers_sends() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    body = trainer_status(
        {"stage": "train", "loss": 1.5, "eval_loss": float("nan"), "none": None, "current_step": 3},
        percent=101,
        remaining_seconds=2.9,
        now=now,
    )
    assert body == {
        "trainerStatus": {
            "lastUpdatedTime": "2026-01-02T00:00:00+00:00",
            "progressPercentage": 100,
            "estimatedRemainingSeconds": 2,
            "metrics": [
                {"name": "stage", "value": "train"},
                {"name": "loss", "value": "1.5"},
                {"name": "current_step", "value": "3"},
            ],
        }
    }
    assert set(trainer_status({}, percent=None, remaining_seconds=None, now=now)["trainerStatus"]) == {
        "lastUpdatedTime",
        "metrics",
    }


def test_our_metrics_have_the_names_of_the_stock_callback() -> None:
    source = Path(__import__("transformers").integrations.integration_utils.__file__).read_text()
    callback = source[source.index("class KubeflowCallback") :]
    for name in ("current_step", "total_steps", "current_epoch", "progressPercentage", "estimatedRemainingSeconds"):
        assert f'"{name}"' in callback


def test_reports_carry_the_token_and_add_up(server: Server, environment: dict[str, str]) -> None:
    progress = Progress(environment, interval=0.01)
    progress.report({"stage": "train", "loss": 2.0}, percent=10, remaining_seconds=30, urgent=True)
    wait_for(lambda: server.received)
    progress.report({"loss": 1.0}, percent=20)
    progress.close()
    headers, body = server.received[-1]
    assert headers["Authorization"] == "Bearer secret"
    assert body["trainerStatus"]["progressPercentage"] == 20
    assert body["trainerStatus"]["metrics"] == [{"name": "stage", "value": "train"}, {"name": "loss", "value": "1.0"}]


def test_reports_that_wait_are_replaced_by_newer_ones(server: Server, environment: dict[str, str]) -> None:
    server.go_on.clear()
    progress = Progress(environment, interval=0.01)
    progress.report({"current_step": 0}, percent=1)
    wait_for(lambda: server.received)  # it is on its way, and the server holds it
    begin = time.monotonic()
    for step in range(1, 10_000):
        progress.report({"current_step": step}, percent=1)
    assert time.monotonic() - begin < 2, "reporting must not wait for the server"
    server.go_on.set()
    progress.close()
    assert len(server.received) in {2, 3}  # the one after it, and that of the end
    assert server.received[-1][1]["trainerStatus"]["metrics"][-1] == {"name": "current_step", "value": "9999"}


def test_a_server_that_refuses_or_is_gone_harms_nothing(
    server: Server, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    server.status = 500
    progress = Progress(environment, interval=0.01)
    for step in range(3):
        progress.report({"current_step": step}, urgent=True)
        wait_for(lambda: len(server.received) > step)  # noqa: B023 - used at once
    server.status = 200
    progress.report({"current_step": 9}, urgent=True)
    progress.close()
    assert server.received[-1][1]["trainerStatus"]["metrics"] == [{"name": "current_step", "value": "9"}]
    assert capsys.readouterr().out.count("progress is not reported") == 1
    gone = Progress({**environment, "KUBEFLOW_TRAINER_SERVER_URL": "http://127.0.0.1:9/"}, interval=0.01)
    gone.report({"current_step": 1})
    gone.close()


def test_a_server_that_hangs_does_not_keep_the_trainer(server: Server, environment: dict[str, str]) -> None:
    server.go_on.clear()
    progress = Progress(environment, interval=0.01)
    progress.report({"current_step": 1}, urgent=True)
    wait_for(lambda: server.received)
    begin = time.monotonic()
    progress.close(timeout=0.2)
    assert time.monotonic() - begin < 2


def test_without_a_server_nothing_happens() -> None:
    before = threading.active_count()
    progress = Progress({})
    progress.report({"loss": 1.0}, urgent=True)
    progress.close()
    assert threading.active_count() == before


def test_regular_reports_keep_their_distance(server: Server, environment: dict[str, str]) -> None:
    progress = Progress(environment, interval=30)
    progress.report({"current_step": 1})
    wait_for(lambda: server.received)
    progress.report({"current_step": 2})
    time.sleep(0.2)
    assert len(server.received) == 1
    progress.report({"stage": "evaluate"}, urgent=True)
    wait_for(lambda: len(server.received) == 2)
    progress.close()


def test_long_work_before_the_first_step_tells_how_far_it_is(
    server: Server, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("strop_trainer.progress.seconds_now", lambda: now[0])
    progress = Progress(environment, interval=0.01)
    progress.report({"stage": "train"})

    def shown() -> list[str | None]:
        found = [{m["name"]: m["value"] for m in body["trainerStatus"]["metrics"]} for _, body in server.received]
        return [each.get("display") for each in found]

    part = Part(progress, "reference", 200, "pairs")
    wait_for(lambda: "reference 0%" in shown())
    for seconds in (3, 3, 3):
        now[0] += seconds
        part.add(50)
    wait_for(lambda: "reference 75%" in shown())
    assert capsys.readouterr().out == "  100 of 200 pairs\n"  # six seconds after the first
    part.end()
    wait_for(lambda: shown()[-1] is None)
    progress.close()
