"""What the common types of text and numbers take and refuse."""

from typing import Any

from tests.support.crd.documents import HASH, TIME


class Values:
    """What the common types of text take and refuse."""

    label = (
        ("a", "0", "a-0", "a" * 63),
        {"minLength": "", "maxLength": "a" * 64, "form": "A"},
    )
    alias = (
        ("a", "a-0", "a" * 63),
        {"minLength": "", "maxLength": "a" * 64, "form": "1"},
    )
    name = (
        ("a", "a.b-c.0", "a" * 253),
        {"minLength": "", "maxLength": "a" * 254, "form": "a..b"},
    )
    qualified = (
        ("a", "nvidia.com/gpu", "a" * 253 + "/" + "b" * 63),
        {"minLength": "", "maxLength": "a" * 254 + "/" + "b" * 63, "form": "a b"},
    )
    label_value = (
        ("", "true", "A_b.c-0", "a" * 63),
        {"maxLength": "a" * 64, "form": "-a"},
    )
    cpu = (
        ("1", "0.5", "1500m", "1" * 32, 1, 64),
        {"minLength": "", "maxLength": "1" * 33, "form": "0", "minimum": 0},
    )
    memory = (
        ("1k", "8Gi", "1.5Ti", "1" * 30 + "Gi"),
        {"minLength": "", "maxLength": "1" * 31 + "Gi", "form": "8"},
    )
    pod_memory = (("512Mi", "8Gi", "1.5Ti", "1" * 30 + "Gi"), memory[1])
    image = (
        ("a", "registry.example:5000/a/b:1", "a@sha256:" + HASH, "a" * 512),
        {"minLength": "", "maxLength": "a" * 513, "form": "a b"},
    )
    sha256 = (
        (HASH,),
        {"minLength": HASH[1:], "maxLength": HASH + "0", "form": HASH.upper()},
    )
    time = (
        (TIME, "2026-01-31T12:00:00+01:00", "2026-01-31T12:00:00." + "0" * 19 + "Z"),
        {"minLength": "2026-01-31T12:00:00", "maxLength": "2026-01-31T12:00:00." + "0" * 20 + "Z", "pattern": "x" * 20},
    )
    revision = (
        ("a", "main", "refs/pr/1", "a" * 255),
        {"minLength": "", "maxLength": "a" * 256, "form": "-a"},
    )
    module = (
        ("a", "model.layers.0.q_proj", "a" * 128),
        {"minLength": "", "maxLength": "a" * 129, "form": "a b"},
    )


def numbers(low: float, high: float, step: float = 1) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (low, high), {"minimum": low - step, "maximum": high + step}


def above(low: float, high: float, step: float) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Numbers greater than the lower bound."""
    return (low + step, high), {"minimum": low, "maximum": high + step}


def at_least(low: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (low, 2**53), {"minimum": low - 1}


def at_most(length: int, least: int = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Text of any kind, bound in length."""
    return ("a" * least, "a" * length), {"maxLength": "a" * (length + 1)} | ({"minLength": ""} if least else {})
