"""What a case of a bound, of a rule and of a change says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NOT_YET = "this version of Strop"

UNMEASURED = " is measured by "

ASIDE = (NOT_YET, UNMEASURED)
"""Words of rules that may refuse what another bound or rule takes."""


@dataclass(frozen=True)
class Bound:
    """One field: values at the edges that it takes, and for each bound one that it refuses."""

    kind: str
    path: str
    accept: tuple[Any, ...]
    reject: Mapping[str, Any]
    """Keyword of the schema → a value that it refuses."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """What must be set in the full document along with it."""
    not_yet: bool = False
    """What is taken here is still refused by a rule on what this version can do, and by nothing else."""


@dataclass(frozen=True)
class RuleCase:
    """One CEL rule: what it takes and what it refuses, as paths and values in the full document."""

    kind: str
    path: str
    """Where the rule stands."""
    field_path: str
    message: str
    """The start of the message."""
    accept: tuple[Mapping[str, Any], ...]
    reject: tuple[Mapping[str, Any], ...]
    only_not_yet: bool = False
    """What is taken by this rule is refused by another, on what this version can do."""


@dataclass(frozen=True)
class Transition:
    """One rule on changes: what may become of the full document, and what may not."""

    kind: str
    path: str
    field_path: str
    message: str
    reject: tuple[Mapping[str, Any], ...]
    before: Mapping[str, Any] = field(default_factory=dict)
    """The object as it was, against the full document."""


def key_rules(kind: str, path: str, value: Any, accept: tuple[str, ...], reject: tuple[str, ...]) -> RuleCase:
    return RuleCase(
        kind,
        path,
        "",
        "keys have ",
        tuple({path: {key: value}} for key in accept),
        tuple({path: {key: value}} for key in reject),
        only_not_yet=path.startswith("spec.evaluation"),
    )


def not_yet_rule(
    field_path: str, message: str, accept: tuple[Mapping[str, Any], ...], reject: tuple[Mapping[str, Any], ...]
) -> RuleCase:
    return RuleCase("FineTuneJob", "spec", field_path, f"{NOT_YET} {message}", accept, reject)
