"""The other commands of `strop` as a shell meets them, and what all have in common."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strop.cli import machine
from tests.support.cli import POOL, Answer, Strop, published, write
from tests.support.planning import manifest_of


def test_models_lists_versions_with_their_aliases(strop: Strop, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    for number in (1, 2, 10):
        published(registry / f"team-a/bot/{number}")
    published(registry / "team-b/bot/1")
    (registry / "team-a/bot/.staging-11").mkdir()
    (registry / "team-a/bot/11").mkdir()
    (registry / "team-b/bot/index.json").write_text("{broken", encoding="utf-8")
    (registry / "team-a/bot/index.json").write_text('{"aliases": {"latest": 10, "best": 2}}', encoding="utf-8")
    answer = strop("models", "--registry", registry)
    assert answer.code == 0
    lines = [line.split() for line in answer.out.splitlines() if "bot" in line]
    assert lines == [
        ["team-a", "bot", "1", "2026-01-01T00:00:00Z", "0.0", "MB", "team-a/bot/1"],
        ["team-a", "bot", "2", "best", "2026-01-01T00:00:00Z", "0.0", "MB", "team-a/bot/2"],
        ["team-a", "bot", "10", "latest", "2026-01-01T00:00:00Z", "0.0", "MB", "team-a/bot/10"],
        ["team-b", "bot", "1", "2026-01-01T00:00:00Z", "0.0", "MB", "team-b/bot/1"],
    ]
    assert "team-a" not in strop("models", "--registry", registry, "-n", "team-b").out
    assert "no version in" in strop("models", "--registry", registry, "-n", "team-c").out


def test_models_leaves_out_what_may_not_be_read_and_says_so(
    strop: Strop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume with a file system of its own has a lost+found that is root's."""
    published(tmp_path / "team-a/bot/1")
    (tmp_path / "lost+found").mkdir()
    entries = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return entries(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    answer = strop("models", "--registry", tmp_path)
    assert answer.code == 0
    assert "team-a/bot/1" in answer.out
    assert answer.err == f"note: {tmp_path}/lost+found: left out: Permission denied\n"


def test_a_reader_that_goes_early_is_no_failure(tmp_path: Path) -> None:
    file = write(tmp_path / "job.yaml", manifest_of())
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, "-m", "strop.cli", "plan", str(file)], stdout=writer, check=False)
    os.close(writer)
    assert ended.returncode == 0


def test_models_without_a_registry_says_so(strop: Strop) -> None:
    answer = strop("models")
    assert answer.code == 66
    assert "no such folder" in answer.err


def fake_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")


def test_logs_of_a_job_without_a_pod_are_missing_input(strop: Strop, tmp_path: Path, monkeypatch) -> None:
    fake_kubectl(tmp_path, monkeypatch, "echo 'No resources found in team-a namespace.' >&2")
    answer = strop("logs", "nosuch")
    assert (answer.code, answer.out) == (66, "")
    assert answer.err == (
        "found no pod of a FineTuneJob nosuch in namespace team-a: kubectl get finetunejobs -A lists the jobs there "
        "are; one that waits has no pod yet\n"
    )


def test_logs_without_a_cluster_are_one_clear_line(strop: Strop, tmp_path: Path, monkeypatch) -> None:
    log = """E1125 12:49:38.605655   23896 memcache.go:265] "Unhandled Error" err="could not get API group list\""""
    refused = "The connection to the server localhost:8080 was refused - did you specify the right host or port?"
    fake_kubectl(tmp_path, monkeypatch, f"echo '{log}' >&2\necho '{log}' >&2\necho '{refused}' >&2\nexit 1")
    answer = strop("logs", "bot")
    assert (answer.code, answer.out) == (69, "")
    assert answer.err == f"no cluster answers: kubectl says: {refused}\n"


def test_logs_hand_on_what_else_kubectl_says(strop: Strop, tmp_path: Path, monkeypatch) -> None:
    fake_kubectl(tmp_path, monkeypatch, "echo a line\necho one >&2\necho error: two >&2\nexit 1")
    assert strop("logs", "bot") == Answer(1, "a line\n", "one\nerror: two\n")


def test_logs_asks_kubectl_for_the_jobs_pods(strop: Strop, tmp_path: Path, monkeypatch) -> None:
    fake_kubectl(tmp_path, monkeypatch, 'echo "$@"\nexit 3')
    answer = strop("logs", "bot", "-n", "team-a", "-f", "--timestamps")
    assert answer.code == 3
    assert "logs --selector strop.dev/job=bot" in answer.out
    assert "--namespace team-a --follow --timestamps" in answer.out


def test_logs_without_kubectl_says_so(strop: Strop, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/none")
    answer = strop("logs", "bot")
    assert (answer.code, answer.err) == (66, "kubectl: not found on PATH\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["plan"], "Missing argument 'FILE'"),
        (["plan", "a", "-o", "yaml"], "--output: found 'yaml', allowed: text, json\n"),
        (["plan", "a", "--quick"], "No such option: --quick"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_64(strop: Strop, arguments: list[str], words: str) -> None:
    answer = strop(*arguments)
    assert answer.code == 64
    assert words in answer.err
    assert answer.err.count("\n") == 1


def test_version(strop: Strop) -> None:
    answer = strop("--version")
    assert (answer.code, answer.out.split()[0]) == (0, "strop")


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    # More than a pipe holds.
    file = write(tmp_path / "jobs.yaml", POOL, *(manifest_of(f"job-{number}") for number in range(40)))
    command = f"{sys.executable} -c 'from strop.cli.main import main; main()' plan {file} -o json | head -1"
    answer = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert answer.stderr == ""
    assert answer.stdout == "{\n"


@pytest.mark.parametrize(
    ("output", "code", "told"),
    [(">/dev/full", 74, "the output: cannot be written: No space left on device\n"), (">&-", 0, "")],
)
def test_an_output_that_takes_nothing_is_told_in_a_line(tmp_path: Path, output: str, code: int, told: str) -> None:
    file = write(tmp_path / "job.yaml", POOL, manifest_of("job"))
    command = f"{sys.executable} -c 'from strop.cli.main import main; main()' plan {file} {output}"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (code, told)


def test_this_machine_is_no_larger_than_its_container(tmp_path: Path) -> None:
    limit = tmp_path / "sys/fs/cgroup/memory.max"
    limit.parent.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n", encoding="ascii")
    limit.write_text("max\n", encoding="ascii")
    whole = machine.memory_bytes(tmp_path)
    limit.write_text(f"{1 << 28}\n", encoding="ascii")
    assert machine.memory_bytes(tmp_path) == 1 << 28 < whole
    assert machine.this_machine(tmp_path).spec.memory_per_node == "256Mi"


@pytest.mark.parametrize(
    ("script", "memory"),
    [("echo 24576; echo 16384", "16384Mi"), ("exit 9", None), ("echo no devices", None), ("sleep", None)],
)
def test_accelerators_are_those_that_nvidia_smi_names(
    tmp_path: Path, monkeypatch, script: str, memory: str | None
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = machine.nvidia_accelerator()
    assert (found.memory if found else None) == memory
