"""Documents of each kind, full and minimal, and the way to change one.

Paths are those of tests.support.crd_schema: `a.b`, `a[]` for the items of a list, `a{}` for the values of a map.
"""

import copy
from collections.abc import Mapping
from typing import Any

from strop_trainer.plan import LABEL_TASKS

Document = dict[str, Any]

ABSENT = object()
"""As a value: the field is left out."""

HASH = "0123456789abcdef" * 4

TIME = "2026-01-31T12:00:00Z"


# Every field that may stand beside the others.
FULL: dict[str, Document] = {
    "FineTuneJob": {
        "apiVersion": "strop.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "full", "namespace": "default"},
        "spec": {
            "task": "chat",
            "model": {"source": "hf://owner/name", "revision": "main", "parameters": "135M"},
            "dataset": {
                "train": [{"source": "configmap://rows/train.jsonl"}],
                "validation": [{"source": "pvc://data/held-out.jsonl"}],
                "format": "jsonl",
                "maxRows": 1000,
            },
            "method": {
                "type": "lora",
                "lora": {
                    "rank": 8,
                    "alpha": 32,
                    "dropout": 0.05,
                    "targetModules": ["q_proj"],
                    "modulesToSave": ["lm_head"],
                    "useRslora": True,
                    "initialization": "default",
                    "plusRatio": 16,
                },
            },
            "training": {
                "epochs": 1.5,
                "learningRate": 0.0002,
                "scheduler": "cosine",
                "warmupRatio": 0.03,
                "weightDecay": 0.01,
                "maxGradNorm": 1,
                "effectiveBatchSize": 16,
                "microBatchSize": 4,
                "maxLength": 512,
                "packing": True,
                "precision": "bf16",
                "gradientCheckpointing": False,
                "seed": 7,
                "deterministic": True,
            },
            "distributed": {"nodes": 1, "processesPerNode": 1, "strategy": "none"},
            "compute": {
                "pool": "cpu",
                "resources": {"cpu": 2, "memory": "8Gi", "accelerators": 0},
                "image": "registry.example:5000/strop/trainer:1",
            },
            "evaluation": {
                "everySteps": 10,
                "maxRows": 100,
                "generateRows": 10,
                "maxNewTokens": 32,
                "minimum": {"exact_match": 0.5},
                "maximum": {"eval_loss": 2},
            },
            "checkpoint": {"everySteps": 50, "keep": 3, "size": "20Gi", "storageClassName": "fast"},
            "output": {
                "model": "answers",
                "claim": {"name": "models"},
                "onnx": {"enabled": True, "precisions": ["fp32", "int4"], "form": "merged"},
                "merged": True,
                "aliases": ["candidate"],
            },
            "credentials": {"name": "hub"},
            "suspend": True,
            "activeDeadlineSeconds": 3600,
            "ttlSecondsAfterFinished": 60,
            "backoffLimit": 1,
        },
        "status": {
            "observedGeneration": 1,
            "phase": "Running",
            "conditions": [
                {
                    "type": "Running",
                    "status": "True",
                    "reason": "Training",
                    "message": "step 3 of 10",
                    "lastTransitionTime": TIME,
                    "observedGeneration": 1,
                }
            ],
            "message": "step 3 of 10",
            "planDigest": f"sha256:{HASH}",
            "pool": "cpu",
            "progress": {
                "stage": "train",
                "display": "30%",
                "step": 3,
                "totalSteps": 10,
                "percent": 30,
                "epoch": 0.3,
                "loss": "2.1",
                "evalLoss": "2.2",
                "learningRate": "0.0002",
                "tokensPerSecond": 300,
                "etaSeconds": 200,
                "eta": "3m20s",
                "updatedAt": TIME,
            },
            "attempts": 1,
            "stageSeconds": {"check": 0.5},
            "modelVersion": {"name": "answers-1", "version": 1, "path": "default/answers/1", "claim": "models"},
            "metrics": {"exact_match": "0.00 → 0.60"},
            "startTime": TIME,
            "completionTime": TIME,
        },
    },
    "ComputePool": {
        "apiVersion": "strop.dev/v1alpha1",
        "kind": "ComputePool",
        "metadata": {"name": "full"},
        "spec": {
            "nodeSelector": {"strop.dev/pool": "gpu"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Equal", "value": "true", "effect": "NoSchedule"}],
            "cpuPerNode": "16",
            "memoryPerNode": "64Gi",
            "maxNodes": 2,
            "accelerator": {"resourceName": "nvidia.com/gpu", "memory": "24Gi", "perNode": 2},
            "cost": 3.5,
            "queueName": "gpu",
            "priorityClassName": "training",
            "runtimeClassName": "nvidia",
            "storageClassName": "fast",
            "image": "registry.example/strop/trainer:1-cuda",
            "namespaces": ["team-a"],
        },
    },
    "ModelVersion": {
        "apiVersion": "strop.dev/v1alpha1",
        "kind": "ModelVersion",
        "metadata": {"name": "full", "namespace": "default"},
        "spec": {
            "model": "answers",
            "version": 1,
            "task": "chat",
            "method": "lora",
            "registry": {
                "claim": "models",
                "path": "default/answers/1",
                "sizeBytes": 500_000_000,
                "manifestSha256": HASH,
            },
            "planDigest": f"sha256:{HASH}",
            "baseModel": {"source": "hf://owner/name", "revision": "main", "fingerprint": f"sha256:{HASH}"},
            "dataset": {"fingerprint": f"sha256:{HASH}", "trainRows": 180, "validationRows": 20},
            "metrics": [{"name": "exact_match", "base": 0, "tuned": 0.6}],
            "proofs": [
                {
                    "artifact": "onnx/fp32",
                    "passed": True,
                    "maxLogitDifference": 0.00007,
                    "tokenAgreement": 1,
                    "perplexityRatio": 1,
                    "judgedBy": ["largest logit difference 7e-05 (at most 0.005)"],
                }
            ],
            "job": {"name": "full", "uid": "0b6d5f6e-6f0a-4d6e-9d2e-0f9b7f1b7c1a"},
            "publishedAt": TIME,
        },
    },
}

MINIMAL: dict[str, Document] = {
    "FineTuneJob": {
        "apiVersion": "strop.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "minimal", "namespace": "default"},
        "spec": {
            "task": "chat",
            "model": {"source": "hf://owner/name"},
            "dataset": {"train": [{"source": "configmap://rows/train.jsonl"}]},
        },
    },
    "ComputePool": {
        "apiVersion": "strop.dev/v1alpha1",
        "kind": "ComputePool",
        "metadata": {"name": "minimal"},
        "spec": {"cpuPerNode": "4", "memoryPerNode": "8Gi"},
    },
    "ModelVersion": {
        **FULL["ModelVersion"],
        "metadata": {"name": "minimal", "namespace": "default"},
        "spec": {
            name: part for name, part in FULL["ModelVersion"]["spec"].items() if name not in ("metrics", "proofs")
        },
    },
}


def place(document: Document, path: str, value: Any) -> Document:
    """Returns a copy of a document in which a path has a value: the first item of a list, the first key of a map.

    Objects on the way that are not there are made.
    """
    result = copy.deepcopy(document)
    here: Any = result
    steps: list[str | int] = []
    for name in path.split("."):
        plain = name.rstrip("[]{}")
        steps.append(plain)
        if name.endswith("[]"):
            steps.append(0)
        elif name.endswith("{}"):
            steps.append("{}")
    for at, step in enumerate(steps):
        key = next(iter(here), "key") if step == "{}" else step
        if at == len(steps) - 1:
            if value is ABSENT:
                here.pop(key, None)
            else:
                here[key] = copy.deepcopy(value)
        elif isinstance(here, dict):
            here = here.setdefault(key, {})
        else:
            here = here[int(key)]
    return result


def place_all(document: Document, values: Mapping[str, Any]) -> Document:
    """Returns a copy of a document in which each path has its value."""
    for path, value in values.items():
        document = place(document, path, value)
    return document


PROMPTS = ("prompt-tuning", "prefix-tuning", "p-tuning")


def with_method(name: str, **options: Any) -> Mapping[str, Any]:
    """A method, and what must be left out of the full document beside it."""
    prompts = name in {"prompt-tuning", "prefix-tuning", "p-tuning"}
    left_out = {"spec.training.packing": ABSENT, "spec.output": ABSENT} if prompts else {}
    return {"spec.method": {"type": name, **options}, **left_out}


def with_task(name: str) -> dict[str, Any]:
    """A task, and what must be left out of the full document beside it."""
    return {"spec.task": name, **({"spec.output": ABSENT} if name in LABEL_TASKS else {})}
