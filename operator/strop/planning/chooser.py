"""Values that are left to Strop, kept with where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from strop_trainer.plan import Resolution

T = TypeVar("T")


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


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
