"""Reading pods: why one waits, how one ended, in words for the person who wrote the job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from strop.api.names import Reason
from strop.desired.metadata import TRAINER, Manifest
from strop_trainer.exit_codes import DESCRIPTIONS, LESS_MEMORY, ExitCode
from strop_trainer.plan import MemoryEstimate
from strop_trainer.termination import TerminationMessage

REASON_OF_EXIT: Final[Mapping[int, str]] = {
    ExitCode.BAD_DATA: Reason.BAD_DATA,
    ExitCode.MISSING_INPUT: Reason.MISSING_INPUT,
    ExitCode.SOURCE_UNAVAILABLE: Reason.SOURCE_UNAVAILABLE,
    ExitCode.CANNOT_PUBLISH: Reason.CANNOT_PUBLISH,
    ExitCode.PREEMPTED: Reason.PREEMPTED,
    ExitCode.PROOF_FAILED: Reason.PROOF_FAILED,
    ExitCode.NO_PERMISSION: Reason.NO_PERMISSION,
    ExitCode.BAD_CONFIGURATION: Reason.BAD_CONFIGURATION,
}

IMAGE_REASONS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
CREATING: Final = frozenset({"ContainerCreating", "PodInitializing"})
GIB: Final = 1024**3
_STARTED: Final = "the pod is being started"


class Cause(NamedTuple):
    """A reason and its words."""

    reason: str
    message: str


def owned_by(pods: Iterable[Manifest], job: str) -> tuple[Manifest, ...]:
    """Return the pods that a Job of this name controls, oldest first."""

    def is_owned(pod: Manifest) -> bool:
        owners = pod["metadata"].get("ownerReferences", [])
        return any(owner["kind"] == "Job" and owner["name"] == job and owner.get("controller") for owner in owners)

    return tuple(sorted(filter(is_owned, pods), key=lambda pod: pod["metadata"].get("creationTimestamp") or ""))


def phase(pod: Manifest) -> str:
    """Return the pod's phase."""
    return str(pod.get("status", {}).get("phase", "Pending"))


def container_state(pod: Manifest) -> dict[str, Any]:
    """Return the state of the trainer's container: one of waiting, running and terminated."""
    for status in pod.get("status", {}).get("containerStatuses", []):
        if status["name"] == TRAINER:
            state: dict[str, Any] = status.get("state", {})
            return state
    return {}


def ended(pod: Manifest) -> dict[str, Any] | None:
    """Return how the trainer's container ended; None while it has not."""
    state: dict[str, Any] | None = container_state(pod).get("terminated")
    return state


def exit_code(pod: Manifest) -> int | None:
    """Return the exit code of the trainer's container; None where it has not ended, or not by itself."""
    code: int | None = (ended(pod) or {}).get("exitCode")
    return code


def is_counted(pod: Manifest) -> bool:
    """Return whether a failed pod counts against the back-off limit; the child Job's failure policy says the same."""
    conditions = pod.get("status", {}).get("conditions", [])
    disrupted = any(each["type"] == "DisruptionTarget" and each["status"] == "True" for each in conditions)
    return not disrupted and exit_code(pod) != ExitCode.PREEMPTED


def started_at(pod: Manifest) -> str | None:
    """Return when the trainer's container started (RFC 3339)."""
    state = container_state(pod)
    return (state.get("running") or state.get("terminated") or {}).get("startedAt")


def last_word(pod: Manifest) -> TerminationMessage | None:
    """Return the trainer's termination message; None where it left none."""
    try:
        return TerminationMessage.model_validate_json((ended(pod) or {}).get("message") or "")
    except ValidationError:
        return None


def is_being_made(pod: Manifest) -> bool:
    """Return whether a pod has its node, and nothing yet that says why its container does not run."""
    conditions = {each["type"]: each["status"] for each in pod.get("status", {}).get("conditions", [])}
    reason = container_state(pod).get("waiting", {}).get("reason") or ""
    return phase(pod) == "Pending" and conditions.get("PodScheduled") == "True" and (not reason or reason in CREATING)


