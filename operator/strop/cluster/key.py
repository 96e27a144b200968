"""The name of a job, as queue, watches and metrics pass it on."""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """A FineTuneJob."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
