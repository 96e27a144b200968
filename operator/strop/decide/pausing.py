"""Pausing and resuming: on the Job itself, or, where Kueue owns its suspension, on its Workload.

What we pause is marked: what someone else has paused, such as an administrator or Kueue, is not ours to resume.
"""

from __future__ import annotations

from strop.api.names import ANNOTATION_PAUSED
from strop.decide.decision import Action, Patch
from strop.decide.view import View
from strop.desired.metadata import Manifest


def pause_actions(view: View) -> tuple[Action, ...]:
    """Return what stops the pods of a job that runs or waits."""
    job = view.child
    if job is None:
        return ()
    if view.queue:
        workload = view.observed.workload
        if workload is None or workload["spec"].get("active") is False:
            return ()
        return (Patch(workload, {"metadata": _mark("true"), "spec": {"active": False}}),)
    if job["spec"].get("suspend"):
        return ()
    return (Patch(job, {"metadata": _mark("true"), "spec": {"suspend": True}}),)


def resume_actions(view: View) -> tuple[Action, ...]:
    """Return what lets a job go on that we paused."""
    job, workload = view.child, view.observed.workload
    if job and _is_marked(job):
        return (Patch(job, {"metadata": _mark(None), "spec": {"suspend": False}}),)
    if workload and _is_marked(workload):
        return (Patch(workload, {"metadata": _mark(None), "spec": {"active": True}}),)
    return ()


def _mark(value: str | None) -> Manifest:
    return {"annotations": {ANNOTATION_PAUSED: value}}


def _is_marked(target: Manifest) -> bool:
    return ANNOTATION_PAUSED in (target["metadata"].get("annotations") or {})
