"""Whether what a Plan reads and writes is there, asked before a pod is made."""

from __future__ import annotations

from collections.abc import Iterator

from strop.api.names import Reason
from strop.decide.pods import Cause
from strop.decide.view import View
from strop_trainer.plan import Plan

CONFIG_MAP_SCHEME = "configmap://"


def missing_input(view: View) -> Cause | None:
    """Return the first claim, ConfigMap or key that is not there."""
    plan = view.plan
    return next(_missing_claims(view, plan), None) or next(_missing_rows(view, plan), None)


def _missing_claims(view: View, plan: Plan) -> Iterator[Cause]:
    uses = dict.fromkeys(plan.placement.claims, "a source of the job")
    uses.setdefault(plan.placement.output.claim, "the registry, see spec.output.claim")
    for name, use in uses.items():
        claim = view.observed.claims.get(name)
        if claim is None:
            words = f"claim {name} ({use}) is not in namespace {view.owner.namespace}"
            yield Cause(Reason.CLAIM_NOT_FOUND, words)
        elif "deletionTimestamp" in claim["metadata"]:
            yield Cause(Reason.CLAIM_NOT_FOUND, f"claim {name} ({use}) is being deleted")


def _missing_rows(view: View, plan: Plan) -> Iterator[Cause]:
    dataset = plan.training.dataset
    for file in [*dataset.train, *dataset.validation]:
        if not file.source.startswith(CONFIG_MAP_SCHEME):
            continue
        name, _, key = file.source.removeprefix(CONFIG_MAP_SCHEME).partition("/")
        keys = view.observed.config_maps.get(name)
        if keys is None:
            words = f"ConfigMap {name} ({file.source}) is not in namespace {view.owner.namespace}"
            yield Cause(Reason.CONFIG_MAP_NOT_FOUND, words)
        elif key not in keys:
            found = ", ".join(sorted(keys)) or "none"
            yield Cause(Reason.CONFIG_MAP_NOT_FOUND, f"ConfigMap {name} has no key {key}; found: {found}")
