"""`strop run` with the real trainer: published, verified, interrupted and taken up again."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import config_map, write
from tests.support.data import chat_rows
from tests.support.models import tiny_llama
from tests.support.planning import manifest_of

pytestmark = pytest.mark.trainer

TRAINING = {"maxLength": 128, "precision": "fp32", "effectiveBatchSize": 4, "learningRate": 0.001}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tiny_llama(home / "volumes" / "models" / "tiny")
    return home


def job_file(folder: Path, name: str, **training: Any) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in chat_rows(40))
    manifest = manifest_of(
        name,
        model__source="pvc://models/tiny",
        training=TRAINING | training,
        evaluation={"generateRows": 1, "maxNewTokens": 2},
        checkpoint={"everySteps": 1},
        output={"onnx": {"precisions": ["fp32"]}},
    )
    return write(folder / f"{name}.yaml", manifest, config_map(**{"train__jsonl": lines}))


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(home), "STROP_VOLUMES": str(home / "volumes")}


def strop(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "strop.cli", *map(str, arguments)]
    return subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def published(home: Path) -> Path:
    """A manifest that was run once."""
    file = job_file(home, "bot", maxSteps=2)
    answer = strop(home, "run", file)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert f"published {home}/volumes/strop-models/team-a/bot/1" in answer.stdout
    return file


@pytest.mark.usefixtures("published")
def test_a_job_is_published_and_is_as_published_until_it_is_changed(home: Path) -> None:
    registry = home / "volumes" / "strop-models"
    version = registry / "team-a/bot/1"
    assert (version / "onnx").is_dir()

    listed = strop(home, "models")
    assert "latest" in listed.stdout
    assert "team-a/bot/1" in listed.stdout

    for path in (registry, registry / "team-a", registry / "team-a/bot", version):
        verified = strop(home, "verify", path)
        assert (verified.returncode, verified.stderr) == (0, ""), path
        assert "as published" in verified.stdout

    card = version / "README.md"
    card.chmod(0o644)
    card.write_text("changed", encoding="utf-8")
    changed = strop(home, "verify", version)
    assert changed.returncode == 65
    assert "README.md" in changed.stderr
    assert "Traceback" not in changed.stderr


def test_verify_of_what_is_no_version_says_so(home: Path, tmp_path: Path) -> None:
    answer = strop(home, "verify", tmp_path)
    assert answer.returncode == 65
    assert "not a published version" in answer.stderr
    assert strop(home, "verify", tmp_path / "none").returncode == 66


def test_an_interrupted_run_goes_on_from_its_checkpoint(home: Path, tmp_path: Path) -> None:
    file = job_file(tmp_path, "resumed", maxSteps=8)
    command = [sys.executable, "-u", "-m", "strop.cli", "run", str(file)]
    with subprocess.Popen(command, env=environment(home), stdout=subprocess.PIPE, text=True) as child:
        killer = threading.Timer(300, child.kill)
        killer.start()
        assert child.stdout
        for line in child.stdout:
            if "step 2/8" in line:
                child.send_signal(signal.SIGTERM)
        code = child.wait()
        killer.cancel()
    assert code == 75
    answer = strop(home, "run", file)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "step 1/8" not in answer.stdout
    assert "step 8/8" in answer.stdout
    assert (home / "volumes/strop-models/team-a/resumed/1").is_dir()


def test_running_a_finished_job_again_publishes_the_next_version(home: Path, published: Path) -> None:
    answer = strop(home, "run", published)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert (home / "volumes/strop-models/team-a/bot/2").is_dir()
    assert "step 1/2" in answer.stdout
