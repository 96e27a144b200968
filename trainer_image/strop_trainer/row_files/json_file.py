"""Rows of JSON Lines and of JSON lists."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Final

from strop_trainer.row_files.columns import Table
from strop_trainer.row_files.lines import BYTE_ORDER_MARK, CHUNK, MAX_ROW_BYTES, numbered_lines
from strop_trainer.row_files.problems import SHOWN_PROBLEMS, Placed, kind

TOO_MANY_DIGITS: Final = "a number of too many digits"
_SPACE: Final = " \t\r\n"


def json_rows(table: Table) -> Iterator[Placed]:
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


def _json_lines(file: BinaryIO, table: Table) -> Iterator[Placed]:
    first = True
    for number, line in numbered_lines(file, table.file.name, table.problems):
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
        raise ValueError(f"broken JSON: {TOO_MANY_DIGITS}") from None
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


def _json_list(file: BinaryIO, table: Table) -> Iterator[Placed]:
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
            raise ValueError(f"broken JSON: {TOO_MANY_DIGITS}") from None
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
