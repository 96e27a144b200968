"""Files of rows, read one row at a time: JSON Lines, JSON lists, CSV, Parquet and plain text. Knows no task.

A row comes with its place in the file: the line in JSON Lines and CSV, the row in a JSON list and Parquet; all count
from 1.
No more than one row (Parquet: one batch of rows) is in memory at a time.
"""

from __future__ import annotations

import codecs
import csv
import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from strop_trainer.errors import bad_configuration, bad_data
from strop_trainer.plan import DatasetPlan
from strop_trainer.sources import ROW_FORMATS, RowFile

Format = Literal["json", "csv", "parquet", "text"]
Place = str
"""Such as `line 3`."""
Placed = tuple[Place, Any]

SHOWN_PROBLEMS: Final = 10
SHOWN_NAMES: Final = 12
MAX_ROW_BYTES: Final = 16 << 20
CHUNK: Final = 1 << 16
BATCH_ROWS: Final = 64
"""Rows of a Parquet file that are in memory at a time."""
PART_CHARACTERS: Final = 8192
"""A longer document of a text file is read in parts of about so many characters."""
DOCUMENT_GAP: Final = 2
"""Empty lines that set the documents of a text file apart."""
TUNE_GAP: Final = 1
"""Empty lines that end a tune in ABC notation."""
BYTE_ORDER_MARK: Final = codecs.BOM_UTF8
_FORMATS: Final[Mapping[str, Format]] = {"jsonl": "json", "csv": "csv", "parquet": "parquet", "text": "text"}
_OTHER_MARKS: Final = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Byte order mark → encoding; the longer ones first, as they begin like the shorter."""
_KINDS: Final = {
    str: "a string",
    list: "a list",
    dict: "an object",
    bool: "a boolean",
    type(None): "null",
    bytes: "bytes",
    datetime.date: "a date",
    datetime.datetime: "a date",
    datetime.time: "a time",
    datetime.timedelta: "a duration",
    Decimal: "a decimal number",
}
_DIGITS: Final = "a number of too many digits"
_SPACE: Final = " \t\r\n"


@dataclass(frozen=True)
class Columns:
    """The columns that a task reads."""

    shapes: tuple[tuple[str, ...], ...]
    """Sets of columns; a row has all of one set."""
    optional: tuple[str, ...] = ()
    structured: frozenset[str] = frozenset()
    """Those that hold lists or objects; a cell of a CSV file has them as JSON."""
    elsewhere: tuple[tuple[frozenset[str], str], ...] = ()
    """Columns of another task's rows, and what to say where a file has those."""
    text_files: bool = False
    """Whether plain text files are read, too: as rows with `text`."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that `dataset.columns` may map."""
        return tuple(dict.fromkeys([*(name for shape in self.shapes for name in shape), *self.optional]))

    def shown(self) -> str:
        """Return what is expected, in words."""
        return " or ".join(", ".join(shape) for shape in self.shapes)


