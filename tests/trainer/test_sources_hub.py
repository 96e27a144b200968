"""`hf://` by the real client (in processes of its own, it caches) against a server that speaks the hub's API."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strop_trainer.exit_codes import ExitCode
from tests.support.hub import COMMIT, Hub, Repository

FETCH = """
import json, sys
from pathlib import Path
from strop_trainer.errors import TrainerError
from strop_trainer.sources import hub
kind, source, revision, into = sys.argv[1:]
fetch = hub.fetch_model if kind == "model" else hub.fetch_file
try:
    found = fetch(source, revision or None, Path(into), Path(into).parent / "commits.json")
    print(json.dumps({"path": str(found), "imports_torch": "torch" in sys.modules}))
except TrainerError as error:
    print(json.dumps({"code": int(error.exit_code), "message": error.message}))
"""

MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"import os",
    "original/consolidated.pth": b"pickle",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    repositories = {
        "models/owner/open": Repository(MODEL),
        "models/owner/private": Repository(MODEL, private=True),
        "models/owner/gated": Repository(MODEL, gated=True),
        "datasets/owner/rows": Repository({"data/train.jsonl": b'{"messages": []}\n'}),
    }
    with Hub(repositories) as server:
        yield server


def fetch(
    hub: Hub, tmp_path: Path, kind: str, source: str, *, revision: str = "", token: str = ""
) -> dict[str, object]:
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {
        **theirs,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_ETAG_TIMEOUT": "2",
        "HF_HUB_DISABLE_XET": "1",
    }
    if token:
        environment["HF_TOKEN"] = token
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", FETCH, kind, source, revision, str(tmp_path / "fetched")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    found: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
    return found


def test_a_model_comes_without_pickle_and_code(hub: Hub, tmp_path: Path) -> None:
    found = fetch(hub, tmp_path, "model", "hf://owner/open")
    names = {path.name for path in Path(str(found["path"])).rglob("*")}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert found["imports_torch"] is False
    assert not any("pytorch_model.bin" in path or ".py" in path for _, path in hub.asked if "resolve" in path)


def test_a_model_that_is_there_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    first = fetch(hub, tmp_path, "model", "hf://owner/open", revision="main")
    hub.asked.clear()
    assert fetch(hub, tmp_path, "model", "hf://owner/open", revision="main") == first
    assert not any(method == "GET" and "resolve" in path for method, path in hub.asked)


def test_a_later_attempt_takes_the_commit_of_the_first_though_main_has_moved(hub: Hub, tmp_path: Path) -> None:
    model, rows = hub.repositories["models/owner/open"], hub.repositories["datasets/owner/rows"]
    first = fetch(hub, tmp_path, "model", "hf://owner/open")
    fetch(hub, tmp_path, "data", "hf://datasets/owner/rows/data/train.jsonl")
    model.move("a" * 40, MODEL | {"model.safetensors": b"others"})
    rows.move("b" * 40, {"data/train.jsonl": b"others", "data/more.jsonl": b"new"})
    hub.asked.clear()
    assert fetch(hub, tmp_path, "model", "hf://owner/open") == first
    assert (Path(str(first["path"])) / "model.safetensors").read_bytes() == b"weights"
    assert hub.asked == []  # nor is what is whole asked for again
    # Another file of the same repository is of the same commit.
    more = fetch(hub, tmp_path, "data", "hf://datasets/owner/rows/data/more.jsonl")
    assert more["code"] == ExitCode.MISSING_INPUT
    kept = {"hf://owner/open": COMMIT, "hf://datasets/owner/rows": COMMIT}
    assert json.loads((tmp_path / "commits.json").read_text()) == kept
    # A new job asks anew, and does not mix the files of two commits.
    (tmp_path / "commits.json").unlink()
    found = fetch(hub, tmp_path, "model", "hf://owner/open")
    assert found["path"] != first["path"]
    assert (Path(str(found["path"])) / "model.safetensors").read_bytes() == b"others"


def test_a_file_of_a_dataset(hub: Hub, tmp_path: Path) -> None:
    found = fetch(hub, tmp_path, "data", "hf://datasets/owner/rows/data/train.jsonl")
    assert Path(str(found["path"])).read_bytes() == b'{"messages": []}\n'


def test_a_token_opens_what_is_private_or_gated(hub: Hub, tmp_path: Path) -> None:
    for name in ("private", "gated"):
        assert "path" in fetch(hub, tmp_path, "model", f"hf://owner/{name}", token=hub.token)


@pytest.mark.parametrize(
    ("kind", "source", "revision", "token", "code", "words"),
    [
        ("model", "hf://owner/private", "", "", ExitCode.NO_PERMISSION, "HF_TOKEN is not set"),
        ("model", "hf://owner/gated", "", "", ExitCode.NO_PERMISSION, "HF_TOKEN is not set"),
        ("model", "hf://owner/gated", "", "hf_wrong", ExitCode.NO_PERMISSION, "HF_TOKEN is refused"),
        ("model", "hf://owner/nowhere", "", "hf_right", ExitCode.MISSING_INPUT, "not on the hub"),
        ("model", "hf://owner/open", "v9", "", ExitCode.MISSING_INPUT, "no revision 'v9'"),
        ("data", "hf://datasets/owner/rows/none.jsonl", "", "", ExitCode.MISSING_INPUT, "no such file"),
        ("data", "hf://datasets/owner/rows/../x", "", "", ExitCode.BAD_CONFIGURATION, "expected hf://datasets"),
        ("model", "hf://owner", "", "", ExitCode.BAD_CONFIGURATION, "expected hf://owner/name"),
    ],
)
def test_what_cannot_be_fetched(  # noqa: PLR0917 - a table
    hub: Hub, tmp_path: Path, kind: str, source: str, revision: str, token: str, code: int, words: str
) -> None:
    found = fetch(hub, tmp_path, kind, source, revision=revision, token=token)
    assert found["code"] == code, found
    assert words in str(found["message"])
    assert source in str(found["message"])


def test_a_hub_that_fails_or_is_gone_is_worth_another_attempt(hub: Hub, tmp_path: Path) -> None:
    hub.broken = 503
    for kind, source in (("model", "hf://owner/open"), ("data", "hf://datasets/owner/rows/data/train.jsonl")):
        found = fetch(hub, tmp_path, kind, source)
        assert found["code"] == ExitCode.SOURCE_UNAVAILABLE, found
    hub.url = "http://127.0.0.1:9"
    found = fetch(hub, tmp_path, "model", "hf://owner/open")
    assert found["code"] == ExitCode.SOURCE_UNAVAILABLE, found
    assert "does not answer" in str(found["message"])
