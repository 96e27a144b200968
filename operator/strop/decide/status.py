"""From a verdict to the status: conditions, and Events where something changed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Literal

from pydantic import ValidationError

from strop.api.base import StatusCondition
from strop.api.finetunejob import FineTuneJobStatus, Progress
from strop.api.names import Condition, Phase, Reason
from strop.decide import pods
from strop.decide.decision import EventNote
from strop.decide.verdict import Verdict
from strop.decide.view import View
from strop.desired.metadata import Manifest

MESSAGE_LIMIT: Final = 2048

State = Literal["True", "False", "Unknown"]

_IN_PROGRESS: Final[Mapping[str, State]] = {Condition.ACCEPTED: "True", Condition.RECONCILING: "True"}
CONDITIONS: Final[Mapping[str, Mapping[str, State]]] = {
    Phase.INVALID: {Condition.ACCEPTED: "False", Condition.STALLED: "True"},
    Phase.PENDING: {**_IN_PROGRESS, Condition.RUNNING: "False"},
    Phase.QUEUED: {**_IN_PROGRESS, Condition.QUEUED: "True"},
    Phase.STARTING: {**_IN_PROGRESS, Condition.RUNNING: "False"},
    Phase.RUNNING: {**_IN_PROGRESS, Condition.RUNNING: "True"},
    Phase.PUBLISHING: {**_IN_PROGRESS, Condition.RUNNING: "True"},
    Phase.SUSPENDED: {Condition.ACCEPTED: "True", Condition.SUSPENDED: "True"},
    Phase.COMPLETE: {Condition.ACCEPTED: "True", Condition.COMPLETE: "True"},
    Phase.FAILED: {Condition.ACCEPTED: "True", Condition.FAILED: "True", Condition.STALLED: "True"},
    Phase.DELETING: {Condition.RECONCILING: "True"},
}
"""Phase → what its conditions are. Every other condition that was True becomes False, but for what is kept."""

KEPT: Final = frozenset({Condition.PUBLISHED, Condition.COMPLETE, Condition.FAILED})
"""A deletion does not undo these."""

HEADLINE: Final[Mapping[str, str]] = {
    Phase.INVALID: Condition.ACCEPTED,
    Phase.PENDING: Condition.RUNNING,
    Phase.QUEUED: Condition.QUEUED,
    Phase.STARTING: Condition.RUNNING,
    Phase.RUNNING: Condition.RUNNING,
    Phase.PUBLISHING: Condition.RUNNING,
    Phase.SUSPENDED: Condition.SUSPENDED,
    Phase.COMPLETE: Condition.COMPLETE,
    Phase.FAILED: Condition.FAILED,
    Phase.DELETING: Condition.RECONCILING,
}
"""The condition whose change is worth an Event."""

WARNINGS: Final = frozenset({Phase.INVALID, Phase.FAILED})
PENDING_WARNINGS: Final = frozenset(
    {
        Reason.UNSCHEDULABLE,
        Reason.CLAIM_UNBOUND,
        Reason.CLAIM_NOT_FOUND,
        Reason.CONFIG_MAP_NOT_FOUND,
        Reason.SECRET_NOT_FOUND,
        Reason.IMAGE_PULL,
        Reason.POD_REFUSED,
        Reason.RESTARTED,
    }
)

DONE: Final = Progress(display="100%")
"""The one part of the progress that is the operator's: the column of a complete job."""


