"""Names that other programs rely on: group, labels, annotations, conditions, reasons. Each is written here only."""

from __future__ import annotations

from typing import Final

GROUP: Final = "strop.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

FIELD_MANAGER: Final = "strop"
FINALIZER: Final = f"{GROUP}/cleanup"

LABEL_JOB: Final = f"{GROUP}/job"
"""On every child object: the name of its FineTuneJob."""
LABEL_MODEL: Final = f"{GROUP}/model"
LABEL_POOL: Final = f"{GROUP}/pool"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_QUEUE: Final = "kueue.x-k8s.io/queue-name"

ANNOTATION_PLAN_DIGEST: Final = f"{GROUP}/plan-digest"
ANNOTATION_PAUSED: Final = f"{GROUP}/paused"
"""On what the operator paused by `spec.suspend`: only that is resumed by it."""

PLAN_KEY: Final = "plan.json"
"""Key of the Plan in its ConfigMap."""

TOKEN_AUDIENCE: Final = f"progress.{GROUP}"
"""Audience of the projected token with which trainers report progress; the API server refuses it."""

DEFAULT_CLAIM: Final = "strop-models"
"""The registry claim of a namespace where `spec.output.claim` names none."""


class Condition:
    """Condition types of a FineTuneJob."""

    ACCEPTED: Final = "Accepted"
    QUEUED: Final = "Queued"
    RUNNING: Final = "Running"
    PUBLISHED: Final = "Published"
    COMPLETE: Final = "Complete"
    FAILED: Final = "Failed"
    SUSPENDED: Final = "Suspended"
    RECONCILING: Final = "Reconciling"
    STALLED: Final = "Stalled"


class Reason:
    """Reasons of conditions and Events: stable, CamelCase."""

    PLANNED: Final = "Planned"
    INVALID: Final = "Invalid"
    UNSUPPORTED: Final = "Unsupported"
    POOL_NOT_FOUND: Final = "PoolNotFound"
    NO_POOL_FITS: Final = "NoPoolFits"
    NAMESPACE_NOT_ALLOWED: Final = "NamespaceNotAllowed"
    CLAIM_NOT_FOUND: Final = "ClaimNotFound"
    CONFIG_MAP_NOT_FOUND: Final = "ConfigMapNotFound"
    SECRET_NOT_FOUND: Final = "SecretNotFound"
    NAME_TAKEN: Final = "NameTaken"
    CREATED: Final = "Created"
    WAITING_FOR_INPUT: Final = "WaitingForInput"
    WAITING_FOR_QUOTA: Final = "WaitingForQuota"
    UNSCHEDULABLE: Final = "Unschedulable"
    CLAIM_UNBOUND: Final = "ClaimUnbound"
    IMAGE_PULL: Final = "ImagePull"
    POD_REFUSED: Final = "PodRefused"
    STARTING: Final = "Starting"
    TRAINING: Final = "Training"
    PREEMPTED: Final = "Preempted"
    RESTARTED: Final = "Restarted"
    SUSPENDED: Final = "Suspended"
    RESUMED: Final = "Resumed"
    PUBLISHED: Final = "Published"
    COMPLETE: Final = "Complete"
    BAD_DATA: Final = "BadData"
    MISSING_INPUT: Final = "MissingInput"
    SOURCE_UNAVAILABLE: Final = "SourceUnavailable"
    CANNOT_PUBLISH: Final = "CannotPublish"
    PROOF_FAILED: Final = "ProofFailed"
    NO_PERMISSION: Final = "NoPermission"
    BAD_CONFIGURATION: Final = "BadConfiguration"
    OUT_OF_MEMORY: Final = "OutOfMemory"
    DEADLINE_EXCEEDED: Final = "DeadlineExceeded"
    BACKOFF_LIMIT: Final = "BackoffLimitExceeded"
    TRAINER_FAILED: Final = "TrainerFailed"
    FINISHED: Final = "Finished"
    DELETING: Final = "Deleting"
    PROGRESSING: Final = "Progressing"


class Phase:
    """The one-word summary, derived from the conditions."""

    PENDING: Final = "Pending"
    INVALID: Final = "Invalid"
    QUEUED: Final = "Queued"
    STARTING: Final = "Starting"
    RUNNING: Final = "Running"
    PUBLISHING: Final = "Publishing"
    SUSPENDED: Final = "Suspended"
    COMPLETE: Final = "Complete"
    FAILED: Final = "Failed"
    DELETING: Final = "Deleting"
