"""What each field of the resources takes and what it refuses: one table for the API server and for pydantic.

Paths are those of tests.support.crd_schema: `a.b`, `a[]` for the items of a list, `a{}` for the values of a map.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from strop_trainer.plan import LABEL_TASKS, METRIC_RANGES, METRICS, Task, TaskMetrics

Document = dict[str, Any]

ABSENT = object()
"""As a value: the field is left out."""

NOT_YET = "this version of Strop"
UNMEASURED = " is measured by "
ASIDE = (NOT_YET, UNMEASURED)
"""Words of rules that may refuse what another bound or rule takes."""
FIXED = "fixed once the job is created; delete the job, or give a new one another name"

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


@dataclass(frozen=True)
class Bound:
    """One field: values at the edges that it takes, and for each bound one that it refuses."""

    kind: str
    path: str
    accept: tuple[Any, ...]
    reject: Mapping[str, Any]
    """Keyword of the schema → a value that it refuses."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """What must be set in the full document along with it."""
    not_yet: bool = False
    """What is taken here is still refused by a rule on what this version can do, and by nothing else."""


@dataclass(frozen=True)
class RuleCase:
    """One CEL rule: what it takes and what it refuses, as paths and values in the full document."""

    kind: str
    path: str
    """Where the rule stands."""
    field_path: str
    message: str
    """The start of the message."""
    accept: tuple[Mapping[str, Any], ...]
    reject: tuple[Mapping[str, Any], ...]
    only_not_yet: bool = False
    """What is taken by this rule is refused by another, on what this version can do."""


@dataclass(frozen=True)
class Transition:
    """One rule on changes: what may become of the full document, and what may not."""

    kind: str
    path: str
    field_path: str
    message: str
    reject: tuple[Mapping[str, Any], ...]
    before: Mapping[str, Any] = field(default_factory=dict)
    """The object as it was, against the full document."""


class _Values:
    """What the common types of text take and refuse."""

    label = (
        ("a", "0", "a-0", "a" * 63),
        {"minLength": "", "maxLength": "a" * 64, "form": "A"},
    )
    alias = (
        ("a", "a-0", "a" * 63),
        {"minLength": "", "maxLength": "a" * 64, "form": "1"},
    )
    name = (
        ("a", "a.b-c.0", "a" * 253),
        {"minLength": "", "maxLength": "a" * 254, "form": "a..b"},
    )
    qualified = (
        ("a", "nvidia.com/gpu", "a" * 253 + "/" + "b" * 63),
        {"minLength": "", "maxLength": "a" * 254 + "/" + "b" * 63, "form": "a b"},
    )
    label_value = (
        ("", "true", "A_b.c-0", "a" * 63),
        {"maxLength": "a" * 64, "form": "-a"},
    )
    cpu = (
        ("1", "0.5", "1500m", "1" * 32, 1, 64),
        {"minLength": "", "maxLength": "1" * 33, "form": "0", "minimum": 0},
    )
    memory = (
        ("1k", "8Gi", "1.5Ti", "1" * 30 + "Gi"),
        {"minLength": "", "maxLength": "1" * 31 + "Gi", "form": "8"},
    )
    image = (
        ("a", "registry.example:5000/a/b:1", "a@sha256:" + HASH, "a" * 512),
        {"minLength": "", "maxLength": "a" * 513, "form": "a b"},
    )
    sha256 = (
        (HASH,),
        {"minLength": HASH[1:], "maxLength": HASH + "0", "form": HASH.upper()},
    )
    time = (
        (TIME, "2026-01-31T12:00:00+01:00", "2026-01-31T12:00:00." + "0" * 19 + "Z"),
        {"minLength": "2026-01-31T12:00:00", "maxLength": "2026-01-31T12:00:00." + "0" * 20 + "Z", "pattern": "x" * 20},
    )
    revision = (
        ("a", "main", "refs/pr/1", "a" * 255),
        {"minLength": "", "maxLength": "a" * 256, "form": "-a"},
    )
    module = (
        ("a", "model.layers.0.q_proj", "a" * 128),
        {"minLength": "", "maxLength": "a" * 129, "form": "a b"},
    )


def _numbers(low: float, high: float, step: float = 1) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (low, high), {"minimum": low - step, "maximum": high + step}


def _above(low: float, high: float, step: float) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Numbers greater than the lower bound."""
    return (low + step, high), {"minimum": low, "maximum": high + step}


