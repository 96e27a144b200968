"""Values that are left to Strop, kept with where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from strop_trainer.plan import Resolution

T = TypeVar("T")
FIXED: Final = {
    "images": "model",
    "quantization": "method",
    "modules": "method",
    "width": "method",
    "start": "method",
    "optimizer": "training",
    "proof": "output",
}
"""Name of what no job can change → the part of a spec that it belongs to."""


@dataclass
class Chooser:
    """Takes the user's value where there is one, else the automatic one, and keeps why."""

    resolved: list[Resolution] = field(default_factory=list)

    def choose(self, path: str, given: T | None, value: T, reason: str) -> T:
        """Return `given`, or `value` with `reason` on record under `path`."""
        if given is not None:
            return given
        self.resolved.append(Resolution(field=path, value=_plain(value), reason=reason))
        return value

    def because(self, path: str, reason: str) -> None:
        """Put another reason on record for a value that was chosen: what only the pool tells of it."""
        self.resolved = [
            item.model_copy(update={"reason": reason}) if item.field == path else item for item in self.resolved
        ]

    def fixed(self, path: str, value: Any, reason: str) -> None:
        """Put on record what no job can change, by a name of FIXED."""
        self.resolved.append(Resolution(field=path, value=_plain(value), reason=f"fixed: {reason}"))


def given(part: BaseModel | None, name: str) -> Any:
    """Return a field that has a default in the schema, where the job says it; else None."""
    return getattr(part, name) if part is not None and name in part.model_fields_set else None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
