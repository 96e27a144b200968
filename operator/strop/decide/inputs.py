"""Whether what a Plan reads and writes is there, asked before a pod is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from strop.api.names import Reason
from strop.decide.pods import Cause
from strop.decide.view import View
from strop_trainer.plan import Plan

CONFIG_MAP_SCHEME: Final = "configmap://"
GRACE_SECONDS: Final = 30.0
"""Seconds from a job's creation in which what is not there may still come: out of the same file, or the next."""


@dataclass(frozen=True)
class Missing:
    """Something that a Plan needs and that is not as it must be."""

    cause: Cause
    awaited: str | None = None
    """Its name in words where it is not there at all, so that waiting may help."""


def missing_inputs(view: View) -> tuple[Missing, ...]:
    """Return the claims, ConfigMaps and keys that are not there: those that no waiting mends before the others."""
    found = (*_missing_claims(view, view.plan), *_missing_rows(view, view.plan))
    return tuple(sorted(found, key=lambda missing: missing.awaited is not None))


def waits_for(missing: tuple[Missing, ...], age: float) -> str | None:
    """Return what a job of this age (seconds) waits for, in words; None where it is to be told what is wrong."""
    awaited = dict.fromkeys(each.awaited for each in missing)
    if age >= GRACE_SECONDS or None in awaited:
        return None
    return f"waits for {', '.join(filter(None, awaited))}"


def _missing_claims(view: View, plan: Plan) -> Iterator[Missing]:
    uses = dict.fromkeys(plan.placement.claims, "a source of the job")
    uses.setdefault(plan.placement.output.claim, "the registry, see spec.output.claim")
    for name, use in uses.items():
        claim, what = view.observed.claims.get(name), f"claim {name} ({use})"
        if claim is None:
            words = f"{what} is not in namespace {view.owner.namespace}"
            yield Missing(Cause(Reason.CLAIM_NOT_FOUND, words), what)
        elif "deletionTimestamp" in claim["metadata"]:
            yield Missing(Cause(Reason.CLAIM_NOT_FOUND, f"{what} is being deleted"))


def _missing_rows(view: View, plan: Plan) -> Iterator[Missing]:
    dataset = plan.training.dataset
    for file in [*dataset.train, *dataset.validation]:
        if not file.source.startswith(CONFIG_MAP_SCHEME):
            continue
        name, _, key = file.source.removeprefix(CONFIG_MAP_SCHEME).partition("/")
        keys = view.observed.config_maps.get(name)
        if keys is None:
            words = f"ConfigMap {name} ({file.source}) is not in namespace {view.owner.namespace}"
            yield Missing(Cause(Reason.CONFIG_MAP_NOT_FOUND, words), f"ConfigMap {name} (key {key})")
        elif key not in keys:
            found = ", ".join(sorted(keys)) or "none"
            yield Missing(Cause(Reason.CONFIG_MAP_NOT_FOUND, f"ConfigMap {name} has no key {key}; found: {found}"))
