import datetime
import json
from decimal import Decimal
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import DataFile, DatasetPlan
from strop_trainer.sources import RowFile
from strop_trainer.tasks import task_named
from strop_trainer.tasks.base import Dataset
from strop_trainer.tasks.overlap import normalise
from strop_trainer.tasks.row_store import Rows
from strop_trainer.tasks.rows import split as split_rows

PLAN = DatasetPlan(train=[DataFile(source="pvc://data/rows.jsonl")])
split = partial(split_rows, files=[])


def row(question: str = "What?", answer: str = "That.", **extra: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **extra}


def lines(*rows: object) -> bytes:
    return b"".join((entry if isinstance(entry, bytes) else json.dumps(entry).encode()) + b"\n" for entry in rows)


def read(tmp_path: Path, content: bytes, validation: bytes | None = None, plan: DatasetPlan = PLAN) -> Dataset:
    files = []
    for name, part in (("rows.jsonl", content), ("held.jsonl", validation)):
        if part is not None:
            (tmp_path / name).write_bytes(part)
            files.append(RowFile(f"pvc://data/{name}", tmp_path / name))
    return task_named("chat").read(files[:1], files[1:], plan, 0)


def refused(tmp_path: Path, content: bytes, **more: bytes) -> str:
    with pytest.raises(TrainerError) as caught:
        read(tmp_path, content, **more)
    assert caught.value.exit_code is ExitCode.BAD_DATA
    return caught.value.message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (b'{"messages": [', "broken JSON at column 15"),
        (b"\xff\xfe{}", "not UTF-8 at byte 1 of the line (0xff)"),
        (b'{"messages": "\\ud800"}', "a lone surrogate"),
        (b"[" * 100_000, "broken JSON: nested too deeply"),
        ([1], "found a list, expected an object with columns"),
        (
            {"text": "hello", "id": 3},
            "messages: missing; found text, id, expected messages or conversations or input_data",
        ),
        ({"messages": "hello"}, "messages: found a string, expected a list"),
        ({"messages": []}, "messages: empty"),
        ({"messages": ["hello"]}, "messages[0]: found a string, expected an object with role and content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content: missing; found role, expected a string"),
        ({"messages": [{"role": 3, "content": "x"}]}, "messages[0].role: found a number, expected a string"),
        (
            {"messages": [{"role": "bot", "content": "x"}]},
            "messages[0].role: found 'bot', allowed: system, user, assistant, tool",
        ),
        (row(answer=" \n"), "messages[1].content: empty, expected text"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content: found a list, expected a string"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages: no assistant turn"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "found assistant, expected a user message before it"),
        (
            {"messages": [*row()["messages"], {"role": "system", "content": "x"}]},  # type: ignore[misc]
            "messages[2].role: found system, expected it first or not at all",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "wait": 0}]},
            "messages[0].wait: not known, allowed: role, content",
        ),
    ],
)
def test_a_wrong_row_is_named_by_file_line_and_field(tmp_path: Path, wrong: object, words: str) -> None:
    message = refused(tmp_path, lines(row(), wrong, row("other")))
    assert message.startswith("dataset: 1 wrong row\npvc://data/rows.jsonl line 2: ")
    assert words in message


def test_the_first_ten_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    message = refused(tmp_path, lines(row(), *[{"n": n} for n in range(25)]), validation=lines(row(), {"x": 1}))
    assert "26 wrong rows" in message
    assert message.count("messages: missing") == 10
    assert message.endswith("… and 16 more")


def test_columns_that_are_missing_everywhere_are_said_once(tmp_path: Path) -> None:
    for content in (lines(*[{"instruction": "x", "output": n} for n in range(25)]), b"instruction,output\nx,y\n"):
        (tmp_path / "a").write_bytes(content)
        plan = PLAN.model_copy(update={"format": "jsonl" if content.startswith(b"{") else "csv"})
        with pytest.raises(TrainerError) as caught:
            task_named("chat").read([RowFile("a", tmp_path / "a")], [], plan, 0)
        assert caught.value.message == (
            "dataset: 1 wrong file\na: found columns instruction, output, expected messages or conversations or "
            "input_data; task instruction reads such rows"
        )


def test_a_line_too_long_to_be_a_row(tmp_path: Path) -> None:
    assert "line 1: longer than 16 MiB, expected one row a line" in refused(tmp_path, b"{" + b" " * (17 << 20))


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_dataset(tmp_path: Path, content: bytes) -> None:
    assert refused(tmp_path, content) == "dataset.train: pvc://data/rows.jsonl: found no rows, expected at least one"
    found = refused(tmp_path, lines(row()), validation=content)
    assert found == "dataset.validation: pvc://data/held.jsonl: found no rows, expected at least one"


def test_one_row_cannot_be_held_out(tmp_path: Path) -> None:
    told = "found 1 row(s), 1 different, expected at least 2 different ones, one of them to be held out"
    assert refused(tmp_path, lines(row())) == f"dataset.train: pvc://data/rows.jsonl: {told}"
    assert "3 row(s), 1 different" in refused(tmp_path, lines(row(), row(), row()))
    assert len(read(tmp_path, lines(row()), validation=lines(row("other"))).train) == 1


