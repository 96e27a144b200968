"""What tells equal rows: eight bytes a row, so that millions of them fit. Knows no task.

Two different rows have the same key with a chance of one in 2^64: of two million rows, any two with 1 in 10^7.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

PARTS: Final = 256
_SHIFT: Final = 56


def key_of(content: bytes) -> int:
    """Return the first 64 bits of the content's SHA-256."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8])


class Keys:
    """Keys of rows, to be counted. In parts by their first byte, so that a set of few is made at a time."""

    def __init__(self) -> None:
        self._parts = [array("Q") for _ in range(PARTS)]

    def add(self, content: bytes) -> None:
        """Take one more."""
        key = key_of(content)
        self._parts[key >> _SHIFT].append(key)

    @property
    def different(self) -> int:
        """How many there are, equal ones once."""
        return sum(len(set(part)) for part in self._parts)

    def of_these(self, others: Keys) -> int:
        """Return how many of the others, equal ones each, are among these."""
        count = 0
        for mine, theirs in zip(self._parts, others._parts, strict=True):
            known = set(mine)
            count += sum(key in known for key in theirs)
        return count


class Groups:
    """Rows by their keys, in the order of these."""

    def __init__(self, keys: Iterable[int]) -> None:
        self._keys = array("Q", keys)
        self._parts = [array("Q") for _ in range(PARTS)]
        for index, key in enumerate(self._keys):
            self._parts[key >> _SHIFT].append(index)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indices of equal rows, in their order; the groups in the order of their keys."""
        keys = self._keys
        for part in self._parts:
            for _, group in groupby(sorted(part, key=keys.__getitem__), key=keys.__getitem__):
                yield list(group)
