"""Each task that answers in words, from its rows to a published version."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.card import run_card
from tests.support.models import tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = pytest.mark.trainer

NUMBERS = ("one", "two", "three", "red", "green", "blue")
PLAIN = ("text-generation", "translation")
"""Tasks that are tried with a model that has no chat template."""


def rows_of(task: str) -> list[dict[str, Any]]:
    """Return rows that a tiny model can learn."""
    columns = {
        "text-generation": ("text",),
        "instruction": ("instruction", "output"),
        "translation": ("source", "target"),
        "summarization": ("text", "summary"),
        "question-answering": ("question", "answer"),
    }[task]
    texts = [f"{first} {second}" for first in NUMBERS for second in NUMBERS]
    return [{name: f"{text} {'fox' if at == 0 else 'dog'}" for at, name in enumerate(columns)} for text in texts]


@pytest.mark.parametrize(
    ("task", "metrics"),
    [
        ("text-generation", set()),
        ("instruction", {"exact_match"}),
        ("translation", {"bleu", "chrf"}),
        ("summarization", {"rouge1", "rouge2", "rougeL"}),
        ("question-answering", {"exact_match", "f1"}),
    ],
)
def test_a_task_is_trained_and_measured(tmp_path: Path, task: str, metrics: set[str]) -> None:
    surroundings = Surroundings(tmp_path)
    (surroundings.volumes / "data" / "rows.json").write_text(json.dumps(rows_of(task)))
    onnx = ["fp32"] if task in PLAIN else []
    plan = make_plan(
        task=task,
        dataset={"train": [{"source": "pvc://data/rows.json"}], "validation": []},
        artifact={"onnx": onnx},
        hyperparameters={"max_steps": 12},
    )
    folder = tiny_llama(surroundings.volumes / "models" / "tiny")
    if task in PLAIN:
        (folder / "chat_template.jinja").unlink()
    ended = surroundings.run(plan)
    assert ended.code == 0, ended.output + ended.errors
    assert ended.message
    assert ended.message.published
    found = ended.message.published
    merged = {"eval_loss_merged"} if onnx else set()
    assert set(found.metrics_tuned) == {"eval_loss", "perplexity", "token_accuracy"} | metrics | merged
    assert found.metrics_tuned["eval_loss"] < found.metrics_base["eval_loss"]
    version = surroundings.registry / "tuned" / "1"
    if onnx:
        assert [proof.passed for proof in found.proofs] == [True]
        template = version / "onnx" / "chat_template.jinja"
        assert template.exists() == (task == "translation")
        assert not template.exists() or "### Response:" in template.read_text()
        run_card(version, "The quick brown")
