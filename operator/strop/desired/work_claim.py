"""The claim that keeps fetched models and checkpoints from one attempt to the next."""

from __future__ import annotations

from strop.desired.metadata import Manifest, Owner, metadata, work_name
from strop_trainer.plan import Plan


def build_work_claim(plan: Plan, owner: Owner, storage_class: str | None) -> Manifest:
    """Return the claim.

    Args:
        plan: What is carried out.
        owner: The job.
        storage_class: None leaves the choice to the cluster.
    """
    nodes = plan.placement.nodes
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(plan, owner, work_name(owner.name)),
        "spec": {
            "accessModes": ["ReadWriteOnce" if nodes == 1 else "ReadWriteMany"],
            "resources": {"requests": {"storage": plan.placement.resources.work_volume}},
            **({"storageClassName": storage_class} if storage_class else {}),
        },
    }
