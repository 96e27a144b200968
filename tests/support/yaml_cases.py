"""Plain YAML scalars and what kubectl makes of them, as JSON: one table for our loader and for kubectl itself."""

import json
from typing import Any

SCALARS: dict[str, Any] = {
    "2e-4": 0.0002,
    "2E-4": 0.0002,
    "1e3": 1000,
    "+1e3": 1000,
    "1e+2": 100,
    "1e-7": 1e-07,
    "1.0": 1,
    "16.0": 16,
    "1.5": 1.5,
    ".5": 0.5,
    "+.5": 0.5,
    "5.": 5,
    "1.e3": 1000,
    "-0.0": 0,
    ".": ".",
    ".e3": ".e3",
    "1e2.5": "1e2.5",
    "1e400": "1e400",
    "6.02e23": 6.02e23,
    "1_000": 1000,
    "1__0": 10,
    "5_": 5,
    "_1": "_1",
    "1_000.5": 1000.5,
    "0x1F": 31,
    "0x": "0x",
    "-0x1F": -31,
    "010": 8,
    "-010": -8,
    "0o10": 8,
    "0o8": "0o8",
    "08": 8,
    "00": 0,
    "0b11": 3,
    "-0b11": -3,
    "0b2": "0b2",
    "+5": 5,
    "1:30": "1:30",
    "190:20:30": "190:20:30",
    "2001-01-01": "2001-01-01",
    "2001-01-01T10:00:00Z": "2001-01-01T10:00:00Z",
    "on": True,
    "off": False,
    "yes": True,
    "No": False,
    "y": True,
    "N": False,
    "TRUE": True,
    "tRUE": "tRUE",
    "~": None,
    "null": None,
    "Null": None,
    "": None,
    "=": "=",
    "<<": "<<",
    '"2e-4"': "2e-4",
    "'1'": "1",
    '"yes"': "yes",
    "!!str 5": "5",
    '!!int "3"': 3,
    "!!float 3": 3,
    '!!bool "yes"': True,
    "!!timestamp 2001-01-01": "2001-01-01",
    "!!binary aGVsbG8=": "hello",
    "[1, 2.0, yes]": [1, 2, True],
    "{1: a, 1.5: b, 2e-4: c, yes: d}": {"1": "a", "1.5": "b", "0.0002": "c", "true": "d"},
    "{<<: {a: 1, b: 2}, b: 3}": {"a": 1, "b": 3},
    "{b: 3, <<: {a: 1, b: 2}}": {"a": 1, "b": 2},
    "{<<: [{a: 1}, {a: 2, b: 2}]}": {"a": 1, "b": 2},
    "&x 3": 3,
}


def manifest() -> str:
    """Return an object of which each scalar is a field."""
    lines = [f"  c{number}: {text}" for number, text in enumerate(SCALARS)]
    return "\n".join(
        ["apiVersion: strop.dev/v1alpha1", "kind: FineTuneJob", "metadata: {name: a}", "spec:", *lines, ""]
    )


def differences(spec: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the scalars of a loaded manifest's spec that are not what the table says: text → (found, wanted)."""
    found = {text: spec.get(f"c{number}") for number, text in enumerate(SCALARS)}
    return {
        text: (found[text], wanted)
        for text, wanted in SCALARS.items()
        # As JSON, for 1 and 1.0 and true are equal in Python.
        if json.dumps(found[text], sort_keys=True) != json.dumps(wanted, sort_keys=True)
    }