class Problems:
    """Wrong files and rows: the first few in words, the rest as a number."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.files = 0
        self.rows = 0

    def add(self, file: str, place: Place, problem: str) -> None:
        """Note one wrong row."""
        self.rows += 1
        self._show(f"{file} {place}: {problem}")

    def add_file(self, file: str, problem: str) -> None:
        """Note what is wrong with a file as a whole."""
        self.files += 1
        self._show(f"{file}: {problem}")

    def raise_if_any(self) -> None:
        """Raise a TrainerError (exit 65) with what was noted."""
        if not self.files and not self.rows:
            return
        counts = [
            f"{count} wrong {what}{'' if count == 1 else 's'}"
            for count, what in ((self.files, "file"), (self.rows, "row"))
            if count
        ]
        rest = self.files + self.rows - len(self.shown)
        more = f"\n… and {rest} more" if rest else ""
        raise bad_data(f"dataset: {', '.join(counts)}\n" + "\n".join(self.shown) + more)

    def _show(self, text: str) -> None:
        if len(self.shown) < SHOWN_PROBLEMS:
            self.shown.append(text)


def check_columns(columns: Columns, dataset: DatasetPlan, task: str) -> None:
    """Check that `dataset.columns` maps what the task reads, and that the task reads the format. Opens no file.

    Raises:
        TrainerError: it does not (exit 78).
    """
    taken: dict[str, str] = {}
    for name, there in dataset.columns.items():
        if name not in columns.names:
            raise bad_configuration(
                f"dataset.columns.{name}: {task} reads no such column, allowed: {', '.join(columns.names)}"
            )
        if there in taken:
            raise bad_configuration(
                f"dataset.columns.{name}: found {there}, which {taken[there]} is mapped to, expected another column"
            )
        taken[there] = name
    if dataset.format == "text" and not columns.text_files:
        raise bad_configuration(f"dataset.format: found text, allowed for {task}: auto, jsonl, csv, parquet")


def read_file(file: RowFile, columns: Columns, dataset: DatasetPlan, problems: Problems) -> Iterator[Placed]:
    """Yield each row that is an object, with its columns under the names that the task expects.

    What is wrong with the file or with a row is noted in `problems`; broken rows are passed over.

    Raises:
        TrainerError: the format of the file is not known, or not one of the task's.
    """
    if (encoding := _other_encoding(file)) is not None:
        problems.add_file(file.name, f"found {encoding} (its byte order mark), expected UTF-8")
        return
    form = format_of(file, dataset)
    if form == "text":
        if not columns.text_files:
            raise bad_configuration(f"dataset {file.name}: found plain text, expected JSON, CSV or Parquet rows")
        yield from _texts(file, problems)
        return
    table = _Table(file, columns, dataset.columns, problems)
    if form == "csv":
        yield from _csv_rows(table)
    elif form == "parquet":
        yield from _parquet_rows(table)
    else:
        yield from _json_rows(table)


def format_of(file: RowFile, dataset: DatasetPlan) -> Format:
    """Return the format that the plan names, else that of the file's suffix, else what its content looks like.

    Raises:
        TrainerError: none of them tells (exit 78).
    """
    if dataset.format != "auto":
        return _FORMATS[dataset.format]
    suffix = Path(file.name.split("?", 1)[0]).suffix.lower()
    if suffix in ROW_FORMATS:
        return ROW_FORMATS[suffix]
    with file.path.open("rb") as opened:
        begin = opened.read(CHUNK)
    if begin.startswith(b"PAR1"):
        return "parquet"
    begin = begin.removeprefix(BYTE_ORDER_MARK).lstrip()
    if not begin or begin[:1] in b"{[":
        return "json"
    raise bad_configuration(
        f"dataset.format: neither the name nor the content of {file.name} tells its format, "
        "allowed: jsonl, csv, parquet, text"
    )


def _other_encoding(file: RowFile) -> str | None:
    with file.path.open("rb") as opened:
        begin = opened.read(4)
    return next((name for mark, name in _OTHER_MARKS.items() if begin.startswith(mark)), None)


def shown_names(names: Sequence[str]) -> str:
    """Return the names of columns for a message."""
    shown = ", ".join(str(name)[:40] for name in names[:SHOWN_NAMES])
    return (f"{shown}, …" if len(names) > SHOWN_NAMES else shown) or "nothing"


def kind(value: Any) -> str:
    """Return what a value is, in words."""
    return _KINDS.get(type(value), "a number")


@dataclass(frozen=True)
class _Table:
    """One file, and what its columns are to be."""

    file: RowFile
    columns: Columns
    mapping: Mapping[str, str]
    """Name that the task expects → name in the file."""
    problems: Problems

    def accepts(self, names: Sequence[str]) -> bool:
        """Judge the columns of a file that has the same ones in every row; note what is missing, once."""
        missing = [(expected, there) for expected, there in self.mapping.items() if there not in names]
        for expected, there in missing:
            self.lacks(expected, there, names)
        if missing:
            return False
        if self.fits(self.renamed(dict.fromkeys(names))):
            return True
        self.rejects(names)
        return False

    def fits(self, renamed: Mapping[str, Any]) -> bool:
        """Whether a row has all columns of one set."""
        return any(all(name in renamed for name in shape) for shape in self.columns.shapes)

    def rejects(self, names: Sequence[str], hint: str = "") -> None:
        """Note that no row has the columns that the task reads."""
        words = [said for other, said in self.columns.elsewhere if other.issubset(names)]
        self.problems.add_file(
            self.file.name,
            f"found columns {shown_names(names)}, expected {self.columns.shown()}; "
            f"{words[0] if words else 'dataset.columns maps other names'}{hint}",
        )

    def lacks(self, expected: str, there: str, names: Sequence[str]) -> None:
        """Note that a mapped column is missing."""
        self.problems.add_file(
            self.file.name, f"dataset.columns.{expected}: no column {there!r}, found {shown_names(names)}"
        )

    def renamed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with the names that the task expects; other columns keep theirs."""
        if not self.mapping:
            return dict(row)
        mapped = {expected: row[there] for expected, there in self.mapping.items() if there in row}
        taken = {*self.mapping, *self.mapping.values()}
        return {name: value for name, value in row.items() if name not in taken} | mapped


