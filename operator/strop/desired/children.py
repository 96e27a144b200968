"""All child objects of a job, in the order in which they are made: the Job comes last and finds all it mounts."""

from __future__ import annotations

from strop.api.computepool import ComputePoolSpec
from strop.api.finetunejob import FineTuneJobSpec
from strop.desired.config_map import build_config_map
from strop.desired.installation import Installation
from strop.desired.metadata import Manifest, Owner
from strop.desired.network_policy import build_network_policy
from strop.desired.service import build_service
from strop.desired.work_claim import build_work_claim
from strop_trainer.plan import Plan


def build_applied(plan: Plan, owner: Owner, installation: Installation) -> tuple[Manifest, ...]:
    """Return the children that are kept as they are built: whatever changes them is undone."""
    policy = (build_network_policy(plan, owner, installation),) if installation.network_policy else ()
    return (build_config_map(plan, owner, installation), build_service(plan, owner), *policy)


def build_claim(plan: Plan, spec: FineTuneJobSpec, owner: Owner, pool: ComputePoolSpec) -> Manifest:
    """Return the work claim with the job's storage class, else the pool's, else the cluster's default."""
    own = spec.checkpoint.storage_class_name if spec.checkpoint else None
    return build_work_claim(plan, owner, own or pool.storage_class_name)


def drifted(desired: object, found: object) -> bool:
    """Return whether something in `desired` is missing or other in `found`; what the server added does not count."""
    if isinstance(desired, dict):
        return not isinstance(found, dict) or any(drifted(value, found.get(key)) for key, value in desired.items())
    if isinstance(desired, list):
        if not isinstance(found, list) or len(desired) != len(found):
            return bool(desired) or bool(found)
        return any(drifted(one, other) for one, other in zip(desired, found, strict=True))
    return desired != found
