"""Documents of plain text, as rows with `text`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from strop_trainer.row_files.lines import numbered_lines
from strop_trainer.row_files.problems import Placed, Problems
from strop_trainer.sources import RowFile

PART_CHARACTERS: Final = 8192
"""A longer document of a text file is read in parts of about so many characters."""
DOCUMENT_GAP: Final = 2
"""Empty lines that set the documents of a text file apart."""
TUNE_GAP: Final = 1
"""Empty lines that end a tune in ABC notation."""


def text_rows(file: RowFile, problems: Problems) -> Iterator[Placed]:
    """Yield the documents of a plain text file, which two or more empty lines set apart; the tunes of ABC, one.

    A long document comes in parts, so that neither memory nor what can be held out depends on its length: a part ends
    at an empty line, else at the end of a line, and each but the last has `continues`.
    """
    with file.path.open("rb") as opened:
        gap = TUNE_GAP if Path(file.name).suffix.lower() == ".abc" else DOCUMENT_GAP
        yield from documents(_text_lines(opened, file.name, problems), gap=gap)


def _text_lines(file: BinaryIO, name: str, problems: Problems) -> Iterator[tuple[int, str]]:
    for number, line in numbered_lines(file, name, problems):
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
    """Yield documents, or their parts, as rows; see `text_rows`."""
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
