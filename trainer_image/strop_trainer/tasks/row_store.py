"""Rows in a temporary file instead of in memory: a data set may be larger than what a pod has."""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Final, overload

from strop_trainer.errors import TrainerError, bad_configuration

_BUFFER = 1 << 20
"""Bytes that are written at once."""
_AHEAD = 1 << 18
"""Bytes of rows next to each other that are read at once."""
_GOLDEN: Final = (5**0.5 - 1) / 2
"""Its multiples fill a circle evenly, however many they are."""


@dataclass
class _Kept:
    """The file, and where each row ends in it."""

    file: IO[bytes] = field(
        default_factory=lambda: tempfile.TemporaryFile(buffering=_BUFFER)  # noqa: SIM115 - closed with its last reader
    )
    ends: array[int] = field(default_factory=lambda: array("Q"))

    def __post_init__(self) -> None:
        weakref.finalize(self, self.file.close)

    def flush(self) -> None:
        """Write what is still in the buffer."""
        try:
            self.file.flush()
        except OSError as error:
            raise _no_room(error) from None

    def read(self, place: int) -> bytes:
        """Return a row; by its place in the file, which processes and threads may share."""
        self.flush()
        begin = self.ends[place - 1] if place else 0
        return os.pread(self.file.fileno(), self.ends[place] - begin, begin)

    def read_all(self, places: Iterable[int]) -> Iterator[bytes]:
        """Yield rows; those that follow each other in the file are read together."""
        ends, descriptor = self.ends, self.file.fileno()
        window, start = b"", 0
        for place in places:
            begin, end = ends[place - 1] if place else 0, ends[place]
            if begin < start or end - start > len(window):
                self.flush()
                window, start = os.pread(descriptor, max(end - begin, _AHEAD), begin), begin
            yield window[begin - start : end - start]


class Rows(Sequence[bytes]):
    """Rows, of which 8 bytes each are in memory (16 of a selection).

    The file has no name and goes with the last of those that read it. A selection shares it.
    """

    def __init__(self, rows: Iterable[bytes] = ()) -> None:
        """Take rows over.

        Raises:
            TrainerError: there is no folder for temporary files, or no room in it (exit 78).
        """
        try:
            self._kept = _Kept()
        except OSError as error:
            raise _no_room(error) from None
        self._places: Sequence[int] | None = None
        for row in rows:
            self.append(row)

    def append(self, row: bytes) -> None:
        """Add a row at the end; only before anything was selected.

        Raises:
            TrainerError: the folder of temporary files has no room for it (exit 78).
        """
        try:
            self._kept.file.write(row)
        except OSError as error:
            raise _no_room(error) from None
        ends = self._kept.ends
        ends.append((ends[-1] if ends else 0) + len(row))

    def select(self, places: Iterable[int]) -> Rows:
        """Return some of the rows, in the order of the places."""
        found = Rows.__new__(Rows)
        found._kept = self._kept
        own = self._places
        found._places = array("Q", places if own is None else (own[place] for place in places))
        return found

    def __len__(self) -> int:
        return len(self._kept.ends if self._places is None else self._places)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Rows: ...
    def __getitem__(self, at: int | slice) -> bytes | Rows:
        if isinstance(at, slice):
            return self.select(range(len(self))[at])
        place = range(len(self))[at]
        return self._kept.read(place if self._places is None else self._places[place])

    def __iter__(self) -> Iterator[bytes]:
        return self._kept.read_all(range(len(self)) if self._places is None else self._places)

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


def spread(rows: Sequence[bytes], count: int) -> Sequence[bytes]:
    """Return the rows in an order whose first ones, so many, are taken evenly over all; and the first of those, too.

    Files are often sorted by label or topic: what stands at their beginning is not what stands in them. However few of
    the first rows are used, they are of the whole file.
    """
    total = len(rows)
    count = min(count, total)
    places = sorted(range(count), key=lambda place: place * _GOLDEN % 1)
    first = [(2 * place + 1) * total // (2 * count) for place in places]
    chosen = set(first)
    order = [*first, *(place for place in range(total) if place not in chosen)]
    return rows.select(order) if isinstance(rows, Rows) else [rows[place] for place in order]


def _no_room(error: OSError) -> TrainerError:
    return bad_configuration(
        f"dataset: no room for its rows among the temporary files ({error.strerror or error}), expected as much as its "
        "files take, in the folder that TMPDIR names"
    )
