"""Fields of a row, checked one by one: what is wrong is said as `field: found X, expected Y`."""

from __future__ import annotations

from typing import Any, Final

from strop_trainer.row_files.problems import kind, shown_names

SHOWN_CHARACTERS: Final = 40


def field_of(row: dict[str, Any], name: str, within: str = "") -> Any:
    """Return a field that must be there.

    Args:
        row: a row, or an object of one.
        name: of the field.
        within: name of the object in its row, with a dot behind it.

    Raises:
        ValueError: it is missing, or null.
    """
    if name not in row:
        raise ValueError(f"{within}{name}: missing; found {shown_names(list(row))}, expected a value")
    if row[name] is None:
        raise ValueError(f"{within}{name}: found null, expected a value")
    return row[name]


def text_of(value: Any, name: str) -> str:
    """Return a value that must be text that is not blank.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name}: found {kind(value)}, expected a string")  # noqa: TRY004 - one kind of error for users
    if not value.strip():
        raise ValueError(f"{name}: empty, expected text")
    return value


def list_of(value: Any, name: str) -> list[Any]:
    """Return a value that must be a list.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, list):
        raise ValueError(f"{name}: found {kind(value)}, expected a list")  # noqa: TRY004
    return value


def first_in(place: str) -> str:
    """Return the words for the row that set what the others must be like; nothing where it is not known."""
    return f" (first in {place})" if place else ""


def shown(text: str) -> str:
    """Return a short quotation of a text."""
    cut = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
    return repr(cut)