def build_status(view: View, verdict: Verdict) -> FineTuneJobStatus:
    """Return the status that a verdict stands for; conditions keep the time of their last change."""
    previous, plan = view.previous, view.observed.plan
    accepted = plan is not None and verdict.phase != Phase.INVALID
    return FineTuneJobStatus(
        observed_generation=view.metadata.get("generation"),
        phase=verdict.phase,
        conditions=_conditions(view, verdict),
        message=_cut(verdict.message),
        plan_digest=plan.digest if plan and accepted else previous.plan_digest,
        pool=plan.placement.pool if plan and accepted else previous.pool,
        progress=DONE if verdict.phase == Phase.COMPLETE else None,
        attempts=view.attempts or previous.attempts,
        stage_seconds=_writable("stage_seconds", verdict.stage_seconds) or previous.stage_seconds,
        model_version=verdict.version or previous.model_version,
        metrics=_writable("metrics", verdict.metrics) or previous.metrics,
        start_time=previous.start_time or min(filter(None, map(pods.started_at, view.pods)), default=None),
        completion_time=verdict.completion_time or previous.completion_time,
    )


def status_document(status: FineTuneJobStatus) -> Manifest:
    """Return what is written: of the progress, which is the progress server's, only what is ours."""
    document = status.model_dump(by_alias=True, exclude_none=True, exclude={"progress"})
    return {**document, **({"progress": {"display": status.progress.display}} if status.progress else {})}


def keep_status(view: View) -> FineTuneJobStatus:
    """Return the status as it stands, said of the present generation."""
    progress = DONE if view.was(Condition.COMPLETE) else None
    return view.previous.model_copy(
        update={"observed_generation": view.metadata.get("generation"), "progress": progress}
    )


def build_events(view: View, verdict: Verdict) -> tuple[EventNote, ...]:
    """Return the Event of a changed phase or reason, if it changed, after those that the verdict names itself."""
    if _headline_stands(view, verdict):
        return verdict.events
    warning = verdict.phase in WARNINGS or verdict.reason in PENDING_WARNINGS
    return (*verdict.events, EventNote("Warning" if warning else "Normal", verdict.reason, verdict.message))


def _headline_stands(view: View, verdict: Verdict) -> bool:
    headline = HEADLINE[verdict.phase]
    return any(
        each.type == headline and each.reason == verdict.reason and each.status == CONDITIONS[verdict.phase][headline]
        for each in view.previous.conditions
    )


def _conditions(view: View, verdict: Verdict) -> list[StatusCondition]:
    before = {condition.type: condition for condition in view.previous.conditions}
    states: dict[str, State] = dict(CONDITIONS[verdict.phase])
    if verdict.reason == Reason.WAITING_FOR_INPUT:
        states[Condition.ACCEPTED] = "Unknown"
    if verdict.phase == Phase.COMPLETE:
        states[Condition.PUBLISHED] = "True" if verdict.version else "False"
    for kind, condition in before.items():
        if condition.status != "False" and kind not in states and kind not in KEPT | {Condition.ACCEPTED}:
            states[kind] = "False"
    changed = {kind: _condition(view, verdict, kind, state, before.get(kind)) for kind, state in states.items()}
    return [condition for _, condition in sorted({**before, **changed}.items())]


def _condition(
    view: View, verdict: Verdict, kind: str, state: State, before: StatusCondition | None
) -> StatusCondition:
    reason, message = verdict.reason, _cut(verdict.message)
    if kind == Condition.ACCEPTED and state == "True":
        plan = view.observed.plan
        reason = Reason.PLANNED
        message = f"pool {plan.placement.pool}, plan {plan.digest}" if plan else "accepted by an earlier version"
    since = before.last_transition_time if before and before.status == state else view.now.text
    return StatusCondition(
        type=kind,
        status=state,
        reason=reason,
        message=message,
        last_transition_time=since,
        observed_generation=view.metadata.get("generation"),
    )


def _writable(field: str, said: Mapping[str, Any] | None) -> dict[str, Any]:
    """Leave out what the schema of a field does not take: a job ends, whatever a trainer of another image says."""
    taken: dict[str, Any] = {}
    for key, value in (said or {}).items():
        with suppress(ValidationError):
            FineTuneJobStatus.model_validate({field: {**taken, key: value}})
            taken[key] = value
    return taken


def _cut(message: str) -> str:
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"
