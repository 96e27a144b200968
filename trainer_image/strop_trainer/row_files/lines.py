"""A file's lines, none of which is longer than a row may be."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO, Final

from strop_trainer.row_files.problems import Problems

MAX_ROW_BYTES: Final = 16 << 20
CHUNK: Final = 1 << 16
BYTE_ORDER_MARK: Final = codecs.BOM_UTF8


def numbered_lines(file: BinaryIO, name: str, problems: Problems) -> Iterator[tuple[int, bytes]]:
    """Yield lines with their numbers, from 1; one that is too long is noted in `problems`, and ends it."""
    number = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            problems.add(name, f"line {number}", f"longer than {MAX_ROW_BYTES >> 20} MiB, expected one row a line")
            return
        yield number, line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
