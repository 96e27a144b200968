"""Kubernetes quantities: `1500m`, `8Gi`, `2`."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

KIB: Final = 1024
MIB: Final = 1024**2
GIB: Final = 1024**3

_SUFFIXES: Final[dict[str, Fraction]] = {
    "Ki": Fraction(KIB),
    "Mi": Fraction(MIB),
    "Gi": Fraction(GIB),
    "Ti": Fraction(1024**4),
    "Pi": Fraction(1024**5),
    "m": Fraction(1, 1000),
    "k": Fraction(1000),
    "M": Fraction(1000**2),
    "G": Fraction(1000**3),
    "T": Fraction(1000**4),
    "P": Fraction(1000**5),
}


def parse_quantity(text: str) -> Fraction:
    """Return the exact value of a quantity: CPUs for a CPU quantity, bytes for a memory quantity.

    Raises:
        ValueError: it is no quantity of the form that the API admits.
    """
    for suffix, factor in _SUFFIXES.items():
        if text.endswith(suffix):
            return _number(text, text.removesuffix(suffix)) * factor
    return _number(text, text)


def memory_quantity(size: int, *, step: int = 256 * MIB) -> str:
    """Return the quantity of `size` bytes, rounded up to `step` bytes: whole Gi where it is one, else Mi."""
    rounded = math.ceil(size / step) * step
    return f"{rounded // GIB}Gi" if rounded % GIB == 0 else f"{rounded // MIB}Mi"


def format_bytes(size: int | Fraction) -> str:
    """Return bytes for a person, such as `2.9 GiB`."""
    return f"{float(size) / GIB:.1f} GiB"


def _number(quantity: str, digits: str) -> Fraction:
    if not digits or not all(character.isdecimal() and character.isascii() for character in digits.replace(".", "", 1)):
        raise ValueError(f"quantity: found {quantity!r}, allowed: a number with a suffix such as m, k, Mi or Gi")
    return Fraction(digits)
