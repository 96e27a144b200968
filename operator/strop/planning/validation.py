"""What is wrong with a resource, said as `field: found, allowed`: the answer of admission, without an API server."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from strop.api import forms
from strop.api.base import BrokenRulesError, Resource
from strop.api.crdgen import definition
from strop.api.finetunejob import SUPPORTED

M = TypeVar("M", bound=BaseModel)

_TYPES: Final = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}
_NUMBER: Final = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_ALLOWED: Final = "allowed: "
_INSIDE: Final = ("source", "type", "pool", "name")
"""Fields that a lone text in place of an object was probably meant for."""
_CALLED: Final = {
    "gpu": "accelerators",
    "gpus": "accelerators",
    "accelerator": "accelerators",
    "ram": "memory",
    "mem": "memory",
    "lr": "learningRate",
}
"""Usual name of a field, in lower case → its name here."""
_PLACES: Final = 3
"""Fields of one name elsewhere that are told of; more are no hint."""


@dataclass(frozen=True)
class Problem:
    """One wrong field."""

    path: str
    """Such as `spec.method.lora.rank`."""
    message: str
    """Such as `found 0, allowed: 1 to 1024`."""

    def __str__(self) -> str:
        """Return path and message as one line."""
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidResourceError(ValueError):
    """A resource that admission would refuse."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


def read_resource(model: type[Resource], document: Mapping[str, Any]) -> Resource:
    """Return a whole resource from a manifest.

    Raises:
        InvalidResourceError: with every wrong field.
    """
    return _read(model, document, schema_of(model), ())


def read_spec(model: type[Resource], spec_model: type[M], spec: Any) -> M:
    """Return the spec of a resource that the API server keeps: its metadata and status are not judged.

    Raises:
        InvalidResourceError: with every wrong field.
    """
    return _read(spec_model, spec, schema_of(model)["properties"]["spec"], ("spec",))


