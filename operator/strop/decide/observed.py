"""Everything that was fetched about one job, absences included: the whole input of a decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from strop.api.computepool import ComputePoolSpec
from strop.api.finetunejob import FineTuneJobSpec
from strop.desired.metadata import Manifest
from strop.planning.inputs import PlanError
from strop_trainer.plan import Plan


class Moment(Protocol):
    """The present, given from outside: decisions read no clock."""

    @property
    def text(self) -> str:
        """The moment as RFC 3339."""

    def since(self, timestamp: str) -> float:
        """Return the seconds that passed since a time in RFC 3339; negative where it lies ahead."""


@dataclass(frozen=True)
class Observed:
    """One job and all that matters to it, freshly read."""

    job: Manifest
    """The FineTuneJob."""
    spec: FineTuneJobSpec | None = None
    """None where it is not one of this version."""
    plan: Plan | None = None
    """The Plan that the child Job was made from; before there is one, what the spec resolves to now."""
    refusal: PlanError | None = None
    """Why there is no Plan."""
    pool: ComputePoolSpec | None = None
    """The Plan's pool; None where it has been deleted since."""
    children: Mapping[str, Manifest] = field(default_factory=dict)
    """Kind → object, for what is there under the names of this job's children, whoever made it."""
    pods: tuple[Manifest, ...] = ()
    """Pods that carry this job's label."""
    claims: Mapping[str, Manifest] = field(default_factory=dict)
    """Name → claim, for the Plan's sources and registry; what is not there is left out."""
    config_maps: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Name → keys, for the Plan's sources; what is not there is left out."""
    kueue: bool = False
    """Whether the cluster has Kueue's Workloads."""
    workload: Manifest | None = None
    """Kueue's account of the child Job."""
    versions: Mapping[str, Manifest] = field(default_factory=dict)
    """Name → ModelVersion, for the names that a published version may get."""
    warning: str = ""
    """What was said last of a pod that is being made, where that is a warning, such as of a volume."""
    refused_pods: tuple[str, ...] = ()
    """What the Job controller said, latest last, of pods that it could not create."""
