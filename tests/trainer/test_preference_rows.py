"""Pairs of answers: which shapes are read, each wrong thing in words, and the tokens they become."""

import json
from pathlib import Path
from typing import Any

import pytest

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import DataFile, DatasetPlan
from strop_trainer.sources import RowFile
from strop_trainer.tasks import task_named
from strop_trainer.tasks.preference import RULES, Pair
from strop_trainer.tasks.rows import UnfitRowsError, normal_form, tell_places
from tests.support.models import tiny_tokenizer

pytestmark = pytest.mark.trainer

PLAN = DatasetPlan(train=[DataFile(source="pvc://data/rows.jsonl")])
GOOD = {"prompt": "ask", "chosen": "told", "rejected": "said"}
TASK = task_named("preference")


def say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


USER, TOLD, SAID = say("user", "ask"), say("assistant", "told"), say("assistant", "said")
NORMAL = {"prompt": [USER], "chosen": [TOLD], "rejected": [SAID]}


def rows_file(folder: Path, *rows: Any) -> RowFile:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RowFile("pvc://data/rows.jsonl", path)


def normal(folder: Path, row: Any) -> dict[str, Any]:
    """Return the normal form of a row."""
    other = {"prompt": "other", "chosen": "a", "rejected": "b"}
    found = TASK.read([rows_file(folder, row, other)], [], PLAN, 0)
    rows = [json.loads(line) for line in (*found.train, *found.validation)]
    return next(row for row in rows if row["chosen"] != [say("assistant", "a")])


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        {"prompt": [USER], "chosen": [TOLD], "rejected": [SAID]},
        {"prompt": "ask", "chosen": [TOLD], "rejected": [SAID]},
        {"prompt": [USER], "chosen": "told", "rejected": "said"},
        {"chosen": [USER, TOLD], "rejected": [USER, SAID]},
        {"prompt": "ask", "chosen": [USER, TOLD], "rejected": [USER, SAID], "score_chosen": 8.5},
        {"prompt": [USER], "chosen": [USER, TOLD], "rejected": [USER, SAID]},
    ],
)
def test_all_shapes_are_one_pair(tmp_path: Path, row: Any) -> None:
    assert normal(tmp_path, row) == NORMAL


def test_the_prompt_is_all_that_both_conversations_begin_with(tmp_path: Path) -> None:
    start = [say("system", "be brief"), say("user", "hi"), say("assistant", "ho"), say("user", "ask")]
    assert normal(tmp_path, {"chosen": [*start, TOLD], "rejected": [*start, SAID]})["prompt"] == start
    longer = [TOLD, say("user", "sure?"), say("assistant", "yes")]
    found = normal(tmp_path, {"chosen": [USER, *longer], "rejected": [USER, SAID]})
    assert (found["prompt"], found["chosen"], found["rejected"]) == ([USER], longer, [SAID])


def test_a_system_column_stands_in_front(tmp_path: Path) -> None:
    found = normal(tmp_path, GOOD | {"system": "be brief"})
    assert found["prompt"] == [say("system", "be brief"), USER]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"chosen": "a", "rejected": "b"}, "prompt: missing; found chosen, rejected"),
        ({"chosen": [TOLD], "rejected": [SAID]}, "prompt: missing; found chosen, rejected"),
        ({"prompt": "ask", "chosen": "a"}, "rejected: missing; found prompt, chosen"),
        (GOOD | {"rejected": None}, "rejected: found null, expected a string"),
        (GOOD | {"chosen": 3}, "chosen: found a number, expected a string or a list of messages"),
        (GOOD | {"chosen": {"role": "assistant"}}, "chosen: found an object, expected a string or a list of messages"),
        (GOOD | {"rejected": ""}, "rejected: empty, expected text"),
        (GOOD | {"chosen": []}, "rejected: found a string, expected a list, as chosen is"),
        (GOOD | {"chosen": [], "rejected": [SAID]}, "chosen: empty, expected a message of the assistant"),
        (GOOD | {"rejected": [SAID]}, "rejected: found a list, expected a string, as chosen is"),
        (GOOD | {"rejected": "told"}, "rejected: equal to chosen, expected another answer"),
        ({"chosen": [USER, TOLD], "rejected": [USER, TOLD]}, "rejected: equal to chosen, expected another answer"),
        (
            {"chosen": [USER, TOLD], "rejected": [say("user", "other"), SAID]},
            "chosen[0].role: found user where chosen and rejected part, expected assistant",
        ),
        (
            {"chosen": [USER, TOLD], "rejected": [USER, TOLD, say("user", "more"), SAID]},
            "rejected[2].role: found user where chosen and rejected part",
        ),
        (
            {"chosen": [USER, TOLD, SAID], "rejected": [USER, TOLD]},
            "rejected: ends where the other answer goes on, expected an answer of its own",
        ),
        (
            {"chosen": [USER, TOLD], "rejected": [USER, SAID, say("user", "thanks")]},
            "rejected: ends with a message of user, expected assistant",
        ),
        (
            {"prompt": "another", "chosen": [USER, TOLD], "rejected": [USER, SAID]},
            "prompt: not what chosen and rejected begin with",
        ),
        (GOOD | {"prompt": [USER, TOLD]}, "prompt: ends with a message of assistant, expected user"),
        (GOOD | {"prompt": [say("robot", "x")]}, "prompt[0].role: found 'robot', allowed: system, user, assistant"),
        (
            {"prompt": [USER], "chosen": [TOLD], "rejected": [say("assistant", " ")]},
            "prompt + rejected[1].content: empty, expected text",
        ),
        (
            {"chosen": [USER, TOLD | {"weight": 0}], "rejected": [USER, SAID]},  # type: ignore[operator]
            "chosen[1].weight: found 0, allowed: 1, as a pair's answers are compared whole",
        ),
    ],
)
def test_what_is_wrong_in_a_pair(tmp_path: Path, row: Any, words: str) -> None:
    with pytest.raises(TrainerError) as caught:
        TASK.read([rows_file(tmp_path, GOOD, row)], [], PLAN, 0)
    assert caught.value.exit_code is ExitCode.BAD_DATA
    assert f"pvc://data/rows.jsonl line 2: {words}" in caught.value.message


