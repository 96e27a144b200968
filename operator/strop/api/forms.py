"""Text of a certain form: a pattern for the machine, a sentence for people, and what was probably meant.

A structural schema's `pattern` is answered by the API server with the pattern itself. A form becomes a CEL rule with a
sentence instead, and its twin in pydantic says the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

KEYWORD: Final = "x-strop-form"
"""In the JSON schema of pydantic only; the CRD holds the rule that is made of it."""
ERROR: Final = "form"
"""Type of pydantic's error."""

Hint = Callable[[str], str | None]


class Form:
    """Annotation of a text that must match a pattern in full."""

    def __init__(self, pattern: str, words: str, hint: Hint | None = None) -> None:
        self.pattern = pattern
        self.words = words
        """What is allowed, to stand behind `allowed: `."""
        self.hint = hint
        """Wrong text → what is to be done about it, such as `did you mean 8G?`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Check after the type and the length."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Hand the form to the generator of the CRDs."""
        return {**handler(schema), KEYWORD: {"pattern": f"^({self.pattern})$", "words": self.words}}

    def _check(self, text: str) -> str:
        if re.fullmatch(self.pattern, text):
            return text
        hint = self.hint(text) if self.hint else None
        raise PydanticCustomError(
            ERROR,
            "found '{found}', allowed: {words}{ending}",
            {"found": text, "words": self.words, "ending": f"; {hint}" if hint else "", "hint": hint or ""},
        )


def form_rule(form: dict[str, str], *, or_integer: bool) -> dict[str, str]:
    """Return the CEL rule of a text's schema; the message tells what was found.

    Args:
        form: pattern and words.
        or_integer: an integer may stand in place of the text.
    """
    matches = f"self.matches(r'{form['pattern']}')"
    return {
        "rule": f"type(self) == int || {matches}" if or_integer else matches,
        "message": f"allowed: {form['words']}",
        "messageExpression": f'"found \'" + {"string(self)" if or_integer else "self"} + '
        + json.dumps(f"', allowed: {form['words']}", ensure_ascii=False),
    }


def meant(text: str | None) -> str | None:
    """Return a suggestion as a question."""
    return f"did you mean {text}?" if text else None


_MEMORY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp])(i?)b?(?:yte(?:s)?)?", re.IGNORECASE)
_CPU: Final = re.compile(r"([0-9]+)(?:[.,]([0-9]+))?\s*(m|millicores?|c|cpus?|cores?|vcpus?)?", re.IGNORECASE)
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([mb])(?:illion)?(?: ?param\w*)?", re.IGNORECASE)


def memory_hint(text: str) -> str | None:
    """Return what memory was probably meant: 8GB → 8G, 8GiB → 8Gi."""
    found = _MEMORY.fullmatch(text.strip())
    if found is None or not float(found[1]):
        return "it needs a unit" if re.fullmatch(r"[1-9][0-9]*", text.strip()) else None
    unit = found[2].lower() if found[2].lower() == "k" and not found[3] else found[2].upper()
    return meant(f"{found[1]}{unit}{'i' if found[3] else ''}")


def cpu_hint(text: str) -> str | None:
    """Return what number of CPUs was probably meant: `2 cores` → 2."""
    found = _CPU.fullmatch(text.strip())
    if found is None or not int(found[1] + (found[2] or "")):
        return None
    milli = "m" if (found[3] or "").lower().startswith("m") else ""
    return meant(found[1] + (f".{found[2]}" if found[2] else "") + milli)


def size_hint(text: str) -> str | None:
    """Return what size of a model was probably meant: 135m → 135M."""
    found = _SIZE.fullmatch(text.strip())
    return meant(f"{found[1]}{found[2].upper()}") if found and float(found[1]) else None


def name_hint(text: str) -> str | None:
    """Return a name near a wrong one that a label may be: `My_Bot` → my-bot."""
    near = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return meant(near) if near else None


def model_source_hint(text: str) -> str | None:
    """Return what to do about a model's source that is none."""
    if text.startswith("configmap://"):
        return "a ConfigMap holds rows, not models"
    return _source_hint(text, hub="hf://", hub_form="hf://owner/name", more="/path of the model's folder")


def data_source_hint(text: str) -> str | None:
    """Return what to do about a source of rows that is none."""
    if re.fullmatch(r"configmap://[^/]*/?", text):
        return f"name the key, too: did you mean {text.rstrip('/')}/train.jsonl?"
    return _source_hint(text, hub="hf://datasets/", hub_form="hf://datasets/owner/name/path", more="/path of the file")


def _source_hint(text: str, *, hub: str, hub_form: str, more: str) -> str | None:
    scheme, colon, rest = text.partition("://")
    if not colon or scheme.lower() == "file":
        if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", text) and hub == "hf://":
            return meant(f"hf://{text}")
        return "a file or folder of this machine is reached as pvc://claim/path, with --volume claim=DIR"
    if "@" in rest and scheme.lower() in {"hf", "https"}:
        return (
            "the revision has a field of its own, revision" if scheme.lower() == "hf" else "no user or password in it"
        )
    if scheme.lower() == "hf":
        repository = rest.removeprefix("datasets/")
        if hub == "hf://" and rest.count("/") == 0:
            return f"the owner is missing: did you mean hf://<owner>/{rest}?"
        if hub == "hf://":
            return meant("hf://" + "/".join(repository.split("/")[:2]))
        if rest == repository and rest.count("/") > 1:
            return meant(f"{hub}{rest}")
        return f"it has the form {hub_form}"
    if scheme.lower() == "pvc":
        return f"add the {more.removeprefix('/')}: did you mean pvc://{rest.strip('/')}/<path>?" if rest else None
    if scheme.lower() == "http":
        return meant(f"https://{rest}")
    return None