@cache
def schema_of(model: type[Resource]) -> dict[str, Any]:
    """Return the structural schema of a resource type, as its CustomResourceDefinition has it."""
    schema: dict[str, Any] = definition(model)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _read(model: type[M], value: Any, schema: Mapping[str, Any], prefix: tuple[str, ...]) -> M:
    try:
        return model.model_validate(value, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidResourceError(
            [problem for detail in error.errors(include_url=False) for problem in _problems(detail, schema, prefix)]
        ) from None


def _problems(detail: Mapping[str, Any], schema: Mapping[str, Any], prefix: tuple[str, ...]) -> list[Problem]:
    location: tuple[int | str, ...] = tuple(detail["loc"])
    path = _path((*prefix, *location))
    kind, found = detail["type"], detail["input"]
    if kind == "value_error":
        return _broken_rules(path, detail["ctx"]["error"])
    if kind == "extra_forbidden":
        return [Problem(path, _unknown(str(location[-1]), _at(schema, location[:-1]), schema))]
    field = _at(schema, location)
    if kind == "missing":
        words = field.get("description", "required").partition(". ")[0].rstrip(".")
        return [
            Problem(path, f"missing: {words}" + (f", allowed: {', '.join(field['enum'])}" if "enum" in field else ""))
        ]
    if kind == "literal_error" and "enum" not in field:  # apiVersion and kind
        allowed = detail["ctx"]["expected"].replace("'", "")
        return [Problem(path, f"found {_shown(found)}, allowed: {allowed}")]
    if location[-1:] == ("[key]",):
        return [Problem(path, f"found {_shown(found)}, allowed: keys {_key_form(detail)}")]
    if "enum" in field:
        return [Problem(path, _not_in_enumeration(found, field["enum"], path))]
    if kind == forms.ERROR:
        return [Problem(path, detail["msg"])]
    return [Problem(path, f"found {_shown(found)}, allowed: {_allowed(field) or detail['msg']}{_hint(found, field)}")]


def _broken_rules(path: str, error: Exception) -> list[Problem]:
    if not isinstance(error, BrokenRulesError):
        return [Problem(path, str(error))]
    return [Problem(".".join(part for part in (path, each.field) if part), each.message) for each in error.violations]


def _not_in_enumeration(found: Any, values: Sequence[str], path: str) -> str:
    """Return what this version can do, without the values that the schema holds and the next check would refuse."""
    supported = SUPPORTED.get(path.removeprefix("spec."), values)
    scope = "" if set(supported) == set(values) else " (this version)"
    near = difflib.get_close_matches(str(found).lower(), supported, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"found {_shown(found)}, allowed: {', '.join(supported)}{scope}{hint}"


def _unknown(name: str, parent: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return what to do about a field that its object has not: the field that was meant, here or elsewhere.

    Args:
        name: of the field.
        parent: schema of the object that it stands in.
        schema: of the whole resource, or of its spec.
    """
    known = sorted(parent.get("properties", {}))
    by_lower = {candidate.lower(): candidate for candidate in known}
    plain = name.lower().replace("_", "").replace("-", "")
    called = "accelerators" if plain.endswith("/gpu") else _CALLED.get(plain)
    if called in known:
        return f"unknown field; did you mean {called}?"
    elsewhere = list(_places(called or plain, schema.get("properties", {}).get("spec", schema), ""))
    there = f"; it is {' or '.join(elsewhere)}" if 0 < len(elsewhere) <= _PLACES else ""
    near = difflib.get_close_matches(plain, by_lower, n=1, cutoff=0.8 if there else 0.6)
    if near:
        return f"unknown field; did you mean {by_lower[near[0]]}?"
    return f"unknown field, allowed: {', '.join(known)}{there}"


def _places(name: str, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the paths of the fields of a name, whatever its case."""
    for field, part in schema.get("properties", {}).items():
        here = f"{path}.{field}" if path else field
        if field.lower() == name.lower():
            yield here
        yield from _places(name, part, here)
    if "items" in schema:
        yield from _places(name, schema["items"], f"{path}[]")


def _at(schema: Mapping[str, Any], location: Sequence[int | str]) -> Mapping[str, Any]:
    """Return the schema of a field; {} where the location leads into a map's key."""
    for step in location:
        if isinstance(step, int):
            schema = schema.get("items", {})
        elif step in schema.get("properties", {}):
            schema = schema["properties"][step]
        else:
            schema = schema.get("additionalProperties", {}) if step != "[key]" else {}
    return schema


def _key_form(detail: Mapping[str, Any]) -> str:
    context = detail.get("ctx", {})
    if words := context.get("words"):
        return f"that are {words}"
    low, high = context.get("min_length"), context.get("max_length")
    return f"of {low} or more characters" if low is not None else f"of up to {high} characters"


def _allowed(field: Mapping[str, Any]) -> str:
    if form := _form(field):
        length = f", up to {field['maxLength']} characters" if "maxLength" in field else ""
        return form + length
    kind = _TYPES.get(field.get("type", ""), "")
    if bounds := _bounds(field):
        return f"{kind}{' of' if field['type'] == 'array' else ','} {bounds}"
    return kind or field.get("description", "").rstrip(".")


def _form(field: Mapping[str, Any]) -> str:
    """Return what a text must look like, in the words of its rule."""
    messages = [rule["message"] for rule in field.get("x-kubernetes-validations", ()) if field.get("type") != "object"]
    return next((text.removeprefix(_ALLOWED) for text in messages if text.startswith(_ALLOWED)), "")


def _bounds(field: Mapping[str, Any]) -> str:
    """Return the range of a number, or of the length of a list without a pattern to match."""
    match field.get("type"):
        case "integer" | "number":
            low, high = field.get("minimum"), field.get("maximum")
            unit = ""
        case "array":
            low, high = field.get("minItems"), field.get("maxItems")
            unit = " entries"
        case _:
            return ""
    below = f"{low:g}" if isinstance(low, float) else low
    above = f"{high:g}" if isinstance(high, float) else high
    if low is not None and high is not None:
        start = f"more than {below}, up to" if field.get("exclusiveMinimum") else f"{below} to"
        return f"{start} {'less than ' if field.get('exclusiveMaximum') else ''}{above}{unit}"
    if low is not None:
        return f"{'more than ' if field.get('exclusiveMinimum') else ''}{below}{unit} or more"
    return f"up to {above}{unit}" if high is not None else ""


def _hint(found: Any, field: Mapping[str, Any]) -> str:
    kind = field.get("type")
    if isinstance(found, str) and kind in {"integer", "number"} and _NUMBER.fullmatch(found):
        return "; it is text here: write it without quotes"
    if isinstance(found, bool | int | float) and kind == "string":
        if isinstance(found, int) and "8Gi" in _form(field):
            return f"; it needs a unit, such as {found}Gi"
        return "; it is no text here: write it in quotes"
    if kind in {"object", "array"} and (example := _wrapped(found, field)):
        return f"; did you mean {example}?"
    return ""


def _wrapped(found: Any, field: Mapping[str, Any]) -> str:
    """Return what a lone value was probably meant as, in YAML, where an object or a list is expected."""
    if field["type"] == "array":
        items = field["items"]
        if isinstance(found, Mapping) and items.get("type") == "object":
            return "a list with it, [{…}]"
        inner = _wrapped(found, items) if items.get("type") == "object" else found if isinstance(found, str) else ""
        return f"[{inner}]" if inner else ""
    inside = next((name for name in _INSIDE if name in field.get("properties", {})), None)
    return f"{{{inside}: {found}}}" if inside and isinstance(found, str) else ""


def _shown(found: Any) -> str:
    if isinstance(found, bool):
        return str(found).lower()
    if isinstance(found, Mapping):
        return "an object"
    if isinstance(found, list):
        return f"a list of {len(found)}"
    return "nothing" if found is None else repr(found)


def _path(location: Sequence[int | str]) -> str:
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step != "[key]":
            text += f".{step}" if text else step
    return text
