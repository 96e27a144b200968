"""What is to be done about a job: actions in order, then the status, then Events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from strop.api.finetunejob import FineTuneJobStatus
from strop.desired.metadata import Manifest


@dataclass(frozen=True)
class SetFinalizer:
    """Hold the FineTuneJob until its children are gone, or let it go."""

    present: bool


@dataclass(frozen=True)
class Apply:
    """Make an object what its manifest says."""

    manifest: Manifest


@dataclass(frozen=True)
class Create:
    """Make an object that is never touched again; one that is there already stays as it is."""

    manifest: Manifest


@dataclass(frozen=True)
class Patch:
    """Change some fields of the object that was read, and of no other."""

    target: Manifest
    body: Manifest
    """JSON merge patch."""


@dataclass(frozen=True)
class Delete:
    """Delete the object that was read, and no other."""

    target: Manifest
    propagation: Literal["Foreground", "Background"] = "Background"


Action = SetFinalizer | Apply | Create | Patch | Delete


@dataclass(frozen=True)
class EventNote:
    """One Event about the FineTuneJob."""

    type: Literal["Normal", "Warning"]
    reason: str
    note: str


@dataclass(frozen=True)
class Decision:
    """The outcome of one look at a job."""

    actions: tuple[Action, ...] = ()
    status: FineTuneJobStatus | None = None
    """What the status shall be, progress left out; None leaves it alone."""
    events: tuple[EventNote, ...] = ()
    requeue_after: float | None = None
    """Seconds until the next look, where no watch would tell of a change."""
