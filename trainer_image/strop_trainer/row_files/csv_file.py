"""Rows of CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from strop_trainer.row_files.columns import Table
from strop_trainer.row_files.json_file import TOO_MANY_DIGITS
from strop_trainer.row_files.lines import MAX_ROW_BYTES, numbered_lines
from strop_trainer.row_files.problems import Placed


def csv_rows(table: Table) -> Iterator[Placed]:
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


def _csv_lines(file: BinaryIO, table: Table) -> Iterator[str]:
    for _, line in numbered_lines(file, table.file.name, table.problems):
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


def _csv_row(names: Sequence[str], values: Sequence[str], table: Table) -> dict[str, Any]:
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
                raise ValueError(f"{name}: broken JSON in the cell: {TOO_MANY_DIGITS}") from None
    return row