def _json_rows(table: _Table) -> Iterator[Placed]:
    """Yield the objects of a file of JSON Lines, or of a JSON list."""
    with table.file.path.open("rb") as file:
        begin = file.read(CHUNK).removeprefix(BYTE_ORDER_MARK).lstrip()
        file.seek(0)
        found = _json_list(file, table) if begin.startswith(b"[") else _json_lines(file, table)
        unseen = dict(table.mapping)
        names: list[str] = []
        held: list[Placed] | None = []  # rows that lack a column, until one has all
        for place, row in found:
            if not isinstance(row, dict):
                table.problems.add(table.file.name, place, f"found {kind(row)}, expected an object with columns")
                continue
            if not names:
                names = list(row)
                needed = {name for name in unseen if unseen[name] not in row} - set(table.columns.optional)
                if needed:
                    for name in sorted(needed):
                        table.lacks(name, unseen[name], names)
                    return
            unseen = {expected: there for expected, there in unseen.items() if there not in row}
            renamed = table.renamed(row)
            if held is not None and not table.fits(renamed):
                held.append((place, renamed))
                if len(held) > SHOWN_PROBLEMS:
                    break
                continue
            if held is not None:
                yield from held
                held = None
            yield place, renamed
        if held:
            table.rejects(names, _where_rows_are(held))
        elif names:
            for expected, there in unseen.items():
                table.lacks(expected, there, names)


def _where_rows_are(rows: Sequence[Placed]) -> str:
    """Return a hint where a file is one object with a list of objects in it."""
    lists = [name for name, value in rows[0][1].items() if isinstance(value, list) and _is_object(*value[:1])]
    if len(rows) > 1 or not lists:
        return ""
    return f"; are the rows in {lists[0][:40]!r}? Expected one object a line, or a list of objects"


def _is_object(value: Any = None) -> bool:
    return isinstance(value, dict)


def _json_lines(file: BinaryIO, table: _Table) -> Iterator[Placed]:
    first = True
    for number, line in _lines(file, table.file.name, table.problems):
        if not line.strip():
            continue
        place = f"line {number}"
        spread, first = first and _is_spread(line), False
        try:
            yield place, _parse(line)
        except ValueError as error:
            hint = "; expected one object a line, or a list of objects" if spread else ""
            table.problems.add(table.file.name, place, f"{error}{hint}")
            if spread:
                return


def _is_spread(line: bytes) -> bool:
    """Whether an object begins in a line that goes on in the next one."""
    text = line.strip()
    return text.startswith(b"{") and text.endswith((b"{", b"[", b","))


def _lines(file: BinaryIO, name: str, problems: Problems) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            problems.add(name, f"line {number}", f"longer than {MAX_ROW_BYTES >> 20} MiB, expected one row a line")
            return
        yield number, line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line


def _parse(line: bytes) -> Any:
    try:
        text = line.rstrip(b"\r\n").decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1} of the line (0x{line[error.start]:02x})") from None
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"broken JSON at column {error.colno}: {error.msg}") from None
    except ValueError:
        raise ValueError(f"broken JSON: {_DIGITS}") from None
    except RecursionError:
        raise ValueError("broken JSON: nested too deeply") from None
    _check_characters(text, row)
    return row


def _check_characters(text: str, row: Any) -> None:
    if "\\u" not in text:
        return  # what was decoded from UTF-8 has no lone surrogate; an escape may be one
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("broken JSON: a lone surrogate, which is no character") from None


