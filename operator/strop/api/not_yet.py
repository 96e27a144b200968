"""What the schema of a job holds already and this version cannot do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from strop.api.base import Found, Rule, quoted

SUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {
    "training.precision": ("auto", "bf16", "fp32"),
}
"""Field of the spec → the values of its enumeration that this version can do."""


def _not_yet(
    rule: str, message: str, field_path: str, check: Callable[[Any], bool], found: Found | None = None
) -> Rule:
    return Rule(rule, f"this version of Strop {message}", field_path, "FieldValueForbidden", check, found)


def _value_at(model: Any, path: str) -> Any:
    """Return the value of a field, such as `method.type`; None where something on the way is left out."""
    for step in path.split("."):
        if model is None:
            return None
        model = getattr(model, step)
    return model


def _supported(path: str, words: str) -> Rule:
    """Return the rule that a field has one of the values that this version can do."""
    allowed, steps = SUPPORTED[path], path.split(".")
    left_out = "".join(f"!has(self.{'.'.join(steps[:length])}) || " for length in range(1, len(steps) + 1))
    return _not_yet(
        f"{left_out}self.{path} in {quoted(allowed)}",
        words.format(", ".join(allowed)),
        f".{path}",
        lambda self: _value_at(self, path) in (None, *allowed),
        Found(f"self.{path}", lambda self: str(_value_at(self, path))),
    )


NOT_YET: tuple[Rule, ...] = (
    _not_yet(
        "!has(self.distributed) || !has(self.distributed.nodes) || self.distributed.nodes == 1",
        "trains in one pod: leave it out, or 1; its ranks are processesPerNode",
        ".distributed.nodes",
        lambda self: self.distributed is None or self.distributed.nodes in {None, 1},
    ),
    _supported("training.precision", "trains in {}; other precisions are not there yet"),
)
"""What the schema holds already and this version cannot do."""
