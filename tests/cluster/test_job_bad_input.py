"""Wrong input fails at once, with words that name what is wrong."""

import json

import pytest

from tests.support.data import chat_rows
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


def test_too_little_memory_is_told_with_the_numbers(team: Team) -> None:
    compute = {"pool": "cpu", "resources": {"cpu": "500m", "memory": "64Mi"}}
    team.apply("starved", compute=compute, backoffLimit=0)
    status = team.reaches("starved", "Failed", TRAIN_SECONDS)
    assert team.condition("starved", "Failed") == ("True", "OutOfMemory")
    assert "at its limit of 64Mi" in status["message"]
