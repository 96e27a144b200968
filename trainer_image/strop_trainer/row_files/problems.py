"""What is wrong with files and rows, in words."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from strop_trainer.errors import bad_data

Place = str
"""Such as `line 3`."""
Placed = tuple[Place, Any]
SHOWN_PROBLEMS: Final = 10
SHOWN_NAMES: Final = 12
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


def shown_names(names: Sequence[str]) -> str:
    """Return the names of columns for a message."""
    shown = ", ".join(str(name)[:40] for name in names[:SHOWN_NAMES])
    return (f"{shown}, …" if len(names) > SHOWN_NAMES else shown) or "nothing"


def kind(value: Any) -> str:
    """Return what a value is, in words."""
    return _KINDS.get(type(value), "a number")
