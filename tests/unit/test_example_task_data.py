"""The rows of the example jobs of several tasks: real, the same each time, and right for their task."""

import importlib.util
import sys
from pathlib import Path

import pytest

from strop_trainer.plan import DataFile, DatasetPlan
from strop_trainer.sources import RowFile
from strop_trainer.tasks import task_named
from tests.support.paths import REPOSITORY


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("translation", "translation.csv"),
        ("question-answering", "questions.jsonl"),
        ("preference", "preference.jsonl"),
    ],
)
def test_the_rows_are_read_by_their_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, name: str) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "examples"))
    spec = importlib.util.spec_from_file_location("prepare_task_data", REPOSITORY / "examples/prepare_task_data.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delitem(sys.modules, "prepare_data", raising=False)
    module.prepare(tmp_path / "one")
    module.prepare(tmp_path / "two")
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    plan = DatasetPlan(train=[DataFile(source="pvc://datasets/x")])
    rows = task_named(task).read([RowFile(name, tmp_path / "one" / name)], [], plan, 42).statistics
    assert rows.train_rows > 100
    assert rows.validation_rows > 10
    assert rows.duplicates == rows.leaked_prompts == 0
