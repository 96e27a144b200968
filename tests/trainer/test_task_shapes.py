"""Rows of the tasks that answer in words: what is read, and each wrong thing in words."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import METRICS, DataFile, DatasetPlan
from strop_trainer.sources import RowFile
from strop_trainer.tasks import TASKS, task_named
from strop_trainer.tasks.base import Dataset

PLAN = DatasetPlan(train=[DataFile(source="pvc://data/rows.jsonl")])


def load(folder: Path, task: str, rows: Sequence[Any], name: str = "rows.jsonl", **plan: Any) -> Dataset:
    lines = (row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows)
    (folder / name).write_bytes(b"\n".join(lines))
    dataset = PLAN.model_copy(update=plan)
    return task_named(task).read([RowFile(name, folder / name)], [], dataset, 0)


def normal(folder: Path, task: str, row: Any) -> dict[str, Any]:
    """Return the normal form of a row."""
    files = []
    for name, content in (("row.jsonl", row), ("held.jsonl", GOOD[task])):
        (folder / name).write_text(json.dumps(content))
        files.append(RowFile(name, folder / name))
    (found,) = task_named(task).read(files[:1], files[1:], PLAN, 0).train
    loaded: dict[str, Any] = json.loads(found)
    return loaded


def refused(folder: Path, task: str, *rows: Any, **more: Any) -> str:
    with pytest.raises(TrainerError) as caught:
        load(folder, task, rows, **more)
    assert caught.value.exit_code is ExitCode.BAD_DATA
    return caught.value.message


def say(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


GOOD: dict[str, dict[str, Any]] = {
    "chat": {"messages": [say("user", "ask"), say("assistant", "told")]},
    "instruction": {"prompt": "ask", "completion": "told"},
    "text-generation": {"text": "told"},
    "translation": {"source": "ask", "target": "told"},
    "summarization": {"text": "ask", "summary": "told"},
    "question-answering": {"question": "ask", "answer": "told"},
    "preference": {"prompt": "ask", "chosen": "told", "rejected": "said"},
}


def test_every_task_of_the_contract_is_here_and_has_its_metrics() -> None:
    assert set(GOOD) <= set(TASKS)
    for name in GOOD:
        assert TASKS[name].metrics == METRICS[name].names  # type: ignore[index]


@pytest.mark.parametrize("task", GOOD)
def test_what_is_wrong_whatever_the_task(tmp_path: Path, task: str) -> None:
    good = GOOD[task]
    told = "found 1 row(s), 1 different, expected at least 2 different ones, one of them to be held out"
    assert refused(tmp_path, task, good) == f"dataset.train: rows.jsonl: {told}"
    assert "dataset.train: rows.jsonl: found no rows, expected at least one" in refused(tmp_path, task)
    assert "line 2: not UTF-8 at byte 1" in refused(tmp_path, task, good, b"\xff\xfe")
    assert "line 2: found a number, expected an object with columns" in refused(tmp_path, task, good, b"3")
    for name in good:
        if name == "messages":
            continue
        less = {other: value for other, value in good.items() if other != name} | {"id": "x"}
        assert f"line 2: {name}: missing" in refused(tmp_path, task, good, less)
        assert f"line 2: {name}: found a number, expected a string" in refused(tmp_path, task, good, good | {name: 3})
        assert f"line 2: {name}: empty, expected text" in refused(tmp_path, task, good, good | {name: " \n"})


@pytest.mark.parametrize("task", [task for task in GOOD if task != "chat"])
def test_csv_and_parquet_give_what_json_gives(tmp_path: Path, task: str) -> None:
    rows = [{name: f"{value} {n}" for name, value in GOOD[task].items()} for n in range(6)]
    names = list(rows[0])
    (tmp_path / "rows.csv").write_text(
        "\n".join([",".join(names), *(",".join(row[name] for name in names) for row in rows)])
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    expected = load(tmp_path, task, rows).statistics.fingerprint
    for name in ("rows.csv", "rows.parquet"):
        found = task_named(task).read([RowFile(name, tmp_path / name)], [], PLAN, 0)
        assert found.statistics.fingerprint == expected
    mapped = [{f"my_{name}": value for name, value in row.items()} for row in rows]
    columns = {name: f"my_{name}" for name in names}
    assert load(tmp_path, task, mapped, columns=columns).statistics.fingerprint == expected


@pytest.mark.parametrize(
    ("row", "roles", "contents"),
    [
        ({"messages": [say("developer", "be"), say("user", "a"), say("assistant", "b")]}, "sua", ["be", "a", "b"]),
        (
            {"messages": [say("user", "a"), {"role": "assistant", "content": [{"type": "text", "text": "b"}]}]},
            "ua",
            ["a", "b"],
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "id": 3},
            "ua",
            ["a", "b"],
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "be"},
            "sua",
            ["be", "a", "b"],
        ),
        ({"messages": None, "conversations": [say("user", "a"), say("assistant", "b")]}, "ua", ["a", "b"]),
        ({"messages": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "ua", ["a", "b"]),
        ({"messages": json.dumps([say("user", "a"), say("assistant", "b")])}, "ua", ["a", "b"]),
        ({"messages": [say("user", "a", name="Ann"), say("assistant", "b", name="Bo", weight=1)]}, "ua", ["a", "b"]),
        ({"messages": [say("user", "a", weight=0), say("assistant", "b")]}, "ua", ["a", "b"]),
        ({"input_data": {"input_string": [say("user", "a"), say("assistant", "b")]}}, "ua", ["a", "b"]),
    ],
)
def test_shapes_of_conversations(tmp_path: Path, row: Any, roles: str, contents: list[str]) -> None:
    messages = normal(tmp_path, "chat", row)["messages"]
    assert "".join(message["role"][0] for message in messages) == roles
    assert [message["content"] for message in messages] == contents


def test_tools_are_kept(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    openai = {
        "messages": [
            say("user", "Rain?"),
            {"role": "assistant", "content": None, "tool_calls": [call]},
            say("tool", "no", tool_call_id="1"),
            say("assistant", "No."),
        ],
        "tools": [{"type": "function", "function": {"name": "weather"}}],
    }
    found = normal(tmp_path, "chat", openai)
    assert found["tools"] == openai["tools"]
    kept = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}]
    assert found["messages"][1] == {"role": "assistant", "content": "", "tool_calls": kept}
    assert found["messages"][2] == {"role": "tool", "content": "no", "tool_call_id": "1"}
    turns = [("human", "Rain?"), ("function_call", '{"name": "weather", "arguments": {"city": "Rome"}}')]
    turns += [("observation", "no"), ("gpt", "No.")]
    shared = {"conversations": [{"from": who, "value": what} for who, what in turns]}
    assert normal(tmp_path, "chat", shared)["messages"][1] == found["messages"][1]


@pytest.mark.parametrize(
    ("task", "row", "words"),
    [
        (
            "chat",
            {"instruction": "x", "output": "y"},
            "messages: missing; found instruction, output, expected messages or conversations or input_data; task inst",
        ),
        (
            "chat",
            {"conversations": [{"from": "robot", "value": "x"}]},
            "conversations[0].from: found 'robot', allowed: human, user, gpt",
        ),
        (
            "chat",
            {"messages": [say("user", "x"), say("assistant", "y", weight=0)]},
            "messages: every assistant turn has weight 0, so that there is nothing to learn",
        ),
        (
            "chat",
            {"messages": [say("user", "x"), say("assistant", "y", weight=0.5)]},
            "messages[1].weight: found 0.5, allowed: 0, 1",
        ),
        ("chat", {"messages": [say("user", "x", name=3)]}, "messages[0].name: found a number, expected a string"),
        ("chat", {"messages": "[broken"}, "messages: broken JSON: "),
        ("chat", {"messages": None}, "messages: found null, expected a list"),
        ("chat", {"messages": [{"from": "human", "value": ""}]}, "messages[0].value: empty, expected text"),
        ("chat", {"conversations": [{"from": "human"}]}, "conversations[0].value: found from, but no value"),
        (
            "chat",
            {"messages": [say("user", "x"), say("tool", "y"), say("assistant", "z")]},
            "messages[1].role: found tool, expected an assistant's tool_calls before it",
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, say("assistant", "z")]},
            "messages[0].content[0]: found type image_url, expected type text",
        ),
        ("chat", GOOD["chat"] | {"tools": ["x"]}, "tools: found a list, expected a list of objects"),
        ("instruction", {"question": "x"}, "prompt: missing; found question, expected prompt, completion or instr"),
        ("instruction", {"prompt": [say("user", "x")], "completion": "y"}, "completion: found a string, expected a li"),
        (
            "instruction",
            {"prompt": [say("user", "x")], "completion": [say("user", "y")]},
            "completion: ends with a message of user, expected assistant",
        ),
        ("translation", {"translation": "x"}, "translation: found a string, expected an object with a text a language"),
        ("translation", {"translation": {"en": "x"}}, "translation: found en, expected two languages"),
        ("translation", {"translation": {"en": "x", "de": ""}}, "translation.de: empty, expected text"),
        ("question-answering", {"question": "x", "answers": {"text": []}}, "answers: empty, expected at least one"),
        ("question-answering", {"question": "x", "answers": ["y", 3]}, "answers[1]: found a number, expected a string"),
        ("question-answering", {"question": "x", "answers": 3}, "answers: found a number, expected a list of texts"),
    ],
)
def test_what_is_wrong_in_a_row(tmp_path: Path, task: str, row: Any, words: str) -> None:
    message = refused(tmp_path, task, GOOD[task], row)
    assert f"rows.jsonl line 2: {words}" in message


@pytest.mark.parametrize(
    ("task", "row", "prompt", "completion"),
    [
        ("instruction", {"instruction": "Do", "input": "this", "output": "done"}, "Do\n\nthis", "done"),
        ("instruction", {"instruction": "Do", "input": "", "output": "done"}, "Do", "done"),
        ("instruction", {"prompt": [say("user", "Do")], "completion": [say("assistant", "done")]}, "Do", "done"),
        ("translation", {"source": "Hi", "target": "Hallo"}, "Translate:\n\nHi", "Hallo"),
        (
            "translation",
            {"source": "Hi", "target": "Hallo", "source_language": "en", "target_language": "Swabian"},
            "Translate from English to Swabian:\n\nHi",
            "Hallo",
        ),
        (
            "translation",
            {"translation": {"en": "Hi", "de": "Hallo", "fr": None}},
            "Translate from English to German:\n\nHi",
            "Hallo",
        ),
        ("summarization", {"text": "Long.", "summary": "S."}, "Summarize:\n\nLong.", "S."),
        ("question-answering", {"question": "Who?", "context": None, "answer": "He."}, "Who?", "He."),
        (
            "question-answering",
            {"question": "Who?", "context": "He is.", "answers": {"text": ["He", "He is"], "answer_start": [0, 0]}},
            "Answer the question by the text.\n\nText: He is.\n\nQuestion: Who?",
            "He",
        ),
    ],
)
def test_a_row_becomes_a_prompt_and_its_completion(
    tmp_path: Path, task: str, row: Any, prompt: str, completion: str
) -> None:
    messages = normal(tmp_path, task, row)["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert [message["content"] for message in messages] == [prompt, completion]


def test_documents_come_from_text_files_and_a_single_long_one_can_be_held_out_of(tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("One\n\n\nTwo\n")
    (tmp_path / "long.txt").write_text("A paragraph of a long book.\n\n" * 2000)
    task = task_named("text-generation")
    two = task.read([RowFile("two.txt", tmp_path / "two.txt")], [], PLAN, 0)
    assert sorted(json.loads(row)["text"] for row in (*two.train, *two.validation)) == ["One", "Two"]
    long = task.read([RowFile("long.txt", tmp_path / "long.txt")], [], PLAN, 0)
    assert long.statistics.train_rows >= 1
    assert long.statistics.validation_rows >= 1
