"""What phases, conditions and reasons mean, for people: docs/reference/conditions.md is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from strop.api.names import Condition, Phase, Reason

PHASES: Final[Mapping[str, str]] = {
    Phase.PENDING: "Accepted; something must go or come before it starts. The message says what.",
    Phase.INVALID: "Cannot run as it is; the message says why. It starts by itself when what is missing comes.",
    Phase.QUEUED: "Waits for quota: Kueue has not admitted it yet, or the namespace's ResourceQuota is used up.",
    Phase.STARTING: "The pods are being created, scheduled or started. The message says what they wait for.",
    Phase.RUNNING: "A trainer pod runs; status.progress says how far it is.",
    Phase.PUBLISHING: "Training is done; the result is exported, proven and published.",
    Phase.SUSPENDED: "Paused by spec.suspend; goes on from the last checkpoint.",
    Phase.COMPLETE: "Done: the version is published.",
    Phase.FAILED: "Ended without a version; the message says why. A finished job is not run again.",
    Phase.DELETING: "Being deleted: pods end first, then their work volume goes.",
}

CONDITIONS: Final[Mapping[str, str]] = {
    Condition.ACCEPTED: "True: the spec makes a Plan, and what it names is there. False: the reason says what is not. "
    "Unknown: what is not there yet is waited for.",
    Condition.QUEUED: "True while it waits for quota.",
    Condition.RUNNING: "True while a trainer pod runs.",
    Condition.PUBLISHED: "True once the version is in the registry.",
    Condition.COMPLETE: "True once the job is done: `kubectl wait --for=condition=Complete ftj/…`.",
    Condition.FAILED: "True once the job has ended without a version.",
    Condition.SUSPENDED: "True while it is paused.",
    Condition.RECONCILING: "True while the operator works on it (kstatus: in progress, for Argo CD and Flux).",
    Condition.STALLED: "True where it does not go on by itself (kstatus: failed).",
}

REASONS: Final[Mapping[str, str]] = {
    Reason.PLANNED: "The job was accepted and planned.",
    Reason.INVALID: "The spec contradicts itself or another object; the message names field, found and allowed.",
    Reason.UNSUPPORTED: "This version of Strop cannot do what is asked for.",
    Reason.POOL_NOT_FOUND: "There is no ComputePool of that name, or none at all. `kubectl get cpool` lists them.",
    Reason.NO_POOL_FITS: "No pool has nodes that are large enough; the message has the numbers. "
    "Ask for less (a smaller microBatchSize or maxLength) or add a pool.",
    Reason.NAMESPACE_NOT_ALLOWED: "The pool's `namespaces` leave out the job's.",
    Reason.CLAIM_NOT_FOUND: "A PersistentVolumeClaim that the job names is not in its namespace. Create it.",
    Reason.CONFIG_MAP_NOT_FOUND: "A ConfigMap, or its key, that the job names is not in its namespace. Create it.",
    Reason.SECRET_NOT_FOUND: "The Secret in `credentials` is not in the job's namespace. Create it.",
    Reason.NAME_TAKEN: "An object that the job needs to create exists already and is not its own. "
    "Delete that object, or give the job another name.",
    Reason.CREATED: "The Job was created; its pod comes next.",
    Reason.WAITING_FOR_INPUT: "A claim or ConfigMap that the job names is not there yet. It starts when it comes; "
    "after half a minute it is Invalid, and still starts when it comes.",
    Reason.WAITING_FOR_QUOTA: "Kueue, a scheduling gate or a ResourceQuota holds it back until there is room.",
    Reason.UNSCHEDULABLE: "No node takes the pod now; the message is the scheduler's.",
    Reason.CLAIM_UNBOUND: "A PersistentVolumeClaim waits for a volume; `kubectl describe pvc` says why.",
    Reason.IMAGE_PULL: "The trainer image cannot be pulled: a wrong name, or a missing pull secret.",
    Reason.POD_REFUSED: "The cluster refuses the pod (Pod Security, a LimitRange, a webhook); the message says which.",
    Reason.STARTING: "The pod is being started.",
    Reason.TRAINING: "The trainer runs.",
    Reason.PREEMPTED: "The pod was evicted or drained with a checkpoint saved; it goes on from there.",
    Reason.RESTARTED: "A new attempt, from the last checkpoint.",
    Reason.SUSPENDED: "`spec.suspend` is set.",
    Reason.RESUMED: "`spec.suspend` was unset; it goes on from the last checkpoint.",
    Reason.PUBLISHED: "The version is in the registry.",
    Reason.COMPLETE: "The job is done.",
    Reason.BAD_DATA: "The dataset is wrong; the message names file, row and field.",
    Reason.MISSING_INPUT: "A model, file or folder is not where the job says.",
    Reason.SOURCE_UNAVAILABLE: "A remote source did not answer, in all attempts.",
    Reason.CANNOT_PUBLISH: "The registry volume cannot be written: full, or read-only.",
    Reason.PROOF_FAILED: "The result missed its proof or a gate of `evaluation`; it is not published.",
    Reason.NO_PERMISSION: "Credentials are missing or refused.",
    Reason.BAD_CONFIGURATION: "The trainer cannot do what the job asks for: it does not fit, or is not supported.",
    Reason.OUT_OF_MEMORY: "The trainer was ended at its memory limit, or stood still there. "
    "Raise `compute.resources.memory`, or lower `training.microBatchSize` or `training.maxLength`.",
    Reason.DEADLINE_EXCEEDED: "`activeDeadlineSeconds` passed before it was done.",
    Reason.BACKOFF_LIMIT: "It failed more often than `backoffLimit` allows.",
    Reason.TRAINER_FAILED: "The trainer ended unexpectedly; its last words are in the message.",
    Reason.FINISHED: "The job has ended.",
    Reason.DELETING: "The job is being deleted.",
    Reason.PROGRESSING: "The operator works on it.",
}
