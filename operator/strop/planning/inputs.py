"""What planning takes in and how it refuses: a job, its pools, the installation's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strop.api import names
from strop.api.computepool import ComputePool, ComputePoolSpec
from strop.api.finetunejob import FineTuneJob, FineTuneJobSpec
from strop.planning.validation import InvalidResourceError, read_spec


class PlanError(ValueError):
    """A job that cannot become a Plan.

    Attributes:
        reason: one of `names.Reason`, for a condition.
        message: for a person: field, found, allowed.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Job:
    """A FineTuneJob as planning needs it."""

    namespace: str
    name: str
    spec: FineTuneJobSpec

    @classmethod
    def from_resource(cls, resource: Mapping[str, Any]) -> Job:
        """Read a FineTuneJob as the API server gives it.

        Raises:
            PlanError: the spec is not one of this version (the API server's schema was another).
        """
        metadata = resource["metadata"]
        try:
            spec = read_spec(FineTuneJob, FineTuneJobSpec, resource.get("spec"))
        except InvalidResourceError as error:
            raise PlanError(names.Reason.INVALID, str(error)) from None
        return cls(namespace=metadata.get("namespace", "default"), name=metadata["name"], spec=spec)


@dataclass(frozen=True)
class Pool:
    """A ComputePool as planning needs it."""

    name: str
    spec: ComputePoolSpec

    @classmethod
    def from_resource(cls, resource: Mapping[str, Any]) -> Pool:
        """Read a ComputePool as the API server gives it.

        Raises:
            PlanError: the spec is not one of this version.
        """
        name = resource["metadata"]["name"]
        try:
            return cls(name=name, spec=read_spec(ComputePool, ComputePoolSpec, resource.get("spec")))
        except InvalidResourceError as error:
            raise PlanError(names.Reason.INVALID, f"ComputePool {name}: {error}") from None


@dataclass(frozen=True)
class PlanSettings:
    """What the installation decides for all jobs. None of it is part of what is computed."""

    image: str | None = None
    """Trainer image where neither the job nor its pool names one."""
    default_claim: str = names.DEFAULT_CLAIM
