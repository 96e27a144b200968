"""The trainer pod: the `restricted` Pod Security Standard, and the environment that the trainer expects."""

from __future__ import annotations

from typing import Final

from strop.api import names
from strop.api.computepool import ComputePoolSpec
from strop.desired.config_map import CA_KEY
from strop.desired.installation import Installation
from strop.desired.metadata import TRAINER, Manifest, Owner, labels, plan_name, selector, service_name, work_name
from strop_trainer.plan import Plan

USER: Final = 65532
GRACE_SECONDS: Final = 60
"""From SIGTERM to SIGKILL: time to save a checkpoint."""
TOKEN_SECONDS: Final = 3600
"""Validity of the progress token; the kubelet renews it before its end."""
TMP_LIMIT: Final = "16Gi"
"""Of /tmp, where the trainer has its rows, and what it exports before it is finished."""

PLAN_FOLDER: Final = "/etc/strop"
TOKEN_FOLDER: Final = "/var/run/secrets/strop.dev"
TOKEN_FILE: Final = "token"
VOLUMES: Final = "/volumes"
CONFIG_MAPS: Final = "/configmaps"
REGISTRY: Final = "/registry"
WORK: Final = "/work"
TERMINATION_LOG: Final = "/dev/termination-log"

_Parts = tuple[list[Manifest], list[Manifest]]
"""Volumes of a pod, and mounts of its container."""


def build_pod_template(plan: Plan, owner: Owner, pool: ComputePoolSpec, installation: Installation) -> Manifest:
    """Return the pod template of the child Job."""
    volumes, mounts = _storage(plan, owner)
    return {
        "metadata": {
            "labels": {**labels(plan), **selector(owner.name)},
            "annotations": {names.ANNOTATION_PLAN_DIGEST: plan.digest},
        },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "subdomain": service_name(owner.name),
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **_placement(pool),
            "imagePullSecrets": [{"name": name} for name in installation.pull_secrets],
            "containers": [
                {
                    "name": TRAINER,
                    "image": plan.placement.image or installation.trainer_image,
                    "imagePullPolicy": installation.pull_policy,
                    "env": _environment(owner, installation),
                    "envFrom": _credentials(plan),
                    "resources": _resources(plan),
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "terminationMessagePath": TERMINATION_LOG,
                    # A crash leaves no message of its own; the end of the log is better than nothing.
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": mounts,
                }
            ],
            "volumes": volumes,
        },
    }


def progress_path(namespace: str, job: str) -> str:
    """Return the path of the progress server that a job's trainers post to."""
    return f"/v1alpha1/namespaces/{namespace}/finetunejobs/{job}/progress"


def _environment(owner: Owner, installation: Installation) -> list[Manifest]:
    values = {
        "STROP_PLAN": f"{PLAN_FOLDER}/{names.PLAN_KEY}",
        "STROP_VOLUMES": VOLUMES,
        "STROP_CONFIGMAPS": CONFIG_MAPS,
        "STROP_REGISTRY": REGISTRY,
        "STROP_WORK": WORK,
        "STROP_TERMINATION_LOG": TERMINATION_LOG,
        "STROP_JOB_UID": owner.uid,
        "KUBEFLOW_TRAINER_SERVER_URL": installation.progress_url + progress_path(owner.namespace, owner.name),
        "KUBEFLOW_TRAINER_SERVER_CA_CERT": f"{PLAN_FOLDER}/{CA_KEY}",
        "KUBEFLOW_TRAINER_SERVER_TOKEN": f"{TOKEN_FOLDER}/{TOKEN_FILE}",
        "HOME": "/tmp",  # noqa: S108 - the only writable folder of its own that the user has
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def _credentials(plan: Plan) -> list[Manifest]:
    return [{"secretRef": {"name": plan.placement.secret}}] if plan.placement.secret else []


def _resources(plan: Plan) -> Manifest:
    """Requests equal limits: the memory estimate is a promise, and a guaranteed pod is evicted last."""
    resources = plan.placement.resources
    amounts: dict[str, str] = {"cpu": resources.cpu, "memory": resources.memory}
    if resources.accelerator and resources.accelerators:
        amounts[resources.accelerator] = str(resources.accelerators)
    return {"requests": amounts, "limits": dict(amounts)}


def _placement(pool: ComputePoolSpec) -> Manifest:
    tolerations = [toleration.model_dump(by_alias=True, exclude_none=True) for toleration in pool.tolerations]
    optional = {
        "nodeSelector": dict(pool.node_selector),
        "tolerations": tolerations,
        "priorityClassName": pool.priority_class_name,
        "runtimeClassName": pool.runtime_class_name,
    }
    return {name: value for name, value in optional.items() if value}


def _storage(plan: Plan, owner: Owner) -> _Parts:
    parts = [_scratch(plan), _own(owner), _inputs(plan, owner)]
    return [volume for volumes, _ in parts for volume in volumes], [mount for _, mounts in parts for mount in mounts]


def _scratch(plan: Plan) -> _Parts:
    return (
        [
            {"name": "tmp", "emptyDir": {"sizeLimit": TMP_LIMIT}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": plan.placement.resources.shared_memory}},
        ],
        [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            # The runtime's own /dev/shm is 64 MB, too small for data loader workers.
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        ],
    )


def _own(owner: Owner) -> _Parts:
    token = {"audience": names.TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": TOKEN_FILE}
    return (
        [
            {"name": "work", "persistentVolumeClaim": {"claimName": work_name(owner.name)}},
            {"name": "plan", "configMap": {"name": plan_name(owner.name)}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        ],
        [
            {"name": "work", "mountPath": WORK},
            {"name": "plan", "mountPath": PLAN_FOLDER, "readOnly": True},
            {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
        ],
    )


def _inputs(plan: Plan, owner: Owner) -> _Parts:
    """One volume for each claim, even where the registry's claim is a source, too."""
    placement = plan.placement
    claims = sorted({*placement.claims, placement.output.claim})
    volume_of = {claim: f"claim-{index}" for index, claim in enumerate(claims)}
    maps = {name: f"configmap-{index}" for index, name in enumerate(sorted(set(placement.config_maps)))}
    return (
        [
            *({"name": volume_of[claim], "persistentVolumeClaim": {"claimName": claim}} for claim in claims),
            *({"name": volume, "configMap": {"name": name}} for name, volume in maps.items()),
        ],
        [
            # Several namespaces may share what is behind the claim: each sees its own folder only.
            {"name": volume_of[placement.output.claim], "mountPath": REGISTRY, "subPath": owner.namespace},
            *(
                {"name": volume_of[claim], "mountPath": f"{VOLUMES}/{claim}", "readOnly": True}
                for claim in sorted(set(placement.claims))
            ),
            *(
                {"name": volume, "mountPath": f"{CONFIG_MAPS}/{name}", "readOnly": True}
                for name, volume in maps.items()
            ),
        ],
    )
