"""Files of rows, whatever their format: the same rows, and each wrong thing in words."""

import datetime
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import DataFile, DatasetPlan
from strop_trainer.row_files.columns import Columns
from strop_trainer.row_files.problems import Problems, kind
from strop_trainer.row_files.reading import format_of, read_file
from strop_trainer.row_files.text_file import documents
from strop_trainer.sources import RowFile
from strop_trainer.termination import TerminationMessage

PLAN = DatasetPlan(train=[DataFile(source="pvc://data/rows")])
COLUMNS = Columns(
    shapes=(("text", "label"), ("words",)), optional=("note",), structured=frozenset({"words"}), text_files=True
)


def read(path: Path, columns: Columns = COLUMNS, **plan: Any) -> tuple[list[tuple[str, Any]], list[str]]:
    """Return the rows with their places, and what is wrong."""
    problems = Problems()
    rows = list(read_file(RowFile(path.name, path), columns, PLAN.model_copy(update=plan), problems))
    return rows, problems.shown


def put(folder: Path, name: str, content: str | bytes) -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


ROWS = [{"text": "Zürich, “oui”", "label": "a"}, {"text": "two\nlines", "label": "b"}]


def parquet(path: Path, rows: list[dict[str, Any]], schema: Any = None) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


def test_all_formats_give_the_same_rows(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    files = [
        put(tmp_path, "rows.jsonl", lines),
        put(tmp_path, "rows.ndjson", "\n" + lines + "\n"),
        put(tmp_path, "rows.json", json.dumps(ROWS, indent=2)),
        put(tmp_path, "one-line", b"\xef\xbb\xbf" + json.dumps(ROWS, separators=(",", ":")).encode()),
        put(tmp_path, "rows.csv", 'text,label\r\n"Zürich, “oui”",a\r\n\r\n"two\nlines",b\r\n'),
        put(
            tmp_path,
            "semicolon.csv",
            b'\xef\xbb\xbftext;label\n"Z\xc3\xbcrich, \xe2\x80\x9coui\xe2\x80\x9d";a\n"two\nlines";b',
        ),
        put(tmp_path, "rows.tsv", 'text\tlabel\nZürich, “oui”\ta\n"two\nlines"\tb\n'),
        parquet(tmp_path / "rows.parquet", ROWS),
        parquet(tmp_path / "parquet-by-content", ROWS),
    ]
    for path in files:
        rows, wrong = read(path)
        assert wrong == [], path.name
        assert [row for _, row in rows] == ROWS, path.name


def test_places_are_lines_or_rows(tmp_path: Path) -> None:
    csv = put(tmp_path, "a.csv", 'text,label\n"one\n\nmore",a\ntwo,b\n')
    assert [place for place, _ in read(csv)[0]] == ["line 2", "line 5"]
    assert [place for place, _ in read(put(tmp_path, "a.json", json.dumps(ROWS, indent=1)))[0]] == ["row 1", "row 2"]
    assert [place for place, _ in read(parquet(tmp_path / "a.parquet", ROWS))[0]] == ["row 1", "row 2"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", '[{"text": "x", "label": "y"}', "row 2: broken JSON: the list has no end"),
        ("a.json", '[{"words": "x"} {"text": "y"}]', "row 2: broken JSON: found '{' before the row, expected ','"),
        ("a.json", '[{"words": "x"}] []', "a.json: broken JSON: more text after the list of 1 rows"),
        ("a.json", '[{"text": }]', "row 1: broken JSON: Expecting value"),
        ("a.json", '[{"words": "x"}, 3]', "row 2: found a number, expected an object with columns"),
        ("a.json", b'[{"text": "\xff"}]', "row 1: not UTF-8 near byte 12 of the file"),
        ("a.json", r'[{"text": "\ud800"}]', "row 1: broken JSON: a lone surrogate"),
        ("a.json", "[" + "[" * 100_000, "row 1: broken JSON: nested too deeply"),
        ("a.jsonl", b'{"text": "\xff"}', "line 1: not UTF-8 at byte 11 of the line (0xff)"),
        ("a.jsonl", '{\n "text": "x",\n "label": "y"\n}\n', "line 1: broken JSON at column 2"),
        ("a.jsonl", '{\n "text": "x"\n}\n', "; expected one object a line, or a list of objects"),
        (
            "a.json",
            '{"data": [{"text": "x", "label": "y"}]}',
            "; are the rows in 'data'? Expected one object a line, or a",
        ),
        (
            "a.jsonl",
            '{"foo": 1, "bar": 2}\n' * 12,
            "a.jsonl: found columns foo, bar, expected text, label or words; data",
        ),
        ("a.jsonl", '{"text": ' + "9" * 5000 + "}", "line 1: broken JSON: a number of too many digits"),
        ("a.json", '[{"text": ' + "9" * 5000 + "}]", "row 1: broken JSON: a number of too many digits"),
        ("a.csv", 'words\n"[' + "9" * 5000 + ']"\n', "words: broken JSON in the cell: a number of too many digits"),
        (
            "a.csv",
            "text,label\rx,y\rz,w\r",
            "line 1: broken CSV: found \\r alone as a line end, expected \\n or \\r\\n",
        ),
        ("a.csv", "", ""),
        ("a.csv", "body,label\nx,y\n", "a.csv: found columns body, label, expected text, label or words;"),
        ("a.csv", "text,label,text\nx,y,z\n", "a.csv: found column text more than once in the header"),
        ("a.csv", "text,label\nx\n", "line 2: found 1 values, expected 2, as many as the header has columns"),
        ("a.csv", 'text,label\n"x,y\nz,w\n', "line 2: broken CSV: unexpected end of data; is a quote left open?"),
        ("a.csv", 'text,label\n"x"y,z\n', "line 2: broken CSV: ',' expected after '\"'"),
        ("a.csv", b"text,label\nx,y\nZ\xfcrich,a\n", "line 3: text: not UTF-8 (0xfc)"),
        ("a.csv", 'words\n"[""a"", ]"\n', "line 2: words: broken JSON in the cell"),
        ("a.parquet", "PAR1 no more", "a.parquet: cannot be read as Parquet"),
        ("a.txt", b"one\ntw\xff\n", "line 2: not UTF-8 at byte 3 of the line (0xff)"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_by_its_place(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    _, wrong = read(put(tmp_path, name, content))
    assert words in "\n".join(wrong)
    assert bool(wrong) == bool(words)
    assert len(wrong) <= 1


def test_a_first_row_that_lacks_a_column_does_not_stand_for_the_file(tmp_path: Path) -> None:
    rows, wrong = read(put(tmp_path, "a.jsonl", '{"text": "x"}\n{"text": "y", "label": "a"}\n{"label": "b"}\n'))
    assert [place for place, _ in rows] == ["line 1", "line 2", "line 3"]  # the task judges them
    assert wrong == []


def test_the_rows_beside_a_wrong_one_are_read(tmp_path: Path) -> None:
    rows, wrong = read(put(tmp_path, "a.csv", b"text,label\nx,y\nZ\xfcrich,a\nlast,b\n"))
    assert [row["text"] for _, row in rows] == ["x", "last"]
    assert len(wrong) == 1


def test_a_parquet_column_that_is_not_utf_8(tmp_path: Path) -> None:
    text = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\x01\0\0\0\x02\0\0\0"), pa.py_buffer(b"a\xff")]
    )
    pq.write_table(pa.table({"text": text, "label": ["x", "y"]}), tmp_path / "a.parquet")
    rows, wrong = read(tmp_path / "a.parquet")
    assert [row for _, row in rows] == [{"text": "a", "label": "x"}]
    assert wrong == ["a.parquet row 2: not UTF-8 (0xff)"]


def test_columns_are_mapped_and_others_left(tmp_path: Path) -> None:
    mapping = {"text": "body", "label": "text"}
    for path in (
        put(tmp_path, "a.jsonl", '{"body": "hello", "text": "greeting", "note": "n"}'),
        put(tmp_path, "a.csv", "body,text,note\nhello,greeting,n\n"),
        parquet(tmp_path / "a.parquet", [{"body": "hello", "text": "greeting", "note": "n", "unread": 1}]),
    ):
        rows, wrong = _read_mapped(path, mapping)
        assert wrong == []
        assert [row for _, row in rows] == [{"text": "hello", "label": "greeting", "note": "n"}]


def _read_mapped(path: Path, mapping: dict[str, str]) -> tuple[list[tuple[str, Any]], list[str]]:
    problems = Problems()
    plan = PLAN.model_copy(update={"columns": mapping})
    return list(read_file(RowFile(path.name, path), COLUMNS, plan, problems)), problems.shown


def test_a_mapped_column_that_is_missing_is_said_once_a_file(tmp_path: Path) -> None:
    mapping = {"text": "body"}
    for path in (
        put(tmp_path, "a.jsonl", '{"title": "x", "label": "y"}\n' * 20),
        put(tmp_path, "a.json", json.dumps([{"title": "x", "label": "y"}] * 20)),
        put(tmp_path, "a.csv", "title,label\n" + "x,y\n" * 20),
        parquet(tmp_path / "a.parquet", [{"title": "x", "label": "y"}] * 20),
    ):
        rows, wrong = _read_mapped(path, mapping)
        assert rows == []
        assert wrong == [f"{path.name}: dataset.columns.text: no column 'body', found title, label"]


def test_a_mapped_column_that_may_be_missing_must_be_somewhere(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '{"text": "x", "label": "y"}\n{"text": "x", "label": "y", "remark": "z"}\n')
    rows, wrong = _read_mapped(path, {"note": "remark"})
    assert [row.get("note") for _, row in rows] == [None, "z"]
    assert wrong == []
    _, wrong = _read_mapped(path, {"note": "comment"})
    assert wrong == ["a.jsonl: dataset.columns.note: no column 'comment', found text, label"]


def test_lists_in_csv_cells_are_json(tmp_path: Path) -> None:
    rows, wrong = read(put(tmp_path, "a.csv", 'words,note\n"[""a"", ""b""]",[1]\n'))
    assert wrong == []
    assert rows[0][1] == {"words": ["a", "b"], "note": "[1]"}


def test_class_numbers_of_the_datasets_library_become_names(tmp_path: Path) -> None:
    names = {"_type": "ClassLabel", "names": ["no", "yes"]}
    features = {"label": names, "words": {"_type": "Sequence", "feature": names}, "text": {"_type": "Value"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema(
        [("text", pa.string()), ("label", pa.int64()), ("words", pa.list_(pa.int64()))], metadata=metadata
    )
    rows = [{"text": "x", "label": 1, "words": [0, 1]}, {"text": "y", "label": -1, "words": None}]
    found, wrong = read(parquet(tmp_path / "a.parquet", rows, schema))
    assert wrong == []
    assert [row for _, row in found] == [
        {"text": "x", "label": "yes", "words": ["no", "yes"]},
        {"text": "y", "label": -1, "words": None},
    ]


def test_the_format_is_given_or_told_by_suffix_or_content(tmp_path: Path) -> None:
    path = put(tmp_path, "key", "text,label\nx,y\n")
    with pytest.raises(TrainerError, match=r"dataset\.format: neither the name nor the content of key") as caught:
        read(path)
    assert caught.value.exit_code is ExitCode.BAD_CONFIGURATION
    assert [row for _, row in read(path, format="csv")[0]] == [{"text": "x", "label": "y"}]
    assert format_of(RowFile("https://host/rows.CSV?x=.json", path), PLAN) == "csv"


def test_text_files_are_for_tasks_that_read_text(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"found plain text, expected JSON, CSV or Parquet rows"):
        read(put(tmp_path, "a.txt", "hello"), columns=Columns((("text",),)))


def test_a_tune_of_abc_ends_at_an_empty_line(tmp_path: Path) -> None:
    tunes = ["X:1\nT:One\nK:C\nCDE|", "X:2\nT:Two\nK:G\nGAB|"]
    for name, count in (("tunes.abc", 2), ("tunes.txt", 1)):
        rows, _ = read(put(tmp_path, name, "\n\n".join(tunes) + "\n"), format="text")
        assert len(rows) == count
    assert [row["text"] for _, row in read(tmp_path / "tunes.abc", format="text")[0]] == tunes


def test_a_column_that_is_twice_in_a_parquet_file(tmp_path: Path) -> None:
    values = [pa.array(["a", "b"])] * 3
    pq.write_table(pa.table(values, names=["text", "text", "label"]), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ([], ["a.parquet: found column text more than once"])
    pq.write_table(
        pa.table([*values, *values], names=["text", "id", "label", "id", "of", "as"]), tmp_path / "a.parquet"
    )
    assert len(read(tmp_path / "a.parquet")[0]) == 2


def test_documents_of_a_text_file(tmp_path: Path) -> None:
    rows, wrong = read(put(tmp_path, "a.txt", "\n\nOne.\n\nStill one.\n \n\nTwo.\r\nlines\n\n\n\n"))
    assert wrong == []
    assert rows == [("line 3", {"text": "One.\n\nStill one."}), ("line 8", {"text": "Two.\nlines"})]


def test_a_long_document_comes_in_parts_that_make_it_up_again() -> None:
    lines = [f"line {n} of a paragraph\n" if n % 5 else "\n" for n in range(1, 200)]
    rows = [row for _, row in documents(iter(enumerate(lines, 1)), part=300)]
    assert "".join(row["text"] for row in rows) == "".join(lines).rstrip("\n")
    assert [row.get("continues") for row in rows] == [True] * (len(rows) - 1) + [None]
    assert len(rows) > 5
    unbroken = [row for _, row in documents(iter(enumerate(["x" * 99 + "\n"] * 50, 1)), part=300)]
    assert len(unbroken) == 9


READ = """
import json, sys
from pathlib import Path
import pyarrow.parquet
from strop_trainer.plan import DatasetPlan
from strop_trainer.sources import RowFile
from strop_trainer.row_files.columns import Columns
from strop_trainer.row_files.problems import Problems
from strop_trainer.row_files.reading import read_file

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

problems, path, columns = Problems(), Path(sys.argv[1]), Columns((("text",),), text_files=True)
before = peak()
rows = read_file(RowFile(path.name, path), columns, DatasetPlan(train=[]), problems)
characters = sum(len(row["text"]) for _, row in rows)
print(json.dumps([characters, problems.shown, (peak() - before) // 1024]))
"""


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet", "txt"])
def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path, suffix: str) -> None:
    rows, text = 40_000, "The quick brown fox jumps over the lazy dog. " * 112  # 200 MB
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        schema = pa.schema([("text", pa.string())])
        with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
            for part in range(10):
                batch = [f"{part * 4000 + n:05d}{text}" for n in range(4000)]
                writer.write_table(pa.table({"text": batch}, schema=schema), row_group_size=4000)
    else:
        begin, line, between, end = {
            "jsonl": ("", '{{"text": "{}"}}', "\n", ""),
            "json": ("[", '{{"text": "{}"}}', ", ", "]"),
            "csv": ("text\n", "{}", "\n", ""),
            "txt": ("", "{}", "\n\n\n", ""),
        }[suffix]
        with path.open("w") as file:
            file.write(begin)
            for n in range(rows):
                file.write((between if n else "") + line.format(f"{n:05d}{text}"))
            file.write(end)
    assert path.stat().st_size > 200_000_000
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, check=True)
    characters, wrong, grown = json.loads(done.stdout)
    assert wrong == []
    assert characters == rows * (5 + len(text))
    assert grown < 64, f"{grown} MiB for 200 MB"


def test_a_header_that_is_not_utf_8_is_told_and_can_be_written_into_a_last_word(tmp_path: Path) -> None:
    rows, wrong = read(put(tmp_path, "a.csv", "größe,text,label\n1,x,y\n".encode("latin-1")))
    assert (rows, wrong) == ([], ["a.csv line 1: not UTF-8 (0xf6)"])
    said = TerminationMessage(stage="check", reason="BadData", message="found gr\udcf6sse").dump()
    assert json.loads(said.encode())["message"] == "found gr?sse"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt", "rows"])
def test_other_encodings_are_named_by_their_byte_order_mark(tmp_path: Path, name: str, encoding: str) -> None:
    rows, wrong = read(put(tmp_path, name, "text,label\nx,y\n".encode(encoding)))
    assert (rows, wrong) == ([], [f"{name}: found {encoding.upper()} (its byte order mark), expected UTF-8"])


def test_parquet_without_its_library_is_a_matter_of_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path / "a.parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TrainerError, match=r"a\.parquet: Parquet is read by pyarrow, .*make env") as caught:
        read(path)
    assert caught.value.exit_code is ExitCode.BAD_CONFIGURATION


def test_kinds_of_parquet_are_called_by_their_names() -> None:
    values = [
        b"x",
        datetime.date(2020, 1, 1),
        datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
        datetime.time(1),
        1.5,
        Decimal("1"),
    ]
    assert [kind(value) for value in values] == ["bytes", "a date", "a date", "a time", "a number", "a decimal number"]
