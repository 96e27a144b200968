"""`strop run` as a shell meets it: what the trainer is given, and how its end is handed on."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from strop.cli import machine
from strop_trainer.plan import load_plan
from tests.support.cli import Strop, config_map, job_file, rows, write
from tests.support.jobs import termination
from tests.support.planning import manifest_of

# A trainer that shows what it was given, and ends as told.
FAKE_TRAINER = """
import json, os, pathlib, signal, sys, threading
work = pathlib.Path(os.environ["STROP_WORK"])
(work / "seen.json").write_text(json.dumps({k: v for k, v in os.environ.items() if k.startswith("STROP_")}))
mode = os.environ.get("FAKE_MODE", "")
def stop(*_):
    (work / "checkpoint").write_text("saved")
    (work / "signals").open("a").write("x")
    sys.exit(75)
if mode == "wait":
    signal.signal(signal.SIGTERM, stop)
    print("training", flush=True)
    threading.Event().wait(60)
if mode == "crash":
    os.kill(os.getpid(), signal.SIGKILL)
if "LAST_WORD" in os.environ:
    pathlib.Path(os.environ["STROP_TERMINATION_LOG"]).write_text(os.environ["LAST_WORD"])
sys.exit(int(mode or 0))
"""


@pytest.fixture
def fake_trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    package = tmp_path / "fake" / "strop_trainer"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FAKE_TRAINER, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    (tmp_path / "home/.local/share/strop/volumes/base-models").mkdir(parents=True)
    return tmp_path / "home/.local/share/strop"


def states(data: Path) -> list[Path]:
    return sorted(data.glob("work/team-a/*/state"))


def test_run_gives_the_trainer_its_environment(strop: Strop, tmp_path: Path, fake_trainer: Path, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "66")
    answer = strop("run", job_file(tmp_path))
    assert answer.code == 66
    (state,) = states(fake_trainer)
    seen = json.loads((state / "seen.json").read_text())
    assert load_plan(Path(seen["STROP_PLAN"]).read_bytes()).placement.job == "job"
    assert (Path(seen["STROP_CONFIGMAPS"]) / "rows/train.jsonl").read_text() == rows()
    assert Path(seen["STROP_REGISTRY"]) == fake_trainer / "volumes/strop-models/team-a"
    assert "the trainer ended with 66 and no last word" in answer.out


@pytest.mark.parametrize("lines", [0, 1])
def test_run_goes_on_and_ends_with_the_trainers_code_without_a_reader(
    tmp_path: Path, fake_trainer: Path, lines: int
) -> None:
    """As in `strop run job.yaml | head -1`: it once ended with 0, whatever had become of the job."""
    fake = os.environ["PYTHONPATH"]  # for the trainer alone
    script = f"import os, strop.cli.main; os.environ['PYTHONPATH'] = {fake!r}; strop.cli.main.main()"
    command = [sys.executable, "-c", script, "run", str(job_file(tmp_path))]
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "FAKE_MODE": "66", "PYTHONPATH": ""}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=tmp_path) as running:
        assert running.stdout is not None
        for _ in range(lines):
            running.stdout.readline()
        running.stdout.close()
        assert running.wait(60) == 66
    assert len(states(fake_trainer)) == 1


def test_run_shows_what_was_published_and_forgets_its_work(
    strop: Strop, tmp_path: Path, fake_trainer: Path, monkeypatch
) -> None:
    monkeypatch.setenv("LAST_WORD", termination().dump())
    answer = strop("run", job_file(tmp_path))
    assert answer.code == 0
    assert "exact_match" in answer.out
    assert f"published {fake_trainer}/volumes/strop-models/team-a/support-bot/1" in answer.out
    (state,) = states(fake_trainer)
    assert list(state.iterdir()) == []


@pytest.mark.parametrize("command", ["plan", "run"])
def test_accelerators_that_are_not_here_are_told(
    strop: Strop, tmp_path: Path, fake_trainer: Path, monkeypatch, command: str
) -> None:
    monkeypatch.setattr(machine, "nvidia_accelerator", lambda: None)
    monkeypatch.setenv("LAST_WORD", termination().dump())
    answer = strop(command, job_file(tmp_path, compute={"resources": {"accelerators": 2}}))
    assert answer.code == 0
    assert answer.err == (
        "note: team-a/job: spec.compute.resources.accelerators: found 2, but no ComputePool was given and this machine "
        "has none: planned for CPUs; give the pool with --pools FILE\n"
    )


def test_run_shows_why_it_failed(strop: Strop, tmp_path: Path, fake_trainer: Path, monkeypatch) -> None:
    word = {"stage": "check", "reason": "BadData", "message": "rows line 3: [bold] is no JSON"}
    monkeypatch.setenv("LAST_WORD", json.dumps(word))
    monkeypatch.setenv("FAKE_MODE", "65")
    answer = strop("run", job_file(tmp_path))
    assert answer.code == 65
    assert "BadData in check: rows line 3: [bold] is no JSON (exit 65)" in answer.out


def test_run_passes_a_killed_trainer_on_as_a_shell_would(
    strop: Strop, tmp_path: Path, fake_trainer: Path, monkeypatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "crash")
    assert strop("run", job_file(tmp_path)).code == 128 + signal.SIGKILL


def test_run_stops_at_the_first_job_that_fails(strop: Strop, tmp_path: Path, fake_trainer: Path, monkeypatch) -> None:
    file = write(tmp_path / "jobs.yaml", manifest_of("one"), manifest_of("two"), config_map())
    monkeypatch.setenv("FAKE_MODE", "70")
    assert strop("run", file).code == 70
    assert [state.parent.name.rpartition("-")[0] for state in states(fake_trainer)] == ["one"]
    assert strop("run", file, "--work", tmp_path / "w").code == 64


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_trainer_once_and_the_next_run_goes_on(
    tmp_path: Path, fake_trainer: Path, number: signal.Signals
) -> None:
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "FAKE_MODE": "wait"}
    # The fake stands for the child's trainer alone: this process needs the real package.
    fake = environment.pop("PYTHONPATH")
    code = f"import os; from strop.cli.main import main; os.environ['PYTHONPATH'] = {fake!r}; main()"
    file = job_file(tmp_path)
    command = [sys.executable, "-c", code, "run", str(file)]
    printed = []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path
    ) as child:
        killer = threading.Timer(60, child.kill)
        killer.start()
        assert child.stdout
        for line in child.stdout:
            printed.append(line)
            if line == "training\n":
                # As a terminal does on Ctrl-C: the signal goes to the whole group.
                os.killpg(child.pid, number)
        assert child.wait() == 75
        killer.cancel()
    (state,) = states(fake_trainer)
    assert (state / "signals").read_text() == "x"
    assert (state / "checkpoint").read_text() == "saved"
    assert printed[-1] == f"team-a/job: stopped (exit 75); to go on: strop run {file}\n"
    assert "no last word" not in "".join(printed)


def test_run_without_what_it_needs_says_so(strop: Strop, tmp_path: Path) -> None:
    answer = strop("run", job_file(tmp_path))
    assert answer.code == 66
    assert "claim base-models: no folder" in answer.err


@pytest.mark.parametrize("value", ["nothing", "=x", "name="])
def test_a_mount_of_another_form_is_a_usage_error(strop: Strop, tmp_path: Path, value: str) -> None:
    answer = strop("run", job_file(tmp_path), "--volume", value)
    assert (answer.code, answer.err) == (64, f"--volume: found {value!r}, allowed: NAME=DIR\n")


def test_run_without_the_trainer_says_how_to_get_it(strop: Strop, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("strop.cli.process.find_spec", lambda _name: None)
    answer = strop("run", job_file(tmp_path))
    assert answer.code == 78
    assert "make env" in answer.err
