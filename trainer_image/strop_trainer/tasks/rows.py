"""JSONL files as checked rows, held-out rows, and what they have in common. Knows no task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from strop_trainer.errors import bad_data
from strop_trainer.sources import RowFile
from strop_trainer.tasks.base import Dataset, DatasetStatistics

SHOWN_PROBLEMS = 10
MAX_LINE_BYTES = 16 << 20

Check = Callable[[Any], Any]
"""Returns a row in its normal form, or raises ValueError with field, found and expected."""


class Problems:
    """Wrong rows: the first few in words, the rest as a number."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.count = 0

    def add(self, file: str, line: int, problem: str) -> None:
        """Note one wrong line; lines count from 1."""
        self.count += 1
        if len(self.shown) < SHOWN_PROBLEMS:
            self.shown.append(f"{file} line {line}: {problem}")

    def raise_if_any(self) -> None:
        """Raise a TrainerError (exit 65) with what was noted."""
        if self.count:
            rest = self.count - len(self.shown)
            more = f"\n… and {rest} more" if rest else ""
            rows = "1 wrong row" if self.count == 1 else f"{self.count} wrong rows"
            raise bad_data(f"dataset: {rows}\n" + "\n".join(self.shown) + more)


def read_rows(files: Sequence[RowFile], check: Check, problems: Problems, limit: int | None = None) -> list[bytes]:
    """Read and check every line of the files; return the normal form of the right ones, at most `limit`.

    Empty lines are passed over, a byte order mark at the start of a file too.
    """
    rows: list[bytes] = []
    for file in files:
        for number, line in _lines(file.path, file.name, problems):
            try:
                row = check(_parse(line))
            except ValueError as error:
                problems.add(file.name, number, str(error))
                continue
            if limit is None or len(rows) < limit:
                rows.append(normal_form(row))
    return rows


def normal_form(row: Any) -> bytes:
    """Return the one JSON of a row that duplicates and fingerprints are judged by."""
    return json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _lines(path: Path, name: str, problems: Problems) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                problems.add(name, number, f"longer than {MAX_LINE_BYTES >> 20} MiB; is it JSONL, one object a line?")
                return
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield number, line


def _parse(line: bytes) -> Any:
    try:
        text = line.rstrip(b"\r\n").decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1} of the line (0x{line[error.start]:02x})") from None
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"broken JSON at column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("broken JSON: nested too deeply") from None
    try:
        text.encode()
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("broken JSON: a lone surrogate, which is no character") from None
    return row


def split(rows: Sequence[bytes], fraction: float, seed: int) -> tuple[list[bytes], list[bytes]]:
    """Hold out a fraction of the rows: at least one, never all, and never a row that is also trained on.

    Each row's place comes from the hash of the seed and its content, so that equal rows fall on one side, and a row
    that is added or moved leaves the others where they were.

    Raises:
        TrainerError: fewer than two different rows.
    """
    keys = [hashlib.sha256(f"{seed}:".encode() + row).digest() for row in rows]
    order = sorted(set(keys))
    if len(order) < 2:  # noqa: PLR2004 - one to learn from, one to hold out
        raise bad_data(
            f"dataset: {len(rows)} row(s), {len(order)} different; at least 2 are needed, one of them to be held out"
        )
    count = min(max(1, round(len(order) * fraction)), len(order) - 1)
    held = set(order[:count])
    train = [row for row, key in zip(rows, keys, strict=True) if key not in held]
    validation = list(dict.fromkeys(row for row, key in zip(rows, keys, strict=True) if key in held))
    return train, validation


def assemble(
    train: list[bytes], validation: list[bytes], files: Sequence[RowFile], prompt: Callable[[bytes], bytes]
) -> Dataset:
    """Fingerprint the rows and count what they share.

    Args:
        train: normal forms.
        validation: normal forms.
        files: where they are from.
        prompt: gives the part of a row that the model is asked with.
    """
    digest = hashlib.sha256()
    for part, rows in (("train", train), ("validation", validation)):
        digest.update(f"{part} {len(rows)}\n".encode())
        for row in rows:
            digest.update(row + b"\n")
    seen = {hashlib.sha256(row).digest() for row in train}
    prompts = {hashlib.sha256(prompt(row)).digest() for row in train}
    return Dataset(
        train,
        validation,
        DatasetStatistics(
            fingerprint="sha256:" + digest.hexdigest(),
            train_rows=len(train),
            validation_rows=len(validation),
            duplicates=len(train) - len(seen),
            leaked=sum(hashlib.sha256(row).digest() in seen for row in validation),
            leaked_prompts=sum(hashlib.sha256(prompt(row)).digest() in prompts for row in validation),
            files=[file.name for file in files],
        ),
    )
