"""What a rule finds: the state of the job in one word, why, and what is to be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from strop.api.finetunejob import VersionReference
from strop.decide.decision import Action, EventNote


@dataclass(frozen=True)
class Verdict:
    """The finding of the one rule that applies."""

    phase: str
    reason: str
    message: str
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None
    events: tuple[EventNote, ...] = ()
    """Beside the one that a change of phase or reason brings about."""
    completion_time: str | None = None
    version: VersionReference | None = None
    metrics: Mapping[str, str] | None = None
    stage_seconds: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Unchanged:
    """The status stays what it is: the job has ended."""

    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None


@dataclass(frozen=True)
class Gone:
    """Nothing is left to say about the job."""

    actions: tuple[Action, ...] = ()
