"""How a job ends: the cause of a failure, or the record of what was published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strop.api.finetunejob import VersionReference
from strop.api.modelversion import ModelVersion
from strop.api.names import Phase, Reason
from strop.decide import pods
from strop.decide.decision import Action, Create, EventNote
from strop.decide.verdict import Verdict
from strop.decide.view import View
from strop.desired.metadata import Manifest
from strop.desired.model_version import build_model_version, version_name
from strop.planning.validation import InvalidResourceError, read_resource
from strop_trainer.termination import PublishedVersion, TerminationMessage


def failure(view: View, condition: Mapping[str, Any]) -> Verdict:
    """Return the verdict of a failed Job: the deadline, else what its last pod died of, else the Job's own words."""
    end = condition.get("lastTransitionTime")
    word = pods.last_word(view.failed[-1]) if view.failed else None
    seconds = word.stage_seconds if word else None
    if condition.get("reason") == "DeadlineExceeded":
        limit = (view.child or {}).get("spec", {}).get("activeDeadlineSeconds")
        words = f"not done within activeDeadlineSeconds ({limit} s)"
        return Verdict(Phase.FAILED, Reason.DEADLINE_EXCEEDED, words, completion_time=end, stage_seconds=seconds)
    cause = view.last_failure
    if cause is None:
        words = condition.get("message") or "the Job failed without a word"
        reason = Reason.BACKOFF_LIMIT if condition.get("reason") == Reason.BACKOFF_LIMIT else Reason.TRAINER_FAILED
        return Verdict(Phase.FAILED, reason, words, completion_time=end)
    tried = f" (after {view.attempt} attempts)" if view.attempt > 1 else ""
    return Verdict(Phase.FAILED, cause.reason, cause.message + tried, completion_time=end, stage_seconds=seconds)


def success(view: View, condition: Mapping[str, Any]) -> Verdict:
    """Return the verdict of a complete Job, with the ModelVersion to create."""
    end = condition.get("lastTransitionTime")
    found = _last_word(view)
    if found is None or view.observed.plan is None:
        words = "the trainer is done, but its last word is gone: the version is in the registry, without a ModelVersion"
        return Verdict(Phase.COMPLETE, Reason.FINISHED, words, completion_time=end)
    pod, word, published = found
    try:
        name, create = _record(view, published, _finished_at(pod) or end or view.now.text)
    except InvalidResourceError as error:
        words = f"the trainer is done, but what it says of its version makes no ModelVersion: {error}"
        seconds = word.stage_seconds
        return Verdict(Phase.COMPLETE, Reason.FINISHED, words, completion_time=end, stage_seconds=seconds)
    metrics = _metrics(published)
    words = f"{published.model} version {published.version} is published"
    gains = ", ".join(f"{metric} {change}" for metric, change in metrics.items())
    note = EventNote("Normal", Reason.PUBLISHED, f"{words} as ModelVersion {name} ({published.path})")
    return Verdict(
        Phase.COMPLETE,
        Reason.COMPLETE,
        f"{words}: {gains}" if gains else words,
        create,
        events=(note,),
        completion_time=end,
        version=VersionReference(
            name=name, version=published.version, path=published.path, claim=view.plan.placement.output.claim
        ),
        metrics=metrics,
        stage_seconds=word.stage_seconds,
    )


def _last_word(view: View) -> tuple[Manifest, TerminationMessage, PublishedVersion] | None:
    for pod in reversed(view.pods):
        word = pods.last_word(pod)
        if pods.phase(pod) == "Succeeded" and word and word.published:
            return pod, word, word.published
    return None


def _finished_at(pod: Manifest) -> str | None:
    return (pods.ended(pod) or {}).get("finishedAt")


def version_names(owner_uid: str, published: PublishedVersion) -> tuple[str, str]:
    """Return the name of a ModelVersion, and the one to take where another registry's version has the first."""
    plain = version_name(published)
    return plain, f"{plain}-{owner_uid[:8]}"


def _record(view: View, published: PublishedVersion, at: str) -> tuple[str, tuple[Action, ...]]:
    """Return the name of the ModelVersion, and what makes it where it is not there.

    Raises:
        InvalidResourceError: the API server would refuse it, always again: a trainer of another image may say anything.
    """
    plain, other = version_names(view.uid, published)
    first = view.observed.versions.get(plain)
    name = plain if first is None or _is_by(first, view.uid) else other
    if name in view.observed.versions:
        return name, ()
    version = build_model_version(view.plan, view.owner, published, name, at)
    read_resource(ModelVersion, version)
    return name, (Create(version),)


def _is_by(version: Manifest, uid: str) -> bool:
    return bool(version["spec"]["job"]["uid"] == uid)


def _metrics(published: PublishedVersion) -> dict[str, str]:
    before, after = published.metrics_base, published.metrics_tuned
    return {name: f"{_rounded(before.get(name))} → {_rounded(after[name])}" for name in sorted(after)}


def _rounded(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"
