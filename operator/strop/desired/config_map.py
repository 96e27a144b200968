"""The ConfigMap that carries the Plan, and the certificates to report progress with, into the trainer pods."""

from __future__ import annotations

from strop.api import names
from strop.desired.installation import Installation
from strop.desired.metadata import Manifest, Owner, metadata, plan_name
from strop_trainer.plan import Plan

CA_KEY = "ca.crt"


def build_config_map(plan: Plan, owner: Owner, installation: Installation) -> Manifest:
    """Return the ConfigMap; its Plan is what the trainer carries out and what the operator reads back."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(plan, owner, plan_name(owner.name)),
        "data": {
            names.PLAN_KEY: plan.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n",
            CA_KEY: installation.progress_ca,
        },
    }
