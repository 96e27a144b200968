"""Wrong input fails at once, with words that name what is wrong."""

import json
from pathlib import Path

import pytest

from tests.support.data import chat_rows
from tests.support.models import tiny_llama
from tests.support.team import TRAIN_SECONDS, Team

pytestmark = pytest.mark.cluster


def rows(team: Team, name: str, text: str) -> dict[str, object]:
    team.rows(name, {"train.jsonl": text})
    return {"train": [{"source": f"configmap://{name}/train.jsonl"}]}


def test_a_broken_row_is_told_with_its_line(team: Team) -> None:
    lines = [json.dumps(row) for row in chat_rows(5)]
    lines[2] = '{"messages": ['
    team.apply("broken-row", dataset=rows(team, "broken", "\n".join(lines)))
    status = team.reaches("broken-row", "Failed", TRAIN_SECONDS)
    assert team.condition("broken-row", "Failed") == ("True", "BadData")
    assert "line 3" in status["message"]
    assert status["attempts"] == 1


def test_a_model_that_is_not_on_the_claim(team: Team) -> None:
    team.apply("no-model", model={"source": "pvc://models/elsewhere", "parameters": "1M"})
    status = team.reaches("no-model", "Failed", TRAIN_SECONDS)
    assert team.condition("no-model", "Failed") == ("True", "MissingInput")
    assert "pvc://models/elsewhere" in status["message"]


def test_too_little_memory_is_told_with_the_numbers(team: Team, tmp_path: Path) -> None:
    # Weights, gradients and moments of 38 million parameters are 610 MB, a trainer without a model has 500.
    team.shelve(tiny_llama(tmp_path / "larger", hidden_size=1024, layers=4))
    team.apply(
        "starved",
        model={"source": "pvc://models/larger", "parameters": "38M"},
        method={"type": "full"},
        compute={"pool": "cpu", "resources": {"cpu": "900m", "memory": "640Mi"}},
        backoffLimit=0,
    )
    status = team.reaches("starved", "Failed", TRAIN_SECONDS)
    assert team.condition("starved", "Failed") == ("True", "OutOfMemory")
    assert "at its limit of 640Mi" in status["message"]
