"""Names, labels and owners of child objects: a job's name leads to each, without a lookup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strop.api import names
from strop_trainer.plan import Plan

Manifest = dict[str, Any]

TRAINER = "trainer"
"""Name of the trainer's container and component."""


@dataclass(frozen=True)
class Owner:
    """The FineTuneJob that children belong to."""

    namespace: str
    name: str
    uid: str


def plan_name(job: str) -> str:
    """Return the name of the ConfigMap that holds the Plan."""
    return f"{job}-plan"


def work_name(job: str) -> str:
    """Return the name of the claim that holds checkpoints."""
    return f"{job}-work"


def service_name(job: str) -> str:
    """Return the name of the headless Service; the plain name is likely that of a Service of the finished model."""
    return f"{job}-trainer"


def policy_name(job: str) -> str:
    """Return the name of the NetworkPolicy."""
    return f"{job}-trainer"


def selector(job: str) -> dict[str, str]:
    """Return the labels that select the trainer pods of a job."""
    return {names.LABEL_JOB: job, names.LABEL_COMPONENT: TRAINER}


def labels(plan: Plan) -> dict[str, str]:
    """Return the labels of every child object."""
    placement = plan.placement
    return {
        names.LABEL_MANAGED_BY: names.FIELD_MANAGER,
        names.LABEL_JOB: placement.job,
        names.LABEL_MODEL: placement.output.model,
        names.LABEL_POOL: placement.pool,
    }


def metadata(plan: Plan, owner: Owner, name: str, extra: Mapping[str, str] | None = None) -> Manifest:
    """Return the metadata of a child object.

    The owner reference blocks nothing: the operator waits for what must be gone by its own finalizer, and needs no
    right on `finetunejobs/finalizers`.
    """
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": {**labels(plan), **(extra or {})},
        "annotations": {names.ANNOTATION_PLAN_DIGEST: plan.digest},
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": "FineTuneJob",
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
            }
        ],
    }
