"""A file of rows, in whichever format it is."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from strop_trainer.errors import bad_configuration
from strop_trainer.plan import DatasetPlan
from strop_trainer.row_files.columns import Columns, Table
from strop_trainer.row_files.csv_file import csv_rows
from strop_trainer.row_files.json_file import json_rows
from strop_trainer.row_files.lines import BYTE_ORDER_MARK, CHUNK
from strop_trainer.row_files.parquet_file import parquet_rows
from strop_trainer.row_files.problems import Placed, Problems
from strop_trainer.row_files.text_file import text_rows
from strop_trainer.sources import ROW_FORMATS, RowFile

Format = Literal["json", "csv", "parquet", "text"]
_FORMATS: Final[Mapping[str, Format]] = {"jsonl": "json", "csv": "csv", "parquet": "parquet", "text": "text"}
_OTHER_MARKS: Final = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Byte order mark → encoding; the longer ones first, as they begin like the shorter."""


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
        yield from text_rows(file, problems)
        return
    table = Table(file, columns, dataset.columns, problems)
    if form == "csv":
        yield from csv_rows(table)
    elif form == "parquet":
        yield from parquet_rows(table)
    else:
        yield from json_rows(table)


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
