"""The command line, called as a shell would, in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from strop.cli.main import main
from strop_trainer.manifest import Manifest, dump_manifest, list_files
from tests.support.planning import manifest_of


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str


Strop = Callable[..., Answer]

POOL: dict[str, Any] = {
    "apiVersion": "strop.dev/v1alpha1",
    "kind": "ComputePool",
    "metadata": {"name": "cpu"},
    "spec": {"cpuPerNode": 2, "memoryPerNode": "8Gi"},
}


def runner(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Strop:
    """Return a function that runs `strop` with arguments."""

    def run(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["strop", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Answer(ended.value.code, captured.out, captured.err)

    return run


def write(path: Path, *documents: dict[str, Any]) -> Path:
    """Write manifests to a file."""
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def rows(count: int = 12) -> str:
    """Return chat rows, one a line."""
    turns = '{"role": "user", "content": "q%d"}, {"role": "assistant", "content": "a%d"}'
    return "".join(f'{{"messages": [{turns % (number, number)}]}}\n' for number in range(count))


def config_map(name: str = "rows", namespace: str = "team-a", **data: str) -> dict[str, Any]:
    """Return a ConfigMap; `__` in a key stands for a dot."""
    content = {key.replace("__", "."): value for key, value in data.items()}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": content or {"train.jsonl": rows()},
    }


def job_file(tmp_path: Path, *others: dict[str, Any], **fields: Any) -> Path:
    """Write a job and the ConfigMap with its rows."""
    return write(tmp_path / "job.yaml", manifest_of(**fields), config_map(), *others)


def model_folder(tmp_path: Path) -> Path:
    """Make the folder that `manifest_of` names, in a claim `models`."""
    folder = tmp_path / "models" / manifest_of()["spec"]["model"]["source"].removeprefix("pvc://").partition("/")[2]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (folder / "model.safetensors").write_bytes(bytes(3_000_000))
    return folder


def published(folder: Path, content: str = "x") -> None:
    """Make a version with one file."""
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(content, encoding="utf-8")
    manifest = Manifest(
        model=folder.parent.name,
        job_uid="uid",
        plan_digest="sha256:0",
        created_at="2026-01-01T00:00:00Z",
        files=list_files(folder),
    )
    (folder / "manifest.json").write_bytes(dump_manifest(manifest))
