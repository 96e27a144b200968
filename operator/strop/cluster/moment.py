"""The clock, read in the shell and handed to decisions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Present:
    """One moment."""

    at: datetime

    @classmethod
    def now(cls) -> Present:
        """Return the present, to the second, as Kubernetes writes times."""
        return cls(datetime.now(UTC).replace(microsecond=0))

    @property
    def text(self) -> str:
        """The moment as RFC 3339."""
        return self.at.strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def micro(self) -> str:
        """The moment as Kubernetes' MicroTime."""
        return self.at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def since(self, timestamp: str) -> float:
        """Return the seconds that passed since a time in RFC 3339; negative where it lies ahead."""
        return (self.at - datetime.fromisoformat(timestamp)).total_seconds()
