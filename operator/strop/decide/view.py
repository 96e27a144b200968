"""What rules ask of an observation, each question answered once."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar

from strop.api import names
from strop.api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from strop.api.names import Condition
from strop.decide.observed import Moment, Observed
from strop.decide.pods import Cause, ended, exit_code, is_counted, owned_by, phase, why_ended
from strop.desired.installation import Installation
from strop.desired.metadata import Manifest, Owner
from strop_trainer.exit_codes import NON_RETRIABLE
from strop_trainer.plan import Plan

Value = TypeVar("Value")


def known(value: Value | None) -> Value:
    """Return a value that rules before have made sure of."""
    if value is None:
        raise AssertionError("a rule before this one must have applied")
    return value


class View:
    """One observation, at one moment, for one installation."""

    def __init__(self, observed: Observed, now: Moment, installation: Installation) -> None:
        self.observed = observed
        self.now = now
        self.installation = installation
        self.metadata: Manifest = observed.job["metadata"]
        self.owner = Owner(self.metadata["namespace"], self.metadata["name"], self.metadata["uid"])

    @cached_property
    def previous(self) -> FineTuneJobStatus:
        """The status as it stands."""
        return FineTuneJobStatus.model_validate(self.observed.job.get("status") or {})

    def was(self, condition: str) -> bool:
        """Return whether a condition is True in the status as it stands."""
        return any(each.type == condition and each.status == "True" for each in self.previous.conditions)

    @property
    def finished(self) -> bool:
        """Whether the job has ended, for good."""
        return self.was(Condition.COMPLETE) or self.was(Condition.FAILED)

    @property
    def deleting(self) -> bool:
        """Whether someone has asked for the job's deletion."""
        return "deletionTimestamp" in self.metadata

    @property
    def age(self) -> float:
        """Seconds since the job was created."""
        return self.now.since(self.metadata["creationTimestamp"])

    @property
    def held(self) -> bool:
        """Whether our finalizer is on the job."""
        return names.FINALIZER in self.metadata.get("finalizers", [])

    def field(self, name: str) -> Any:
        """Return a field of the spec that may change, even where the spec as a whole is of another version."""
        return (self.observed.job.get("spec") or {}).get(name)

    @property
    def pause(self) -> bool:
        """Whether the user wants it paused."""
        return bool(self.field("suspend"))

    @cached_property
    def ours(self) -> dict[str, Manifest]:
        """Kind → child object, of this job and not of another."""
        return {kind: child for kind, child in self.observed.children.items() if self._controller(child) == self.uid}

    @cached_property
    def foreign(self) -> dict[str, Manifest]:
        """Kind → object that stands under a child's name, and is not ours."""
        return {kind: child for kind, child in self.observed.children.items() if kind not in self.ours}

    @property
    def uid(self) -> str:
        """The job's uid."""
        return self.owner.uid

    @staticmethod
    def _controller(child: Manifest) -> str | None:
        owners = child["metadata"].get("ownerReferences", [])
        return next((str(owner["uid"]) for owner in owners if owner.get("controller")), None)

    @staticmethod
    def is_leaving(child: Manifest) -> bool:
        """Return whether an object is of an earlier job of this name, and about to go."""
        owners = child["metadata"].get("ownerReferences", [])
        of_a_job = any(owner["kind"] == "FineTuneJob" and owner.get("controller") for owner in owners)
        return of_a_job or "deletionTimestamp" in child["metadata"]

    @property
    def child(self) -> Manifest | None:
        """The child Job."""
        return self.ours.get("Job")

    def ended_as(self, condition: str) -> dict[str, Any] | None:
        """Return the child Job's terminal condition of this type (Complete or Failed), if it is True."""
        conditions = (self.child or {}).get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == condition and each["status"] == "True"), None)

    @property
    def queue(self) -> str | None:
        """The Kueue LocalQueue that the child Job waits in."""
        found: str | None = ((self.child or {}).get("metadata", {}).get("labels") or {}).get(names.LABEL_QUEUE)
        return found

    @cached_property
    def pods(self) -> tuple[Manifest, ...]:
        """The trainer pods, oldest first."""
        return owned_by(self.observed.pods, self.owner.name)

    @cached_property
    def live(self) -> tuple[Manifest, ...]:
        """Trainer pods that have not ended."""
        return tuple(pod for pod in self.pods if phase(pod) not in ("Succeeded", "Failed"))

    @cached_property
    def failed(self) -> tuple[Manifest, ...]:
        """Trainer pods that failed, by the time of their end; of one that left none, that of its creation."""

        def time(pod: Manifest) -> str:
            return (ended(pod) or {}).get("finishedAt") or pod["metadata"].get("creationTimestamp") or ""

        return tuple(sorted((pod for pod in self.pods if phase(pod) == "Failed"), key=time))

    @cached_property
    def last_failure(self) -> Cause | None:
        """Why the latest failed pod failed."""
        plan = self.observed.plan
        return why_ended(self.failed[-1], plan.placement.estimate if plan else None) if self.failed else None

    @property
    def was_last_attempt(self) -> bool:
        """Whether no pod follows the latest failed one; the Job says so a little later."""
        counted = [pod for pod in self.failed if is_counted(pod)]
        hopeless = bool(self.failed) and exit_code(self.failed[-1]) in NON_RETRIABLE
        given_up = self.ended_as("FailureTarget") is not None
        return given_up or hopeless or len(counted) > int(self.field("backoffLimit") or 0)

    @cached_property
    def unbound(self) -> tuple[str, ...]:
        """Names of claims that are not bound: those of others first, as ours is bound where theirs are."""

        def is_unbound(claim: Manifest) -> bool:
            return bool(claim.get("status", {}).get("phase") != "Bound")

        inputs = tuple(sorted(name for name, claim in self.observed.claims.items() if is_unbound(claim)))
        work = self.ours.get("PersistentVolumeClaim")
        own = (work["metadata"]["name"],) if work and is_unbound(work) else ()
        return inputs or own

    @property
    def attempts(self) -> int:
        """Trainer pods started so far, as far as they left a trace."""
        counts = (self.child or {}).get("status", {})
        counted = sum(int(counts.get(name, 0)) for name in ("active", "failed", "succeeded"))
        return max(self.previous.attempts or 0, len(self.pods), counted)

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1: each has a pod on every node of the plan."""
        nodes = self.observed.plan.placement.nodes if self.observed.plan else 1
        return max(1, -(-self.attempts // nodes))

    @staticmethod
    def plan_digest_of(child: Manifest) -> str | None:
        """Return the digest of the Plan that a child was made from."""
        found: str | None = (child["metadata"].get("annotations") or {}).get(names.ANNOTATION_PLAN_DIGEST)
        return found

    @property
    def plan(self) -> Plan:
        """The Plan, where rules before have made sure that there is one."""
        return known(self.observed.plan)

    @property
    def spec(self) -> FineTuneJobSpec:
        """The spec, where rules before have made sure that it is one."""
        return known(self.observed.spec)