def test_blank_lines_byte_order_mark_other_columns_and_nulls(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "Zürich?", "name": None}
    odd = {"id": 7, "messages": [asked, {"role": "assistant", "content": "Ja."}]}
    dataset = read(tmp_path, b"\xef\xbb\xbf" + lines(odd, b"", row(), b"  "))
    assert len(dataset.train) + len(dataset.validation) == 2
    assert any("Zürich?".encode() in entry for entry in [*dataset.train, *dataset.validation])


def test_duplicates_and_leaks_are_counted(tmp_path: Path) -> None:
    train = lines(row("a"), row("b"), row("a"), row("a", " That. "))
    dataset = read(tmp_path, train, validation=lines(row("a"), row("b", "Something else."), row("c")))
    found = dataset.statistics
    assert (found.train_rows, found.validation_rows) == (4, 3)
    assert (found.duplicates, found.leaked, found.leaked_prompts) == (1, 1, 2)
    assert found.files == ["pvc://data/rows.jsonl", "pvc://data/held.jsonl"]


def test_the_fingerprint_is_of_content_and_order_not_of_spelling(tmp_path: Path) -> None:
    first = read(tmp_path, lines(row("a"), row("b")), validation=lines(row("c"))).statistics.fingerprint
    spelled = b'{"messages":  [{"content":"a","role":"user"},{"role":"assistant","content":"\\u0054hat."}]}'
    assert read(tmp_path, lines(spelled, row("b")), validation=lines(row("c"))).statistics.fingerprint == first
    assert read(tmp_path, lines(row("b"), row("a")), validation=lines(row("c"))).statistics.fingerprint != first
    assert read(tmp_path, lines(row("a")), validation=lines(row("b"), row("c"))).statistics.fingerprint != first


def test_max_rows_limits_the_training_rows_but_all_are_checked(tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"max_rows": 2})
    dataset = read(tmp_path, lines(row("a"), row("b"), row("c")), validation=lines(row("d")), plan=plan)
    assert len(dataset.train) == 2
    with pytest.raises(TrainerError, match="line 3"):
        read(tmp_path, lines(row("a"), row("b"), {}), validation=lines(row("d")), plan=plan)


def test_the_split_is_seeded_stable_and_keeps_duplicates_together() -> None:
    rows = [f"row {n % 80}".encode() for n in range(100)]
    train, held = split(Rows(rows), 0.1, 0)
    assert (len(set(train)), len(held)) == (72, 8)
    assert not set(train) & set(held)
    assert (train, held) == split(Rows(rows), 0.1, 0)
    assert set(split(Rows(rows), 0.1, 1)[1]) != set(held)
    assert set(split(Rows(rows[::-1]), 0.1, 0)[1]) == set(held)
    kept = set(split(Rows([*rows, b"a new row"]), 0.1, 0)[1]) & set(held)
    assert len(kept) >= 7


def test_at_least_one_row_is_held_out_and_one_is_left() -> None:
    assert [len(part) for part in split(Rows([b"a", b"b"]), 0.001, 0)] == [1, 1]
    assert [len(part) for part in split(Rows([b"a", b"b"]), 0.5, 0)] == [1, 1]
    assert [len(part) for part in split(Rows([b"a", b"b", b"c"]), 0.99, 0)] == [1, 2]


def test_columns_and_formats_that_chat_does_not_read_are_refused_before_a_file_is_opened() -> None:
    gone = [RowFile("pvc://data/gone.jsonl", Path("/nowhere/gone.jsonl"))]
    for change, words in (
        ({"columns": {"text": "body"}}, "dataset.columns.text: chat reads no such column, allowed: messages, "),
        ({"format": "text"}, "dataset.format: found text, allowed for chat: auto, jsonl, csv, parquet"),
    ):
        with pytest.raises(TrainerError) as caught:
            task_named("chat").read(gone, [], PLAN.model_copy(update=change), 0)
        assert caught.value.exit_code is ExitCode.BAD_CONFIGURATION
        assert words in caught.value.message


def test_one_column_cannot_be_two(tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"columns": {"messages": "said", "system": "said"}})
    with pytest.raises(TrainerError) as caught:
        task_named("chat").read([RowFile("x", tmp_path / "not there")], [], plan, 0)
    assert caught.value.exit_code is ExitCode.BAD_CONFIGURATION
    assert caught.value.message == (
        "dataset.columns.system: found said, which messages is mapped to, expected another column"
    )


def test_a_task_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(TrainerError, match="'painting' is not supported by this version, allowed: chat"):
        task_named("painting")


def test_exact_match_forgives_white_space_only() -> None:
    assert normalise(" Caf\u0065\u0301 \n ouvert ") == "Café ouvert"
    score = task_named("chat").score
    assert score(["a b", "A", "x"], [["a  b\n"], ["a"], ["x"]]) == {"exact_match": 2 / 3}
    assert score([], []) == {}


def test_values_of_parquet_that_json_has_not_are_named_by_their_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    for value, words in (
        (b"x", "bytes"),
        (datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), "a date"),
        (Decimal("1.5"), "a decimal number"),
    ):
        pq.write_table(pa.Table.from_pylist([row(tools=[{"name": "f", "of": [{"when": value}]}])]), path)
        with pytest.raises(TrainerError) as caught:
            task_named("chat").read([RowFile("rows.parquet", path)], [], PLAN, 0)
        assert f"rows.parquet row 1: tools[0].of[0].when: found {words}, expected" in caught.value.message
