"""Which held-out rows are evaluated where not all are: of a file that is sorted, not its beginning alone."""

from pathlib import Path
from typing import Any

import pytest

from strop_trainer import __main__ as trainer
from strop_trainer import stages
from strop_trainer.context import Clock, StopRequest
from strop_trainer.run import Run
from tests.support.data import write_jsonl
from tests.support.models import tiny_encoder, tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = pytest.mark.trainer

LABELS = [label for label in ("bad", "fair", "good") for _ in range(20)]


def chat(label: str, number: int) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": f"row {number} is {label}?"},
            {"role": "assistant", "content": f"it is {label}"},
        ]
    }


def prepared(path: Path, task: str, row: Any) -> Run:
    around = Surroundings(path)
    for name, start in (("train", 100), ("held", 0)):
        rows = [row(label, start + number) for number, label in enumerate(LABELS)]
        write_jsonl(around.volumes / "data" / f"{name}.jsonl", rows)
    folder = around.volumes / "models" / "tiny"
    (tiny_llama if task == "chat" else tiny_encoder)(folder)
    plan = make_plan(task=task, evaluation={"max_rows": 9, "generate_rows": 9}, hyperparameters={"packing": False})
    run = trainer.start(around.variables(plan), StopRequest(), Clock())
    for stage in (stages.check, stages.fetch, stages.prepare):
        stage(run)
    return run


def test_labels_are_evaluated_on_rows_of_the_whole_file(tmp_path: Path) -> None:
    run = prepared(tmp_path, "text-classification", lambda label, n: {"text": f"row {n}", "label": label})
    labels = [int(label) for batch in run.held_out for label in batch.labels]
    assert sorted(labels) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_answers_are_evaluated_on_rows_of_the_whole_file(tmp_path: Path) -> None:
    run = prepared(tmp_path, "chat", chat)
    tokenizer = run.loaded.tokenizer
    text = " ".join(tokenizer.decode(row) for batch in run.held_out for row in batch.inputs["input_ids"].tolist())
    assert [text.count(f"it is {label}") for label in ("bad", "fair", "good")] == [3, 3, 3]
    answers = [question.reference for question in run.questions]
    assert len(answers) == 32
    # However many of them are asked: the metric's, and the proof's, which are fewer where rows are long.
    for used, fewest in ((32, 10), (20, 6), (8, 2)):
        assert min(answers[:used].count(f"it is {label}") for label in ("bad", "fair", "good")) >= fewest