def _at_least(low: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (low, 2**53), {"minimum": low - 1}


def _at_most(length: int, least: int = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Text of any kind, bound in length."""
    return ("a" * least, "a" * length), {"maxLength": "a" * (length + 1)} | ({"minLength": ""} if least else {})


_JOB: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "spec.task": (("chat",), {"enum": "poetry"}),
    "spec.dataset.train": (
        tuple([{"source": f"pvc://a/{n}"} for n in range(count)] for count in (1, 64)),
        {"minItems": [], "maxItems": [{"source": "pvc://a/b"}] * 65},
    ),
    "spec.dataset.validation": (
        tuple([{"source": f"pvc://a/{n}"} for n in range(count)] for count in (1, 64)),
        {"minItems": [], "maxItems": [{"source": "pvc://a/b"}] * 65},
    ),
    "spec.dataset.format": (("auto", "jsonl", "csv", "parquet"), {"enum": "xml"}),
    "spec.dataset.maxRows": _numbers(2, 100_000_000),
    "spec.model.parameters": (
        ("1M", "135M", "0.5B", "8B", "1" * 15 + "B"),
        {"minLength": "B", "maxLength": "1" * 16 + "B", "form": "8 B"},
    ),
    "spec.model.revision": _Values.revision,
    "spec.method.type": (("lora", "qlora", "dora"), {"enum": "loora"}),
    "spec.method.lora.rank": _numbers(1, 1024),
    "spec.method.lora.alpha": _numbers(1, 4096),
    "spec.method.lora.dropout": ((0, 0.999), {"minimum": -0.001, "maximum": 1}),
    "spec.method.lora.targetModules": (
        tuple([f"layer{n}" for n in range(count)] for count in (1, 64)),
        {"minItems": [], "maxItems": ["q_proj"] * 65},
    ),
    "spec.method.lora.targetModules[]": _Values.module,
    "spec.method.lora.modulesToSave": (([], ["lm_head"] * 16), {"maxItems": ["lm_head"] * 17}),
    "spec.method.lora.modulesToSave[]": _Values.module,
    "spec.method.lora.initialization": (("default", "pissa", "olora"), {"enum": "zero"}),
    "spec.method.lora.plusRatio": _numbers(1, 1024),
    "spec.training.epochs": _above(0, 1000, 0.001),
    "spec.training.learningRate": _above(0, 1, 0.000001),
    "spec.training.scheduler": (("linear", "cosine", "constant"), {"enum": "polynomial"}),
    "spec.training.warmupRatio": _numbers(0, 0.5, 0.001),
    "spec.training.weightDecay": _numbers(0, 1, 0.001),
    "spec.training.maxGradNorm": _above(0, 1000, 0.001),
    "spec.training.maxLength": _numbers(16, 1_048_576),
    "spec.training.precision": (("auto", "bf16", "fp32"), {"enum": "int8"}),
    "spec.training.seed": _numbers(0, 4_294_967_295),
    "spec.distributed.strategy": (("none",), {"enum": "zero-4"}),
    "spec.compute.pool": _Values.label,
    "spec.compute.resources.cpu": _Values.cpu,
    "spec.compute.resources.memory": _Values.memory,
    "spec.compute.resources.accelerators": _numbers(0, 64),
    "spec.compute.image": _Values.image,
    "spec.evaluation.everySteps": _numbers(1, 1_000_000),
    "spec.evaluation.maxRows": _numbers(1, 1_000_000),
    "spec.evaluation.maxNewTokens": _numbers(1, 8192),
    "spec.checkpoint.everySteps": _numbers(1, 1_000_000),
    "spec.checkpoint.keep": _numbers(1, 100),
    "spec.checkpoint.size": _Values.memory,
    "spec.checkpoint.storageClassName": _Values.name,
    "spec.output.model": _Values.label,
    "spec.output.claim.name": _Values.name,
    "spec.output.onnx.precisions": (
        (["int8"], ["fp32", "int8", "int4"]),
        {"minItems": [], "maxItems": ["fp32", "int8", "int4", "fp32"]},
    ),
    "spec.output.onnx.precisions[]": (("fp32", "int8"), {"enum": "fp16"}),
    "spec.output.onnx.form": (("merged",), {"enum": "folded"}),
    "spec.output.aliases": (([], [f"alias{n}" for n in range(8)]), {"maxItems": [f"alias{n}" for n in range(9)]}),
    "spec.output.aliases[]": _Values.alias,
    "spec.credentials.name": _Values.name,
    "spec.activeDeadlineSeconds": _numbers(1, 31_536_000),
    "spec.ttlSecondsAfterFinished": _numbers(0, 31_536_000),
    "spec.backoffLimit": _numbers(0, 100),
    "status.observedGeneration": _at_least(0),
    "status.phase": _at_most(32),
    "status.conditions": (
        ([], [FULL["FineTuneJob"]["status"]["conditions"][0] | {"type": f"Type{n}"} for n in range(16)]),
        {"maxItems": [FULL["FineTuneJob"]["status"]["conditions"][0] | {"type": f"Type{n}"} for n in range(17)]},
    ),
    "status.conditions[].type": _at_most(316, 1),
    "status.conditions[].status": (("True", "False", "Unknown"), {"maxLength": "Unknown1", "pattern": "Maybe"}),
    "status.conditions[].reason": (
        ("A", "Training", "A" * 128),
        {"minLength": "", "maxLength": "A" * 129, "pattern": "no reason"},
    ),
    "status.conditions[].message": _at_most(32768),
    "status.conditions[].lastTransitionTime": _Values.time,
    "status.conditions[].observedGeneration": _at_least(0),
    "status.message": _at_most(2048),
    "status.planDigest": _at_most(80),
    "status.pool": _at_most(253),
    "status.progress.stage": _at_most(32),
    "status.progress.display": _at_most(32),
    "status.progress.step": _at_least(0),
    "status.progress.totalSteps": _at_least(0),
    "status.progress.percent": _numbers(0, 100),
    "status.progress.epoch": _at_least(0),
    "status.progress.loss": _at_most(16),
    "status.progress.evalLoss": _at_most(16),
    "status.progress.learningRate": _at_most(16),
    "status.progress.tokensPerSecond": _at_least(0),
    "status.progress.etaSeconds": _at_least(0),
    "status.progress.eta": _at_most(16),
    "status.progress.updatedAt": _Values.time,
    "status.attempts": _at_least(0),
    "status.stageSeconds": (
        ({}, {f"stage{n}": 1 for n in range(32)}),
        {"maxProperties": {f"stage{n}": 1 for n in range(33)}},
    ),
    "status.stageSeconds{}": _at_least(0),
    "status.modelVersion.name": _Values.name,
    "status.modelVersion.version": _at_least(1),
    "status.modelVersion.path": _at_most(512, 1),
    "status.modelVersion.claim": _Values.name,
    "status.metrics": (
        ({}, {f"metric{n}": "1" for n in range(64)}),
        {"maxProperties": {f"metric{n}": "1" for n in range(65)}},
    ),
    "status.metrics{}": _at_most(64),
    "status.startTime": _Values.time,
    "status.completionTime": _Values.time,
}

_POOL: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "spec.nodeSelector": (
        ({}, {f"key{n}": "a" for n in range(32)}),
        {"maxProperties": {f"key{n}": "a" for n in range(33)}},
    ),
    "spec.nodeSelector{}": _Values.label_value,
    "spec.tolerations": (
        ([], [{"operator": "Exists"}] * 32),
        {"maxItems": [{"operator": "Exists"}] * 33},
    ),
    "spec.tolerations[].key": _Values.qualified,
    "spec.tolerations[].operator": (("Equal",), {"enum": "Like"}),
    "spec.tolerations[].value": _Values.label_value,
    "spec.tolerations[].effect": (("NoSchedule", "PreferNoSchedule", "NoExecute"), {"enum": "Evict"}),
    "spec.cpuPerNode": _Values.cpu,
    "spec.memoryPerNode": _Values.memory,
    "spec.maxNodes": _numbers(1, 10_000),
    "spec.accelerator.resourceName": _Values.qualified,
    "spec.accelerator.memory": _Values.memory,
    "spec.accelerator.perNode": _numbers(1, 64),
    "spec.cost": _numbers(0, 1_000_000, 0.5),
    "spec.queueName": _Values.label,
    "spec.priorityClassName": _Values.name,
    "spec.runtimeClassName": _Values.name,
    "spec.storageClassName": _Values.name,
    "spec.image": _Values.image,
    "spec.namespaces": (([], [f"team{n}" for n in range(256)]), {"maxItems": [f"team{n}" for n in range(257)]}),
    "spec.namespaces[]": _Values.label,
}

_VERSION: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "spec.model": _Values.label,
    "spec.version": _at_least(1),
    "spec.task": _at_most(64, 1),
    "spec.method": _at_most(64, 1),
    "spec.registry.claim": _Values.name,
    "spec.registry.path": (
        ("ab", "default/answers/1", "a" * 512),
        {"minLength": "", "maxLength": "a" * 513, "pattern": "../other"},
    ),
    "spec.registry.sizeBytes": _at_least(0),
    "spec.registry.manifestSha256": _Values.sha256,
    "spec.planDigest": (
        (f"sha256:{HASH}",),
        {"minLength": f"sha256:{HASH[1:]}", "maxLength": f"sha256:{HASH}0", "pattern": f"sha512:{HASH}"},
    ),
    "spec.baseModel.source": _at_most(1024, 1),
    "spec.baseModel.revision": _at_most(255),
    "spec.baseModel.fingerprint": _at_most(80, 1),
    "spec.dataset.fingerprint": _at_most(80, 1),
    "spec.dataset.trainRows": _at_least(0),
    "spec.dataset.validationRows": _at_least(0),
    "spec.metrics": (([], [{"name": "a"}] * 64), {"maxItems": [{"name": "a"}] * 65}),
    "spec.metrics[].name": _at_most(64, 1),
    "spec.proofs": (
        ([], [{"artifact": "a", "passed": True}] * 16),
        {"maxItems": [{"artifact": "a", "passed": True}] * 17},
    ),
    "spec.proofs[].artifact": _at_most(128, 1),
    "spec.proofs[].judgedBy": (([], ["f1 0.8 (at least 0.7)"] * 16), {"maxItems": ["f1 0.8 (at least 0.7)"] * 17}),
    "spec.proofs[].judgedBy[]": _at_most(128, 1),
    "spec.job.name": _Values.name,
    "spec.job.uid": _at_most(64, 1),
    "spec.publishedAt": _Values.time,
}

_DATA_SOURCES = (
    ("configmap://rows/train.jsonl", "pvc://a.b/rows", "hf://datasets/owner/name/a/b.jsonl", "pvc://a/" + "b" * 1016),
    {"minLength": "", "maxLength": "pvc://a/" + "b" * 1017, "form": "ftp://host/file"},
)
_NO_VALIDATION = {"spec.dataset.validation": ABSENT}
_NO_REVISION = {"spec.model.revision": ABSENT}


def _method(name: str, **options: Any) -> Mapping[str, Any]:
    """A method, and what must be left out of the full document beside it."""
    prompts = name in {"prompt-tuning", "prefix-tuning", "p-tuning"}
    left_out = {"spec.training.packing": ABSENT, "spec.output": ABSENT} if prompts else {}
    return {"spec.method": {"type": name, **options}, **left_out}


def _task(name: str) -> dict[str, Any]:
    """A task, and what must be left out of the full document beside it."""
    return {"spec.task": name, **({"spec.output": ABSENT} if name in LABEL_TASKS else {})}


def _form(form: str, *precisions: str) -> dict[str, Any]:
    """An ONNX export of some form."""
    return {"spec.output": {"onnx": {"form": form, "precisions": list(precisions or ("fp32",))}}}


def _labels(task: Task) -> tuple[RuleCase, ...]:
    """The rules on the other parts of a job whose model puts out labels."""
    free = {**_task(task), "spec.evaluation": ABSENT}
    lora = "spec.method.lora.initialization"
    return (
        RuleCase(
            "FineTuneJob",
            "spec",
            ".method.type",
            "text-classification and token-classification take lora, qlora, dora, ia3, full: tokens in front of a row "
            "are for models that answer in words",
            tuple(free | _method(name) for name in ("lora", "qlora", "dora", "ia3", "full")),
            tuple(free | _method(name) for name in ("prompt-tuning", "prefix-tuning", "p-tuning")),
        ),
        RuleCase(
            "FineTuneJob",
            "spec",
            ".output.onnx.precisions",
            "text-classification and token-classification are exported as fp32 and int8, not int4",
            (
                free | {"spec.output": {"onnx": {"precisions": ["fp32", "int8"]}}},
                free | {"spec.output": {"onnx": {"enabled": True}}},
                free | {"spec.output": {}},
            ),
            (free | {"spec.output": {"onnx": {"precisions": ["fp32", "int4"]}}},),
        ),
        RuleCase(
            "FineTuneJob",
            "spec",
            ".method.lora.initialization",
            "only default for text-classification and token-classification",
            (free | {lora: "default"},),
            (free | {lora: "pissa"},),
        ),
    )


_PROMPT = _method("prompt-tuning", prompt={})
_PROMPTS = ("prompt-tuning", "prefix-tuning", "p-tuning")

BOUNDS: tuple[Bound, ...] = (
    *(Bound("FineTuneJob", path, accept, reject) for path, (accept, reject) in _JOB.items()),
    *(Bound("ComputePool", path, accept, reject) for path, (accept, reject) in _POOL.items()),
    *(Bound("ModelVersion", path, accept, reject) for path, (accept, reject) in _VERSION.items()),
    Bound(
        "FineTuneJob",
        "spec.model.source",
        ("hf://owner/name", "pvc://claim/folder/model", "pvc://a/" + "b" * 1016),
        {"minLength": "", "maxLength": "pvc://a/" + "b" * 1017, "form": "owner/name"},
        _NO_REVISION,
    ),
    Bound(
        "FineTuneJob",
        "spec.model.sha256",
        *_Values.sha256,
        _NO_REVISION | {"spec.model.source": "https://host.example:8443/model.tar.gz"},
    ),
    *(
        bound
        for part in ("train", "validation")
        for bound in (
            Bound("FineTuneJob", f"spec.dataset.{part}[].source", *_DATA_SOURCES),
            Bound(
                "FineTuneJob",
                f"spec.dataset.{part}[].revision",
                *_Values.revision,
                {f"spec.dataset.{part}[].source": "hf://datasets/owner/name/file"},
            ),
            Bound(
                "FineTuneJob",
                f"spec.dataset.{part}[].sha256",
                *_Values.sha256,
                {f"spec.dataset.{part}[].source": "https://host.example/rows.jsonl"},
            ),
        )
    ),
    Bound(
        "FineTuneJob",
        "spec.model.chatTemplate",
        ("messages", "{{ messages }}".ljust(65536)),
        {"minLength": "message", "maxLength": "{{ messages }}".ljust(65537)},
        {"spec.task": "chat"},  # not beside every task
    ),
    Bound("FineTuneJob", "spec.dataset.validationSplit", *_above(0, 0.5, 0.001), _NO_VALIDATION),
    Bound("FineTuneJob", "spec.training.maxSteps", *_numbers(1, 10_000_000), {"spec.training.epochs": ABSENT}),
    Bound(
        "FineTuneJob", "spec.training.effectiveBatchSize", *_numbers(1, 65536), {"spec.training.microBatchSize": ABSENT}
    ),
    Bound(
        "FineTuneJob", "spec.training.microBatchSize", *_numbers(1, 4096), {"spec.training.effectiveBatchSize": ABSENT}
    ),
    Bound("FineTuneJob", "spec.distributed.nodes", *_numbers(1, 1024), not_yet=True),
    Bound(
        "FineTuneJob",
        "spec.distributed.processesPerNode",
        *_numbers(1, 64),
        {"spec.distributed.strategy": "ddp", "spec.training.effectiveBatchSize": ABSENT},
    ),
    Bound(
        "FineTuneJob",
        "spec.distributed.offload",
        ("optimizer", "all"),
        {"enum": "none"},
        {"spec.distributed.strategy": "zero-3"},
    ),
    Bound(
        "FineTuneJob",
        "spec.training.preferenceBeta",
        *_above(0, 10, 0.001),
        {"spec.task": "preference", "spec.evaluation": ABSENT},
    ),
    Bound("FineTuneJob", "spec.evaluation.generateRows", *_numbers(0, 10_000), {"spec.evaluation.minimum": ABSENT}),
    *(
        Bound(
            "FineTuneJob",
            f"spec.evaluation.{bound}{{}}",
            *_numbers(-1e9, 1e9),
            {f"spec.evaluation.{bound}": {"eval_loss": 1}},
        )
        for bound in ("minimum", "maximum")
    ),
    *(
        Bound(
            "FineTuneJob",
            f"spec.evaluation.{bound}",
            ({}, {f"metric_{n}": 0.5 for n in range(16)}),
            {"maxProperties": {f"metric_{n}": 0.5 for n in range(17)}},
            not_yet=True,
        )
        for bound in ("minimum", "maximum")
    ),
    Bound(
        "FineTuneJob",
        "spec.dataset.columns",
        ({}, {f"column{n}": "a" for n in range(32)}),
        {"maxProperties": {f"column{n}": "a" for n in range(33)}},
    ),
    Bound(
        "FineTuneJob",
        "spec.dataset.columns{}",
        ("a", "Frage und Antwort: ß", "a" * 128),
        {"minLength": "", "maxLength": "a" * 129, "form": "a\tb"},
        {"spec.dataset.columns": {"question": "a"}},
    ),
    Bound("FineTuneJob", "spec.method.prompt.virtualTokens", *_numbers(1, 1024), _PROMPT),
)


def _source_rules(path: str, https: str, hub: str, other: str) -> tuple[RuleCase, ...]:
    """The rules that a model and a file of rows share."""

    def at(**fields: Any) -> dict[str, Any]:
        return {f"{path}.{name}": fields.get(name, ABSENT) for name in ("source", "revision", "sha256")}

    return (
        RuleCase(
            "FineTuneJob",
            path,
            ".sha256",
            "an https:// source needs its hash",
            (at(source=https, sha256=HASH), at(source=hub)),
            (at(source=https),),
        ),
        RuleCase(
            "FineTuneJob",
            path,
            ".sha256",
            "only an https:// source is checked",
            (at(source=https, sha256=HASH),),
            (at(source=other, sha256=HASH), at(source=hub, sha256=HASH)),
        ),
        RuleCase(
            "FineTuneJob",
            path,
            ".source",
            "must not climb out of its folder",
            (at(source=f"{other}/a..b"), at(source=f"{other}/..."), at(source=f"{other}/.b")),
            (at(source=f"{other}/../b"), at(source=f"{other}/.."), at(source="pvc://a/../b")),
        ),
        RuleCase(
            "FineTuneJob",
            path,
            ".revision",
            "only an hf:// source has revisions",
            (at(source=hub, revision="v1"), at(source=other)),
            (at(source=other, revision="v1"), at(source=https, revision="v1", sha256=HASH)),
        ),
        RuleCase(
            "FineTuneJob",
            path,
            ".revision",
            "must not contain '..'",
            (at(source=hub, revision="v1.0"),),
            (at(source=hub, revision="a/../../b"), at(source=hub, revision="a..b")),
        ),
    )


def _key_rules(kind: str, path: str, value: Any, accept: tuple[str, ...], reject: tuple[str, ...]) -> RuleCase:
    return RuleCase(
        kind,
        path,
        "",
        "keys have ",
        tuple({path: {key: value}} for key in accept),
        tuple({path: {key: value}} for key in reject),
        only_not_yet=path.startswith("spec.evaluation"),
    )


def _not_yet(
    field_path: str, message: str, accept: tuple[Mapping[str, Any], ...], reject: tuple[Mapping[str, Any], ...]
) -> RuleCase:
    return RuleCase("FineTuneJob", "spec", field_path, f"{NOT_YET} {message}", accept, reject)


def _metric_rules(task: Task, metrics: TaskMetrics) -> tuple[RuleCase, ...]:
    """The rules on the gates of one task."""

    def at(bound: str, name: str, rows: Any = ABSENT) -> dict[str, Any]:
        gates = {"spec.evaluation": {}, f"spec.evaluation.{bound}": {name: 0.5}, "spec.evaluation.generateRows": rows}
        return {**_task(task), **gates}

    return tuple(
        case
        for bound in ("minimum", "maximum")
        for case in (
            RuleCase(
                "FineTuneJob",
                "spec",
                f".evaluation.{bound}",
                f"{task}{UNMEASURED}{', '.join(metrics.names)}",
                tuple(at(bound, name) for name in metrics.names),
                (at(bound, "beauty"),),
            ),
            RuleCase(
                "FineTuneJob",
                "spec",
                ".evaluation.generateRows",
                f"must be at least 1 for {', '.join(metrics.generated)} in evaluation.{bound}: {task} measures it",
                (at(bound, metrics.generated[0], 1), at(bound, metrics.held_out[0], 0)),
                tuple(at(bound, name, 0) for name in metrics.generated),
            )
            if metrics.generated and not metrics.by_model
            else None,
        )
        if case
    )


def _range_rules(low: int, high: int, names: tuple[str, ...]) -> tuple[RuleCase, ...]:
    """The rules that gates are in the range of what is measured."""

    def at(bound: str, name: str, value: float) -> dict[str, Any]:
        task = next(task for task, metrics in METRICS.items() if name in metrics.names)
        return {**_task(task), "spec.evaluation": {}, f"spec.evaluation.{bound}": {name: value}}

    return tuple(
        RuleCase(
            "FineTuneJob",
            "spec.evaluation",
            f".{bound}",
            f"allowed: {low} to {high} for {', '.join(names)}",
            tuple(at(bound, name, value) for name in names for value in (low, high)),
            tuple(at(bound, name, value) for name in names for value in (low - 0.01, high + 1)),
        )
        for bound in ("minimum", "maximum")
    )


_BATCH = ("spec.training.effectiveBatchSize", "spec.training.microBatchSize")

RULES: tuple[RuleCase, ...] = (
    RuleCase(
        "FineTuneJob",
        "",
        ".metadata.name",
        "a job's name has at most 50",
        tuple({"metadata.name": name} for name in ("a", "a-0", "a" * 50)),
        tuple({"metadata.name": name} for name in ("0a", "a.b", "a" * 51)),
    ),
    RuleCase(
        "ComputePool",
        "",
        ".metadata.name",
        "a pool's name is a label",
        tuple({"metadata.name": name} for name in ("a", "0", "autos", "a" * 63)),
        tuple({"metadata.name": name} for name in ("auto", "a.b", "a" * 64)),
    ),
    _not_yet(
        ".distributed.nodes",
        "trains in one pod",
        ({"spec.distributed": ABSENT}, {"spec.distributed": {}}, {"spec.distributed": {"nodes": 1}}),
        ({"spec.distributed": {"nodes": 2}},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.distributed",
        ".strategy",
        "none is one rank alone",
        (
            {"spec.distributed": {"processesPerNode": 2}},
            {"spec.distributed": {"processesPerNode": 2, "strategy": "ddp"}},
        ),
        ({"spec.distributed": {"processesPerNode": 2, "strategy": "none"}},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.distributed",
        ".offload",
        "optimizer goes with zero-1, zero-2 and zero-3",
        (
            *({"spec.distributed": {"strategy": f"zero-{n}", "offload": "optimizer"}} for n in (1, 2, 3)),
            {"spec.distributed": {"strategy": "zero-3", "offload": "all"}},
        ),
        (
            {"spec.distributed": {"offload": "optimizer"}},
            {"spec.distributed": {"strategy": "ddp", "offload": "optimizer"}},
            {"spec.distributed": {"strategy": "zero-2", "offload": "all"}},
        ),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".method.type",
        "ranks share the training of full, lora, dora",
        (
            *(
                {"spec.method": {"type": name}, "spec.distributed": {"processesPerNode": 2}}
                for name in ("full", "lora", "dora")
            ),
            {"spec.method": {"type": "ia3"}, "spec.distributed": {"strategy": "none"}},
        ),
        (
            {"spec.method": {"type": "ia3"}, "spec.distributed": {"processesPerNode": 2}},
            {"spec.method": {"type": "qlora"}, "spec.distributed": {"strategy": "ddp"}},
        ),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".distributed",
        "one rank alone trains preference",
        ({"spec.distributed": {"processesPerNode": 2}},),
        ({"spec.task": "preference", "spec.evaluation": ABSENT, "spec.distributed": {"processesPerNode": 2}},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".training.effectiveBatchSize",
        "must be a multiple of distributed.processesPerNode",
        (
            {"spec.distributed": {"processesPerNode": 4}},
            {"spec.distributed": {"processesPerNode": 3}, "spec.training.effectiveBatchSize": ABSENT},
            {
                "spec.distributed": {"processesPerNode": 16},
                "spec.training.effectiveBatchSize": 16,
                "spec.training.microBatchSize": ABSENT,
            },
        ),
        (
            {"spec.distributed": {"processesPerNode": 8}},
            {"spec.distributed": {"processesPerNode": 3}, "spec.training.microBatchSize": ABSENT},
        ),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.model",
        ".chatTemplate",
        "must be the text of a Jinja template",
        ({"spec.model.chatTemplate": "{% for message in messages %}{{ message }}{% endfor %}"},),
        ({"spec.model.chatTemplate": "chat_template.jinja"},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".model.chatTemplate",
        "only for chat, instruction",
        (
            {"spec.model.chatTemplate": "{{ messages }}"},
            {"spec.task": "instruction", "spec.model.chatTemplate": "{{ messages }}"},
        ),
        tuple(
            {**_task(task), "spec.evaluation": ABSENT, "spec.model.chatTemplate": "{{ messages }}"}
            for task in ("text-generation", "text-classification")
        ),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".dataset.format",
        "text is for task text-generation",
        (
            {"spec.dataset.format": "csv"},
            {"spec.task": "text-generation", "spec.dataset.format": "text", "spec.evaluation": ABSENT},
        ),
        ({"spec.dataset.format": "text"},),
    ),
    _not_yet(
        ".training.precision",
        "trains in auto, bf16, fp32",
        ({"spec.training": ABSENT}, {"spec.training": {}}, {"spec.training.precision": "fp32"}),
        ({"spec.training.precision": "fp16"},),
    ),
    *_source_rules("spec.model", "https://host.example/m.tar.gz", "hf://owner/name", "pvc://claim/folder"),
    *_source_rules(
        "spec.dataset.train[]", "https://host.example/rows.jsonl", "hf://datasets/owner/name/file", "pvc://claim/folder"
    ),
    *_source_rules(
        "spec.dataset.validation[]",
        "https://host.example/rows.jsonl",
        "hf://datasets/owner/name/file",
        "pvc://claim/folder",
    ),
    RuleCase(
        "FineTuneJob",
        "spec.dataset",
        ".validationSplit",
        "not together with validation",
        ({"spec.dataset.validation": ABSENT, "spec.dataset.validationSplit": 0.1},),
        ({"spec.dataset.validationSplit": 0.1},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.method",
        ".lora",
        "only for type lora, qlora or dora",
        tuple(_method(method, lora={}) for method in ("lora", "qlora", "dora")),
        tuple(_method(method, lora={}) for method in ("full", "ia3", *_PROMPTS)),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.method",
        ".prompt",
        "only for type prompt-tuning",
        tuple(_method(method, prompt={}) for method in _PROMPTS),
        tuple(_method(method, prompt={}) for method in ("full", "lora", "qlora", "dora", "ia3")),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.method",
        ".lora.initialization",
        "pissa and olora are for type lora",
        (
            *tuple(_method("lora", lora={"initialization": name}) for name in ("default", "pissa", "olora")),
            _method("qlora", lora={}),
            _method("dora"),
        ),
        (
            *tuple(_method(method, lora={"initialization": "pissa"}) for method in ("qlora", "dora")),
            _method("dora", lora={"initialization": "olora"}),
        ),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.method",
        ".lora.initialization",
        "loftq is for type qlora",
        (_method("qlora", lora={"initialization": "loftq"}), _method("lora", lora={})),
        tuple(_method(method, lora={"initialization": "loftq"}) for method in ("lora", "dora")),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".output.onnx.form",
        "merged, but for lora and qlora",
        (_method("qlora") | _form("both"), _method("lora") | _form("adapter"), _method("dora") | _form("merged")),
        (_method("dora") | _form("adapter"), _method("full") | _form("both"), _method("ia3") | _form("adapter")),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".output.onnx.form",
        "merged for text-classification",
        (_method("lora") | _form("adapter"),),
        tuple(
            _method("lora") | {"spec.task": task, "spec.evaluation": ABSENT} | _form("adapter", "int8")
            for task in LABEL_TASKS
        ),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".output.onnx.form",
        "merged with method.lora.modulesToSave",
        (
            _method("lora", lora={"modulesToSave": []}) | _form("adapter"),
            _method("lora", lora={"modulesToSave": ["norm"]}) | _form("merged"),
        ),
        (_method("lora", lora={"modulesToSave": ["norm"]}) | _form("adapter"),),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".output.onnx.form",
        "merged, or of method.lora.targetModules only",
        (
            _method("lora", lora={"targetModules": ["q_proj", "gate_up_proj"]}) | _form("adapter"),
            _method("lora", lora={"targetModules": ["lm_head"]}) | _form("merged"),
        ),
        (_method("lora", lora={"targetModules": ["q_proj", "lm_head"]}) | _form("both"),),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".output.onnx",
        "Strop exports no ONNX of",
        (
            *(_method(method) for method in _PROMPTS),
            _method("p-tuning") | {"spec.output": {"onnx": {"enabled": False}}},
            _method("ia3") | {"spec.output": {"onnx": {"enabled": True}}},
        ),
        tuple(
            _method(method) | {"spec.output": {"onnx": onnx}} for method in _PROMPTS for onnx in ({"enabled": True}, {})
        ),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".output.merged",
        "there is no merged model",
        (_method("ia3") | {"spec.output.merged": True}, _method("p-tuning") | {"spec.output": {"merged": False}}),
        tuple(_method(method) | {"spec.output": {"merged": True}} for method in _PROMPTS),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".training.packing",
        "rows cannot share a forward pass",
        (_method("full") | {"spec.training.packing": True}, _method("p-tuning") | {"spec.training.packing": False}),
        tuple(_method(method) | {"spec.training.packing": True} for method in _PROMPTS),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".training.gradientCheckpointing",
        "not with prefix-tuning",
        (
            _method("prefix-tuning") | {"spec.training.gradientCheckpointing": ABSENT},
            _method("prefix-tuning") | {"spec.training.gradientCheckpointing": False},
            _method("p-tuning") | {"spec.training.gradientCheckpointing": True},
        ),
        (_method("prefix-tuning") | {"spec.training.gradientCheckpointing": True},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".output.merged",
        "full has no adapter",
        (
            _method("full") | {"spec.output": ABSENT},
            _method("full") | {"spec.output": {}},
            _method("full") | {"spec.output": {"onnx": {"enabled": False}, "merged": True}},
            _method("full") | {"spec.output": {"onnx": {}}},
            _method("ia3") | {"spec.output": {"onnx": {"enabled": False}}},
        ),
        (_method("full") | {"spec.output": {"onnx": {"enabled": False}}},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.training",
        ".maxSteps",
        "not together with epochs",
        ({"spec.training.epochs": ABSENT, "spec.training.maxSteps": 5},),
        ({"spec.training.maxSteps": 5},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.training",
        ".effectiveBatchSize",
        "must be a multiple of microBatchSize",
        tuple(dict(zip(_BATCH, sizes, strict=True)) for sizes in ((8, 8), (8, 2), (8, ABSENT), (ABSENT, 3))),
        tuple(dict(zip(_BATCH, sizes, strict=True)) for sizes in ((8, 3), (2, 4))),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.output",
        ".aliases",
        "each alias once",
        ({"spec.output.aliases": ["a", "b"]}, {"spec.output.aliases": ABSENT}),
        ({"spec.output.aliases": ["a", "b", "a"]},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.output.onnx",
        ".precisions",
        "each precision once",
        ({"spec.output.onnx.precisions": ["int4", "fp32"]}, {"spec.output.onnx.precisions": ABSENT}),
        ({"spec.output.onnx.precisions": ["fp32", "fp32"]},),
    ),
    *_labels("token-classification"),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".training.preferenceBeta",
        "only for task preference",
        (
            {"spec.task": "preference", "spec.evaluation": ABSENT, "spec.training.preferenceBeta": 0.3},
            {"spec.task": "preference", "spec.evaluation": ABSENT, "spec.training": ABSENT},
        ),
        tuple(
            {**_task(task), "spec.evaluation": ABSENT, "spec.training.preferenceBeta": 0.1}
            for task in METRICS
            if task != "preference"
        ),
    ),
    *(case for task, metrics in METRICS.items() for case in _metric_rules(task, metrics)),
    *(case for (low, high), names in METRIC_RANGES.items() for case in _range_rules(low, high, names)),
    _key_rules("FineTuneJob", "spec.dataset.columns", "a", ("question", "a" * 128), ("", "a" * 129, "a\tb")),
    _key_rules("FineTuneJob", "spec.evaluation.minimum", 1, ("a_0", "a" * 64), ("", "a" * 65, "Exact Match")),
    _key_rules("FineTuneJob", "spec.evaluation.maximum", 1, ("a_0", "a" * 64), ("", "a" * 65, "Exact Match")),
    _key_rules("FineTuneJob", "status.stageSeconds", 1, ("train", "a" * 32), ("", "a" * 33, "Train")),
    _key_rules("FineTuneJob", "status.metrics", "1", ("a_0", "a" * 64), ("", "a" * 65, "Exact Match")),
    _key_rules(
        "ComputePool",
        "spec.nodeSelector",
        "a",
        ("a", "strop.dev/pool", "a" * 253 + "/" + "b" * 63),
        ("", "a" * 254 + "/" + "b" * 63, "a b", "b" * 64),
    ),
    RuleCase(
        "ComputePool",
        "spec.tolerations[]",
        ".value",
        "not together with operator Exists",
        (
            {"spec.tolerations": [{"key": "a", "operator": "Exists"}]},
            {"spec.tolerations": [{"key": "a", "value": "b"}]},
        ),
        ({"spec.tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},),
    ),
    RuleCase(
        "ComputePool",
        "spec.tolerations[]",
        ".key",
        "may be left out with operator Exists only",
        ({"spec.tolerations": [{"operator": "Exists"}]}, {"spec.tolerations": [{"key": "a"}]}),
        ({"spec.tolerations": [{"value": "b"}]}, {"spec.tolerations": [{"operator": "Equal"}]}),
    ),
)


def _fixed(name: str, *reject: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> Transition:
    return Transition("FineTuneJob", "spec", f".{name}", FIXED, reject, before or {})


TRANSITIONS: tuple[Transition, ...] = (
    # With one task and one method, what becomes another is refused by what this version can do as well.
    _fixed("task", {"spec.task": "translation"}),
    _fixed("method", {"spec.method.lora.rank": 16}, {"spec.method": ABSENT}, {"spec.method": {"type": "qlora"}}),
    _fixed("model", {"spec.model.source": "hf://owner/other"}, {"spec.model.revision": ABSENT}),
    _fixed("dataset", {"spec.dataset.maxRows": 10}, {"spec.dataset.validation": ABSENT}),
    _fixed("compute", {"spec.compute.pool": "gpu"}, {"spec.compute": ABSENT}, {"spec.compute.resources.memory": "9Gi"}),
    _fixed("backoffLimit", {"spec.backoffLimit": 2}, {"spec.backoffLimit": ABSENT}),
    _fixed("training", {"spec.training.learningRate": 0.1}, {"spec.training": ABSENT}),
    _fixed("training", {"spec.training": {}}, before={"spec.training": ABSENT}),
    _fixed("distributed", {"spec.distributed": {}}, {"spec.distributed": ABSENT}),
    _fixed("distributed", {"spec.distributed": {}}, before={"spec.distributed": ABSENT}),
    _fixed("evaluation", {"spec.evaluation.minimum{}": 0.1}, {"spec.evaluation": ABSENT}),
    _fixed("evaluation", {"spec.evaluation": {}}, before={"spec.evaluation": ABSENT}),
    _fixed("checkpoint", {"spec.checkpoint.keep": 1}, {"spec.checkpoint": ABSENT}),
    _fixed("checkpoint", {"spec.checkpoint": {}}, before={"spec.checkpoint": ABSENT}),
    _fixed("output", {"spec.output.model": "other"}, {"spec.output": ABSENT}),
    _fixed("output", {"spec.output": {}}, before={"spec.output": ABSENT}),
    _fixed("credentials", {"spec.credentials.name": "other"}, {"spec.credentials": ABSENT}),
    _fixed("credentials", {"spec.credentials": {"name": "hub"}}, before={"spec.credentials": ABSENT}),
    Transition(
        "ModelVersion",
        "spec",
        "",
        "a published version never changes",
        ({"spec.version": 2}, {"spec.metrics": []}, {"spec.registry.path": "default/answers/2"}),
    ),
)

MUTABLE: dict[str, tuple[Mapping[str, Any], ...]] = {
    "FineTuneJob": (
        {},
        {"spec.suspend": False},
        {"spec.suspend": ABSENT},
        {"spec.activeDeadlineSeconds": 7200},
        {"spec.activeDeadlineSeconds": ABSENT},
        {"spec.ttlSecondsAfterFinished": 0},
        {"spec.ttlSecondsAfterFinished": ABSENT},
        {"metadata.labels": {"team": "a"}},
    ),
    "ComputePool": ({}, {"spec.maxNodes": 5}, {"spec.accelerator": ABSENT}),
    "ModelVersion": ({}, {"metadata.labels": {"team": "a"}}),
}
"""Changes that are taken."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "FineTuneJob": {
        "spec.dataset.format": "auto",
        "spec.method": {"type": "lora"},
        "spec.method.type": "lora",
        "spec.method.lora.useRslora": False,
        "spec.method.lora.initialization": "default",
        "spec.compute": {"pool": "auto"},
        "spec.compute.pool": "auto",
        "spec.checkpoint.keep": 2,
        "spec.output.onnx.enabled": True,
        "spec.output.onnx.form": "merged",
        "spec.suspend": False,
        "spec.backoffLimit": 3,
    },
    "ComputePool": {
        "spec.nodeSelector": {},
        "spec.tolerations": [],
        "spec.tolerations[].operator": "Equal",
        "spec.maxNodes": 1,
        "spec.accelerator.perNode": 1,
        "spec.cost": 1,
        "spec.namespaces": [],
    },
    "ModelVersion": {"spec.metrics": [], "spec.proofs": [], "spec.proofs[].judgedBy": []},
}
"""What the server puts where nothing is given."""
