"""One row of the operator's promises."""

from dataclasses import dataclass, field

from strop.decide.observed import Observed


@dataclass(frozen=True)
class Case:
    """One row."""

    name: str
    observed: Observed
    phase: str
    reason: str
    words: str
    """Somewhere in the message."""
    actions: list[str] = field(default_factory=list)
    true: str = ""
    """Conditions that are True."""
    warning: bool = False


ACCEPTED = "Accepted Reconciling"