def test_messages_in_the_cells_of_a_csv_file_and_mapped_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    cells = [json.dumps([message]).replace('"', '""') for message in (TOLD, SAID)]
    path.write_text(f'question,good,bad\nask,"{cells[0]}","{cells[1]}"\nother,a,b\n')
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    found = TASK.read([RowFile("rows.csv", path)], [], PLAN.model_copy(update={"columns": columns}), 0)
    assert NORMAL in [json.loads(row) for row in (*found.train, *found.validation)]


def test_a_prompt_on_both_sides_is_told_as_a_leak(tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps(GOOD | {"rejected": "else"}))
    found = TASK.read([rows_file(tmp_path, GOOD, GOOD)], [RowFile("held.jsonl", held)], PLAN, 0).statistics
    assert (found.duplicates, found.leaked, found.leaked_prompts) == (1, 0, 1)


def encoded(*rows: Any, max_length: int = 64) -> list[Pair]:
    found = TASK.encode([normal_form(row) for row in rows], tiny_tokenizer(), max_length).examples
    return [pair for pair in found if isinstance(pair, Pair)]


def test_only_what_the_answers_say_counts() -> None:
    tokenizer = tiny_tokenizer()
    prompt = [say("user", "hi"), say("assistant", "ho"), USER]
    (pair,) = encoded({"prompt": prompt, "chosen": [TOLD], "rejected": [SAID]})
    for side, answer in zip(pair.sides, ("told", "said"), strict=True):
        assert tokenizer.decode(side.input_ids).endswith(f"<|im_start|>assistant\n{answer}<|im_end|>")
        learnt = [token for token, hit in zip(side.input_ids, side.targets, strict=True) if hit]
        assert tokenizer.decode(learnt) == f"{answer}<|im_end|>"


def test_every_turn_of_a_longer_answer_counts_and_the_users_do_not() -> None:
    longer = [TOLD, say("user", "sure?"), say("assistant", "yes")]
    (pair,) = encoded({"prompt": [USER], "chosen": longer, "rejected": [SAID]})
    chosen = pair.sides[0]
    learnt = [token for token, hit in zip(chosen.input_ids, chosen.targets, strict=True) if hit]
    assert tiny_tokenizer().decode(learnt) == "told<|im_end|>yes<|im_end|>"


def test_a_model_without_a_template_is_asked_by_the_plain_one() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    (pair,) = TASK.encode([json.dumps(NORMAL).encode()], tokenizer, 64).examples
    assert tokenizer.decode(pair.input_ids).count("### Response:\n") == 2


def test_longer_answers_lose_their_end_and_are_counted() -> None:
    rows = [NORMAL | {"chosen": [say("assistant", "a b c d e f g h i j k l m n o p q r s t u v w")]}]
    found = TASK.encode([json.dumps(row).encode() for row in rows], tiny_tokenizer(), 32)
    assert found.truncated == 1
    assert len(found.examples[0].input_ids) <= 64
    assert max(found.lengths) > 32


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (NORMAL | {"prompt": [say("user", "long " * 30)]}, " tokens, expected fewer than 32 (training.maxLength)"),
        (
            NORMAL | {name: [say("assistant", "x " * 40 + name)] for name in ("chosen", "rejected")},
            "chosen and rejected: found no difference in the first 32 tokens (training.maxLength)",
        ),
    ],
)
def test_what_cannot_be_learnt_as_tokens_is_told_with_its_place(tmp_path: Path, row: Any, words: str) -> None:
    file = rows_file(tmp_path, GOOD, row)
    with pytest.raises(UnfitRowsError) as caught:
        encoded(NORMAL, row, max_length=32)
    told = tell_places(caught.value, RULES, [file], PLAN)
    assert told.exit_code is ExitCode.BAD_DATA
    assert told.message.startswith("dataset: 1 wrong row\npvc://data/rows.jsonl line 2: ")
    assert words in told.message


def test_answers_that_a_template_makes_the_same_are_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", "message['content'] | trim")
    row = NORMAL | {"rejected": [say("assistant", "told ")]}
    with pytest.raises(UnfitRowsError, match="found the same tokens in both"):
        TASK.encode([json.dumps(row).encode()], tokenizer, 64)
