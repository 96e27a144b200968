"""One look at a job: the first rule that applies says what is so and what is to be done."""

from __future__ import annotations

from strop.decide.decision import Decision
from strop.decide.observed import Moment, Observed
from strop.decide.rules import RULES
from strop.decide.status import build_events, build_status, keep_status
from strop.decide.verdict import Gone, Unchanged
from strop.decide.view import View
from strop.desired.installation import Installation


def decide(observed: Observed, now: Moment, installation: Installation) -> Decision:
    """Return what is to be done about a job.

    Args:
        observed: Everything that was fetched about it.
        now: The present.
        installation: What the installation decides for all jobs.
    """
    view = View(observed, now, installation)
    verdict = next(found for rule in RULES if (found := rule(view)) is not None)
    if isinstance(verdict, Gone):
        return Decision(verdict.actions)
    if isinstance(verdict, Unchanged):
        return Decision(verdict.actions, keep_status(view), (), verdict.requeue_after)
    return Decision(verdict.actions, build_status(view, verdict), build_events(view, verdict), verdict.requeue_after)