def why_waiting(pod: Manifest, unbound: Iterable[str], warning: str = "") -> Cause:
    """Return why a pod that is not running yet waits.

    Args:
        pod: The pod.
        unbound: Names of claims that it mounts and that are not bound.
        warning: What its node said last of it, where that is a warning.
    """
    conditions = {each["type"]: each for each in pod.get("status", {}).get("conditions", [])}
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return _why_unscheduled(scheduled, unbound)
    waiting = container_state(pod).get("waiting", {})
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in IMAGE_REASONS:
        image = pod["spec"]["containers"][0]["image"]
        return Cause(Reason.IMAGE_PULL, f"the image {image} cannot be pulled: {message or reason}")
    if reason == "CreateContainerConfigError":
        return _why_unconfigured(message)
    if reason and reason not in CREATING:
        return Cause(Reason.STARTING, f"the container does not start: {message or reason}")
    return Cause(Reason.STARTING, f"the pod is being started; its node warns: {warning}" if warning else _STARTED)


def _why_unscheduled(condition: Mapping[str, Any], unbound: Iterable[str]) -> Cause:
    message = condition.get("message", "")
    if condition.get("reason") == "SchedulingGated":
        return Cause(Reason.WAITING_FOR_QUOTA, "the pod is held back by a scheduling gate")
    if found := re.search(r'persistentvolumeclaim "([^"]+)" not found', message):
        return Cause(Reason.CLAIM_NOT_FOUND, f"claim {found[1]} is not there (any more)")
    if "unbound" in message and "PersistentVolumeClaim" in message:
        names = ", ".join(unbound) or "of the pod"
        return Cause(Reason.CLAIM_UNBOUND, f"not bound to a volume yet: claim {names} ({message})")
    return Cause(Reason.UNSCHEDULABLE, f"no node fits: {message}" if message else "no node fits")


def _why_unconfigured(message: str) -> Cause:
    reasons = {"secret": Reason.SECRET_NOT_FOUND, "configmap": Reason.CONFIG_MAP_NOT_FOUND}
    kind = message.partition(" ")[0].lower()
    return Cause(reasons.get(kind, Reason.STARTING), f"the container cannot be configured: {message}")


def why_refused(messages: Iterable[str]) -> Cause | None:
    """Return why the Job controller could create no pod; None where it said nothing."""
    latest = [message for message in messages if message][-1:]
    if not latest:
        return None
    message = latest[0].removeprefix("Error creating: ")
    if "exceeded quota" in message:
        return Cause(Reason.WAITING_FOR_QUOTA, f"the namespace's ResourceQuota leaves no room: {message}")
    return Cause(Reason.POD_REFUSED, f"the cluster refuses the pod: {message}")


def why_ended(pod: Manifest, estimate: MemoryEstimate | None) -> Cause:
    """Return why a pod failed."""
    state = ended(pod)
    if state is None:
        status = pod.get("status", {})
        words = status.get("message") or status.get("reason") or "the pod ended without a word"
        return Cause(Reason.TRAINER_FAILED, words)
    if state.get("reason") == "OOMKilled":
        return Cause(Reason.OUT_OF_MEMORY, _out_of_memory(pod, estimate))
    code = exit_code(pod)
    reason = Reason.TRAINER_FAILED if code is None else REASON_OF_EXIT.get(code, Reason.TRAINER_FAILED)
    if word := last_word(pod):
        return Cause(_stable(word.reason) or reason, f"{word.stage}: {word.message}" if word.stage else word.message)
    return Cause(reason, _from_log(code, state.get("message") or ""))


def _stable(reason: str) -> str | None:
    """Only reasons of our own vocabulary become reasons of conditions; the rest is what the exit code says."""
    known = {value for name, value in vars(Reason).items() if name.isupper()}
    return reason if reason in known else None


def _from_log(code: int | None, log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    meanings: dict[int | None, str] = {int(known): words for known, words in DESCRIPTIONS.items()}
    meaning = meanings.get(code, "an unexpected end")
    return f"the trainer ended with exit code {code} ({meaning})" + (f": {lines[-1].strip()}" if lines else "")


def _out_of_memory(pod: Manifest, estimate: MemoryEstimate | None) -> str:
    limit = pod["spec"]["containers"][0].get("resources", {}).get("limits", {}).get("memory", "an unknown amount")
    expected = f"; the estimate was {estimate.total / GIB:.1f} GiB ({estimate.basis})" if estimate else ""
    return f"out of memory: the trainer was ended at its limit of {limit}{expected}. {LESS_MEMORY}"
