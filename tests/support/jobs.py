"""Plans, jobs and the objects around them, as small as they may be, for tests of the operator."""

from collections.abc import Mapping
from typing import Any

from strop.desired.installation import Installation
from strop_trainer.plan import Plan, plan_digest
from strop_trainer.plan import TrainingPlan as Training
from strop_trainer.termination import TerminationMessage

NAMESPACE = "team-a"
JOB = "support-bot"
JOB_UID = "11111111-1111-1111-1111-111111111111"

INSTALLATION = Installation(
    namespace="strop-system",
    trainer_image="registry.example/strop-trainer:1",
    progress_url="https://strop-progress.strop-system.svc:8443",
    progress_ca="-----BEGIN CERTIFICATE-----\n",
    operator_labels={"app.kubernetes.io/name": "strop"},
)


def training_plan(**changes: Any) -> dict[str, Any]:
    """Return the training part of a Plan as JSON."""
    return {
        "task": "chat",
        "model": {"source": "pvc://models/smollm2"},
        "dataset": {"train": [{"source": "configmap://rows/train.jsonl"}]},
        "method": {
            "type": "lora",
            "lora": {"rank": 8, "alpha": 32, "dropout": 0.0, "targetModules": "all-linear"},
        },
        "hyperparameters": {
            "learningRate": 2e-4,
            "scheduler": "cosine",
            "warmupRatio": 0.03,
            "weightDecay": 0.0,
            "maxGradNorm": 1.0,
            "optimizer": "adamw",
            "epochs": 1.0,
            "effectiveBatchSize": 8,
            "microBatchSize": 4,
            "maxLength": 256,
            "packing": False,
            "precision": "fp32",
            "gradientCheckpointing": False,
            "seed": 0,
            "deterministic": True,
        },
        "checkpoint": {"everySteps": 10},
        **changes,
    }


def make_plan(
    training: Mapping[str, Any] | None = None, placement: Mapping[str, Any] | None = None, job: str = JOB
) -> Plan:
    """Return a valid Plan; the arguments replace top-level fields of its parts."""
    first = Training.model_validate(training_plan(**(training or {})))
    return Plan.model_validate(
        {
            "digest": plan_digest(first),
            "training": first.model_dump(by_alias=True, exclude_none=True),
            "placement": {
                "namespace": NAMESPACE,
                "job": job,
                "pool": "cpu",
                "resources": {"cpu": "2", "memory": "4Gi"},
                "output": {"claim": "strop-models", "model": JOB},
                "claims": ["models"],
                "configMaps": ["rows"],
                **(placement or {}),
            },
        }
    )


def job_spec(**changes: Any) -> dict[str, Any]:
    """Return the spec of a FineTuneJob with the API server's defaults filled in."""
    return {
        "task": "chat",
        "model": {"source": "pvc://models/smollm2"},
        "dataset": {"train": [{"source": "configmap://rows/train.jsonl"}]},
        "method": {"type": "lora"},
        "compute": {"pool": "auto"},
        "suspend": False,
        "backoffLimit": 3,
        **changes,
    }


def make_job(spec: Mapping[str, Any] | None = None, status: Mapping[str, Any] | None = None, **metadata: Any) -> Any:
    """Return a FineTuneJob as the API server gives it."""
    return {
        "apiVersion": "strop.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {
            "name": JOB,
            "namespace": NAMESPACE,
            "uid": JOB_UID,
            "generation": 1,
            "resourceVersion": "100",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            **metadata,
        },
        "spec": job_spec(**(spec or {})),
        **({"status": dict(status)} if status else {}),
    }


def termination(**published: Any) -> TerminationMessage:
    """Return the last word of a trainer that published version 1."""
    return TerminationMessage.model_validate(
        {
            "stage": "publish",
            "reason": "Published",
            "message": "published support-bot version 1",
            "stageSeconds": {"check": 0.5, "train": 60.0},
            "published": {
                "model": JOB,
                "version": 1,
                "path": f"{NAMESPACE}/{JOB}/1",
                "manifestSha256": "a" * 64,
                "planDigest": make_plan().digest,
                "baseFingerprint": "sha256:" + "b" * 64,
                "datasetFingerprint": "sha256:" + "c" * 64,
                "trainRows": 180,
                "validationRows": 20,
                "trainableParameters": 1000,
                "sizeBytes": 123456,
                "metricsBase": {"exact_match": 0.0, "eval_loss": 2.5},
                "metricsTuned": {"exact_match": 0.6, "eval_loss": 0.8},
                "proofs": [{"artifact": "onnx/fp32", "passed": True, "maxLogitDifference": 7e-5}],
                **published,
            },
        }
    )


def owner_reference(kind: str = "FineTuneJob", name: str = JOB, uid: str = JOB_UID) -> dict[str, Any]:
    """Return the reference of a child to its controller."""
    return {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": True}


def make_child(
    kind: str = "Job",
    name: str = JOB,
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    uid: str = JOB_UID,
    **metadata: Any,
) -> dict[str, Any]:
    """Return a child object of the job, as the API server gives it."""
    return {
        "apiVersion": {"Job": "batch/v1", "NetworkPolicy": "networking.k8s.io/v1"}.get(kind, "v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"{kind.lower()}-uid",
            "resourceVersion": "7",
            "annotations": {"strop.dev/plan-digest": make_plan().digest},
            "ownerReferences": [owner_reference(uid=uid)],
            **metadata,
        },
        "spec": {"suspend": False, **(spec or {})} if kind == "Job" else dict(spec or {}),
        "status": dict(status or {}),
    }


def job_ended(condition: str, reason: str = "", message: str = "", at: str = "2026-01-01T00:10:00Z") -> dict[str, Any]:
    """Return the status of a child Job that came to its end."""
    return {
        "conditions": [
            {"type": condition, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at}
        ]
    }


def make_pod(
    name: str = f"{JOB}-0-abcde",
    phase: str = "Pending",
    state: Mapping[str, Any] | None = None,
    conditions: list[dict[str, Any]] | None = None,
    created: str = "2026-01-01T00:00:05Z",
    **status: Any,
) -> dict[str, Any]:
    """Return a trainer pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"{name}-uid",
            "creationTimestamp": created,
            "labels": {"strop.dev/job": JOB},
            "ownerReferences": [owner_reference("Job", JOB, "job-uid")],
        },
        "spec": {
            "containers": [
                {"name": "trainer", "image": "trainer:1", "resources": {"limits": {"cpu": "2", "memory": "4Gi"}}}
            ],
        },
        "status": {
            "phase": phase,
            "conditions": conditions or [],
            **({"containerStatuses": [{"name": "trainer", "state": dict(state)}]} if state else {}),
            **status,
        },
    }


def running_pod(**changes: Any) -> dict[str, Any]:
    """Return a trainer pod that runs."""
    return make_pod(phase="Running", state={"running": {"startedAt": "2026-01-01T00:00:10Z"}}, **changes)


def ended_pod(
    code: int, message: str = "", *, reason: str = "Error", at: str = "2026-01-01T00:09:58Z", **changes: Any
) -> dict[str, Any]:
    """Return a trainer pod that ended with an exit code and a termination message."""
    terminated = {
        "exitCode": code,
        "reason": "Completed" if code == 0 else reason,
        "message": message,
        "startedAt": "2026-01-01T00:00:10Z",
        "finishedAt": at,
    }
    return make_pod(phase="Failed" if code else "Succeeded", state={"terminated": terminated}, **changes)
