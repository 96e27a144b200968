"""The headless Service that gives each trainer pod a stable DNS name."""

from __future__ import annotations

from strop.desired.metadata import Manifest, Owner, metadata, selector, service_name
from strop_trainer.plan import Plan


def build_service(plan: Plan, owner: Owner) -> Manifest:
    """Return the Service; it publishes pods that are not ready, as ranks look for each other while they start."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(plan, owner, service_name(owner.name)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(owner.name),
        },
    }
