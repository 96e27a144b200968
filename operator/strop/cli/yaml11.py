"""YAML as kubectl reads it, so that a manifest means the same here and in a cluster.

kubectl turns YAML into JSON by go-yaml version 2, which differs from PyYAML: `2e-4` is a number, `1:30` is text, a date
is text, `y` and `n` are booleans, keys are text, and `16.0` arrives as the whole number 16.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Hashable
from typing import Any, Final

import yaml

_TRUE: Final = {"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"}
_FALSE: Final = {"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"}
_NULL: Final = {"", "~", "null", "Null", "NULL"}
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INTEGER: Final = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0[bB][01]+|0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INT64: Final = 2**63
_UINT64: Final = 2**64

_PLAIN: Final = "tag:strop.dev,2026:plain"
_MERGE: Final = "tag:yaml.org,2002:merge"

Scalar = str | int | float | bool | None


class KubectlLoader(yaml.SafeLoader):
    """Builds what kubectl would send as JSON."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """Leave a plain scalar to its value, not to the tags that PyYAML would give it."""
        if kind is yaml.ScalarNode and implicit[0]:
            return _MERGE if value == "<<" else _PLAIN
        return str(super().resolve(kind, value, (False, True)))  # type: ignore[no-untyped-call]

    def plain(self, node: yaml.ScalarNode) -> Scalar:
        """Build a scalar without quotes."""
        try:
            return resolve_scalar(node.value)
        except ValueError as error:
            raise _refused(str(error), node) from None

    def text(self, node: yaml.ScalarNode) -> str:
        """Build a scalar in quotes or a block."""
        return str(node.value)

    def binary(self, node: yaml.ScalarNode) -> str:
        """Build a `!!binary`, as text."""
        try:
            return base64.b64decode("".join(node.value.split()), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise _refused(f"!!binary: {error}", node) from None

    def sequence(self, node: yaml.SequenceNode) -> list[Any]:
        """Build a list."""
        return [self.construct_object(item, deep=True) for item in node.value]

    def mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        """Build an object; of a merged and a given key the later one counts, as in go-yaml."""
        result: dict[str, Any] = {}
        given: set[str] = set()
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in reversed(sources):
                    if not isinstance(source, yaml.MappingNode):
                        raise _refused("<<: only an object can be merged", source)
                    result |= self.mapping(source)
                continue
            key = _key(self.construct_object(key_node, deep=True), key_node)
            if key in given:
                raise _refused(f"{key}: given twice", key_node)
            given.add(key)
            result[key] = self.construct_object(value_node, deep=True)
        return result


_CONSTRUCTORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    _PLAIN: KubectlLoader.plain,
    _MERGE: KubectlLoader.text,
    "tag:yaml.org,2002:str": KubectlLoader.text,
    "tag:yaml.org,2002:int": KubectlLoader.plain,
    "tag:yaml.org,2002:float": KubectlLoader.plain,
    "tag:yaml.org,2002:bool": KubectlLoader.plain,
    "tag:yaml.org,2002:null": KubectlLoader.plain,
    "tag:yaml.org,2002:timestamp": KubectlLoader.text,
    "tag:yaml.org,2002:binary": KubectlLoader.binary,
    "tag:yaml.org,2002:map": KubectlLoader.mapping,
    "tag:yaml.org,2002:seq": KubectlLoader.sequence,
}
for _tag, _constructor in _CONSTRUCTORS.items():
    KubectlLoader.add_constructor(_tag, _constructor)


def load_all(text: str) -> list[Any]:
    """Return all documents of a YAML (or JSON) stream; empty ones are passed over.

    Raises:
        yaml.YAMLError: it is no YAML, with line and column.
    """
    return [document for document in yaml.load_all(text, Loader=KubectlLoader) if document is not None]


def resolve_scalar(text: str) -> Scalar:
    """Return the value of a plain scalar.

    Raises:
        ValueError: it is infinite or no number (`.inf`, `.nan`), which JSON cannot hold.
    """
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if text[0] not in "+-.0123456789":
        return text
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is no number that JSON can hold")
    plain = text.replace("_", "")
    if _INTEGER.fullmatch(plain):
        value = _integer(plain)
        if -_INT64 <= value < _UINT64:
            return value if value < _INT64 else float(value)
    if _FLOAT.fullmatch(plain):
        number = float(plain)
        return text if math.isinf(number) else _shortest(number)
    return text


def _integer(text: str) -> int:
    digits = text.lstrip("+-").lower()
    for prefix, base in (("0x", 16), ("0o", 8), ("0b", 2)):
        if digits.startswith(prefix):
            value = int(digits[2:], base)
            break
    else:
        value = int(digits, 8 if digits.startswith("0") else 10)
    return -value if text.startswith("-") else value


def _shortest(number: float) -> int | float:
    """Return a whole number where JSON would be written without a fraction, as Go does."""
    return int(number) if number.is_integer() and abs(number) < _INT64 else number


def _key(key: Hashable, node: yaml.Node) -> str:
    match key:
        case str():
            return key
        case bool():
            return str(key).lower()
        case int() | float():
            return f"{key:g}" if isinstance(key, float) else str(key)
        case _:
            raise _refused("a key must be text", node)


def _refused(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