class _Window:
    """The part of a JSON list that is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text = ""
        self.ended = False
        self.read = 0

    def grow(self) -> None:
        """Read on: as much as there is, so that a long row is not parsed from its start too often.

        Raises:
            ValueError: what was read is not UTF-8.
        """
        chunk = self._file.read(max(CHUNK, len(self.text)))
        self.ended = not chunk
        try:
            self.text += self._decoder.decode(chunk, final=self.ended)
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 near byte {self.read + error.start + 1} of the file") from None
        self.read += len(chunk)

    def next(self) -> str:
        """Return the next character that is no space, without taking it; empty at the end of the file."""
        while True:
            self.text = self.text.lstrip(_SPACE)
            if self.text or self.ended:
                return self.text[:1]
            self.grow()

    def take(self) -> None:
        """Take one character."""
        self.text = self.text[1:]


def _json_list(file: BinaryIO, table: _Table) -> Iterator[Placed]:
    """Yield the items of a list that is never in memory as a whole; the first broken one ends it."""
    window, decoder, number = _Window(file), json.JSONDecoder(), 0
    try:
        window.next()
        window.take()  # [
        while (first := window.next()) != "]":
            number += 1
            yield f"row {number}", _json_item(window, decoder, first, number)
        window.take()
        if window.next():
            table.problems.add_file(table.file.name, f"broken JSON: more text after the list of {number} rows")
    except ValueError as error:
        table.problems.add(table.file.name, f"row {max(1, number)}", str(error))


def _json_item(window: _Window, decoder: json.JSONDecoder, first: str, number: int) -> Any:
    """Take the next item of a list, and the comma before it.

    Raises:
        ValueError: it is broken, or longer than a row may be.
    """
    if number > 1:
        if first and first != ",":
            raise ValueError(f"broken JSON: found {first!r} before the row, expected ','")
        window.take()
        window.next()
    while window.text:
        try:
            row, end = decoder.raw_decode(window.text)
        except json.JSONDecodeError as error:
            if window.ended:
                raise ValueError(f"broken JSON: {error.msg}") from None
        except ValueError:
            raise ValueError(f"broken JSON: {_DIGITS}") from None
        except RecursionError:
            raise ValueError("broken JSON: nested too deeply") from None
        else:
            # A number at the end of the window may go on.
            if end < len(window.text) or window.ended:
                text, window.text = window.text[:end], window.text[end:]
                _check_characters(text, row)
                return row
        if len(window.text) > MAX_ROW_BYTES:
            raise ValueError(f"broken JSON, or longer than {MAX_ROW_BYTES >> 20} MiB")
        window.grow()
    raise ValueError("broken JSON: the list has no end")


def _csv_rows(table: _Table) -> Iterator[Placed]:
    """Yield the rows of a CSV file with a header; what is missing is the empty string.

    The delimiter is the one of comma, semicolon and tab that is in the header most often.
    """
    csv.field_size_limit(MAX_ROW_BYTES)
    with table.file.path.open("rb") as file:
        lines = _csv_lines(file, table)
        header = next(lines, "")
        delimiter = max(",;\t", key=header.count)
        reader = csv.reader(_chain(header, lines), delimiter=delimiter, strict=True)
        names: list[str] | None = None
        while True:
            place = f"line {reader.line_num + 1}"
            try:
                values = next(reader, None)
            except csv.Error as error:
                table.problems.add(table.file.name, place, f"broken CSV: {_csv_problem(str(error))}")
                return
            if values is None:
                return
            if not values:
                continue
            if names is None:
                if broken := _not_utf_8(delimiter.join(values)):
                    table.problems.add(table.file.name, place, broken)
                    return
                names = [name.strip() for name in values]
                twice = {name for name in names if name and names.count(name) > 1}
                if twice:
                    table.problems.add_file(table.file.name, f"found column {min(twice)} more than once in the header")
                if twice or not table.accepts(names):
                    return
                continue
            try:
                yield place, table.renamed(_csv_row(names, values, table))
            except ValueError as error:
                table.problems.add(table.file.name, place, str(error))


def _csv_problem(said: str) -> str:
    """Return what Python's reader says, in words that are about the file."""
    if said.startswith("new-line character"):
        return r"found \r alone as a line end, expected \n or \r\n"
    return f"{said}; is a quote left open?" if "field larger" in said or "end of data" in said else said


def _csv_lines(file: BinaryIO, table: _Table) -> Iterator[str]:
    for _, line in _lines(file, table.file.name, table.problems):
        yield line.decode(errors="surrogateescape")


