"""The command line, called as a shell would, in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from strop.cli.main import main


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str


Strop = Callable[..., Answer]


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
