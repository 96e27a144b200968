"""What the generated CRDs demand, listed one by one: paths, bounds, defaults and rules."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from tests.support.paths import REPOSITORY

Schema = dict[str, Any]

KINDS = {"FineTuneJob": "finetunejobs", "ComputePool": "computepools", "ModelVersion": "modelversions"}
BOUNDS = (
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "enum",
)


class SchemaRule(NamedTuple):
    """One CEL rule, by where it stands and what it says."""

    path: str
    field_path: str
    message: str


@functools.cache
def crd(kind: str) -> Schema:
    """Returns the generated CRD of a kind: read it, do not change it."""
    found: Schema = yaml.safe_load((REPOSITORY / "crds" / f"{KINDS[kind]}.yaml").read_text())
    return found


def root(kind: str) -> Schema:
    """Returns the schema of a kind."""
    found: Schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def parts(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yields each part of a schema with its path: `a.b`, `a[]` for items of a list, `a{}` for values of a map."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        if path or name in ("spec", "status"):
            yield from parts(part, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from parts(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from parts(schema["additionalProperties"], f"{path}{{}}")


def form(part: Schema) -> str:
    """Returns what a text must look like, in the words of its rule; nothing where it may look like anything."""
    if "properties" in part or "additionalProperties" in part:
        return ""
    return str(next((rule["message"] for rule in part.get("x-kubernetes-validations", ())), ""))


def bounds(kind: str) -> dict[tuple[str, str], Any]:
    """Returns the value of every bound of a kind, by path and keyword; the form of a text counts as one."""
    found = {(path, word): part[word] for path, part in parts(root(kind)) for word in BOUNDS if word in part}
    return found | {(path, "form"): form(part) for path, part in parts(root(kind)) if form(part)}


def defaults(kind: str) -> dict[str, Any]:
    """Returns every default of a kind, by path."""
    return {path: part["default"] for path, part in parts(root(kind)) if "default" in part}


def rules(kind: str) -> list[SchemaRule]:
    """Returns every CEL rule of a kind, but for those on the form of a text."""
    return [
        SchemaRule(path, rule.get("fieldPath", ""), rule["message"])
        for path, part in parts(root(kind))
        for rule in part.get("x-kubernetes-validations", ())
        if not form(part)
    ]


def wrong_value(part: Schema) -> Any:
    """Returns a value of another type than a part of a schema takes."""
    if part.get("x-kubernetes-int-or-string"):
        return True
    return 7 if part["type"] == "string" else "7"