def _not_utf_8(text: str) -> str | None:
    """Return what is wrong with text that was decoded with the broken bytes in it; None where nothing is."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"not UTF-8 (0x{ord(text[error.start]) & 0xFF:02x})"
    return None


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _csv_row(names: Sequence[str], values: Sequence[str], table: _Table) -> dict[str, Any]:
    if len(values) != len(names):
        raise ValueError(f"found {len(values)} values, expected {len(names)}, as many as the header has columns")
    row: dict[str, Any] = dict(zip(names, values, strict=True))
    structured = {table.mapping.get(name, name) for name in table.columns.structured}
    for name, value in row.items():
        if broken := _not_utf_8(value):
            raise ValueError(f"{name}: {broken}")
        if name in structured and value.lstrip()[:1] in {"[", "{"}:
            try:
                row[name] = json.loads(value)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(f"{name}: broken JSON in the cell: {error}") from None
            except ValueError:
                raise ValueError(f"{name}: broken JSON in the cell: {_DIGITS}") from None
    return row


def _parquet_rows(table: _Table) -> Iterator[Placed]:
    """Yield the rows of a Parquet file, of its columns those that the task reads.

    Numbers that stand for class names, as the `datasets` library writes them, are given as names.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - only where it is used
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise bad_configuration(
            f"dataset {table.file.name}: Parquet is read by pyarrow, which is not installed here; "
            "`make env` in a checkout installs it"
        ) from None

    try:
        with pq.ParquetFile(table.file.path, buffer_size=CHUNK, pre_buffer=False) as file:
            names = file.schema_arrow.names
            if not table.accepts(names):
                return
            wanted = {table.mapping.get(name, name) for name in table.columns.names}
            twice = {name for name in names if name in wanted and names.count(name) > 1}
            if twice:
                table.problems.add_file(table.file.name, f"found column {min(twice)} more than once")
                return
            classes = _class_names(file.schema_arrow)
            number = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=[name for name in names if name in wanted]):
                for row in _batch_rows(batch):
                    number += 1
                    if isinstance(row, UnicodeDecodeError):
                        table.problems.add(
                            table.file.name, f"row {number}", f"not UTF-8 (0x{row.object[row.start]:02x})"
                        )
                        continue
                    named = {name: _named(value, classes.get(name)) for name, value in row.items()}
                    yield f"row {number}", table.renamed(named)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        table.problems.add_file(table.file.name, f"cannot be read as Parquet: {str(error).splitlines()[0]}")


def _batch_rows(batch: Any) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:  # before the first row is given: one of them is broken
        for index in range(batch.num_rows):
            try:
                yield {name: batch.column(name)[index].as_py() for name in batch.schema.names}
            except UnicodeDecodeError as error:
                yield error


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Return column → names of its classes, from what the `datasets` library writes beside the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    found = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        inner = feature
        while isinstance(inner, dict) and isinstance(inner.get("feature"), dict):
            inner = inner["feature"]
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and isinstance(inner.get("names"), list):
            found[column] = [str(name) for name in inner["names"]]
    return found


def _named(value: Any, names: Sequence[str] | None) -> Any:
    if names is None:
        return value
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _texts(file: RowFile, problems: Problems) -> Iterator[Placed]:
    """Yield the documents of a plain text file, which two or more empty lines set apart; the tunes of ABC, one.

    A long document comes in parts, so that neither memory nor what can be held out depends on its length: a part ends
    at an empty line, else at the end of a line, and each but the last has `continues`.
    """
    with file.path.open("rb") as opened:
        gap = TUNE_GAP if Path(file.name).suffix.lower() == ".abc" else DOCUMENT_GAP
        yield from documents(_text_lines(opened, file.name, problems), gap=gap)


def _text_lines(file: BinaryIO, name: str, problems: Problems) -> Iterator[tuple[int, str]]:
    for number, line in _lines(file, name, problems):
        try:
            yield number, line.decode().replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            problems.add(
                name, f"line {number}", f"not UTF-8 at byte {error.start + 1} of the line (0x{line[error.start]:02x})"
            )
            return


def documents(
    lines: Iterator[tuple[int, str]], part: int = PART_CHARACTERS, gap: int = DOCUMENT_GAP
) -> Iterator[Placed]:
    """Yield documents, or their parts, as rows; see `_texts`."""
    held: list[str] = []
    begin, size, blank = 1, 0, 0

    def row(*, continues: bool) -> Placed:
        text = "".join(held)
        return f"line {begin}", {"text": text, "continues": True} if continues else {"text": text.rstrip("\n")}

    for number, line in lines:
        if not line.strip():
            blank += 1
            continue
        if held and blank >= gap:
            yield row(continues=False)
            held, size = [], 0
        elif held and size >= (part if blank else 2 * part):
            held += ["\n"] * blank
            yield row(continues=True)
            held, size = [], 0
        elif held:
            held += ["\n"] * blank
        blank = 0
        if not held:
            begin = number
        held.append(line)
        size += len(line)
    if held:
        yield row(continues=False)


Check = Callable[[dict[str, Any]], Any]
"""Returns the normal form of a row, or raises ValueError with field, found and expected."""
