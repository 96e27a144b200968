"""What each field of the resources takes and what it refuses: one table for the API server and for pydantic."""

from typing import Any

from tests.support.crd.cases import Bound
from tests.support.crd.documents import ABSENT, FULL, HASH, with_method
from tests.support.crd.values import Values, above, at_least, at_most, numbers

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
    "spec.dataset.maxRows": numbers(2, 100_000_000),
    "spec.model.parameters": (
        ("1M", "135M", "0.5B", "8B", "1" * 15 + "B"),
        {"minLength": "B", "maxLength": "1" * 16 + "B", "form": "8 B"},
    ),
    "spec.model.revision": Values.revision,
    "spec.method.type": (("lora", "qlora", "dora"), {"enum": "loora"}),
    "spec.method.lora.rank": numbers(1, 1024),
    "spec.method.lora.alpha": numbers(1, 4096),
    "spec.method.lora.dropout": ((0, 0.999), {"minimum": -0.001, "maximum": 1}),
    "spec.method.lora.targetModules": (
        tuple([f"layer{n}" for n in range(count)] for count in (1, 64)),
        {"minItems": [], "maxItems": ["q_proj"] * 65},
    ),
    "spec.method.lora.targetModules[]": Values.module,
    "spec.method.lora.modulesToSave": (([], ["lm_head"] * 16), {"maxItems": ["lm_head"] * 17}),
    "spec.method.lora.modulesToSave[]": Values.module,
    "spec.method.lora.initialization": (("default", "pissa", "olora"), {"enum": "zero"}),
    "spec.method.lora.plusRatio": numbers(1, 1024),
    "spec.training.epochs": above(0, 1000, 0.001),
    "spec.training.learningRate": above(0, 1, 0.000001),
    "spec.training.scheduler": (("linear", "cosine", "constant"), {"enum": "polynomial"}),
    "spec.training.warmupRatio": numbers(0, 0.5, 0.001),
    "spec.training.weightDecay": numbers(0, 1, 0.001),
    "spec.training.maxGradNorm": above(0, 1000, 0.001),
    "spec.training.maxLength": numbers(16, 1_048_576),
    "spec.training.precision": (("auto", "bf16", "fp32"), {"enum": "int8"}),
    "spec.training.seed": numbers(0, 4_294_967_295),
    "spec.distributed.strategy": (("none",), {"enum": "zero-4"}),
    "spec.compute.pool": Values.label,
    "spec.compute.resources.cpu": Values.cpu,
    "spec.compute.resources.memory": Values.pod_memory,
    "spec.compute.resources.accelerators": numbers(0, 64),
    "spec.compute.image": Values.image,
    "spec.evaluation.everySteps": numbers(1, 1_000_000),
    "spec.evaluation.maxRows": numbers(1, 1_000_000),
    "spec.evaluation.maxNewTokens": numbers(1, 8192),
    "spec.checkpoint.everySteps": numbers(1, 1_000_000),
    "spec.checkpoint.keep": numbers(1, 100),
    "spec.checkpoint.size": Values.memory,
    "spec.checkpoint.storageClassName": Values.name,
    "spec.output.model": Values.label,
    "spec.output.claim.name": Values.name,
    "spec.output.onnx.precisions": (
        (["int8"], ["fp32", "int8", "int4"]),
        {"minItems": [], "maxItems": ["fp32", "int8", "int4", "fp32"]},
    ),
    "spec.output.onnx.precisions[]": (("fp32", "int8"), {"enum": "fp16"}),
    "spec.output.onnx.form": (("merged",), {"enum": "folded"}),
    "spec.output.aliases": (([], [f"alias{n}" for n in range(8)]), {"maxItems": [f"alias{n}" for n in range(9)]}),
    "spec.output.aliases[]": Values.alias,
    "spec.credentials.name": Values.name,
    "spec.activeDeadlineSeconds": numbers(1, 31_536_000),
    "spec.ttlSecondsAfterFinished": numbers(0, 31_536_000),
    "spec.backoffLimit": numbers(0, 100),
    "status.observedGeneration": at_least(0),
    "status.phase": at_most(32),
    "status.conditions": (
        ([], [FULL["FineTuneJob"]["status"]["conditions"][0] | {"type": f"Type{n}"} for n in range(16)]),
        {"maxItems": [FULL["FineTuneJob"]["status"]["conditions"][0] | {"type": f"Type{n}"} for n in range(17)]},
    ),
    "status.conditions[].type": at_most(316, 1),
    "status.conditions[].status": (("True", "False", "Unknown"), {"maxLength": "Unknown1", "pattern": "Maybe"}),
    "status.conditions[].reason": (
        ("A", "Training", "A" * 128),
        {"minLength": "", "maxLength": "A" * 129, "pattern": "no reason"},
    ),
    "status.conditions[].message": at_most(32768),
    "status.conditions[].lastTransitionTime": Values.time,
    "status.conditions[].observedGeneration": at_least(0),
    "status.message": at_most(2048),
    "status.planDigest": at_most(80),
    "status.pool": at_most(253),
    "status.progress.stage": at_most(32),
    "status.progress.display": at_most(32),
    "status.progress.step": at_least(0),
    "status.progress.totalSteps": at_least(0),
    "status.progress.percent": numbers(0, 100),
    "status.progress.epoch": at_least(0),
    "status.progress.loss": at_most(16),
    "status.progress.evalLoss": at_most(16),
    "status.progress.learningRate": at_most(16),
    "status.progress.tokensPerSecond": at_least(0),
    "status.progress.etaSeconds": at_least(0),
    "status.progress.eta": at_most(16),
    "status.progress.updatedAt": Values.time,
    "status.attempts": at_least(0),
    "status.stageSeconds": (
        ({}, {f"stage{n}": 1 for n in range(32)}),
        {"maxProperties": {f"stage{n}": 1 for n in range(33)}},
    ),
    "status.stageSeconds{}": at_least(0),
    "status.modelVersion.name": Values.name,
    "status.modelVersion.version": at_least(1),
    "status.modelVersion.path": at_most(512, 1),
    "status.modelVersion.claim": Values.name,
    "status.metrics": (
        ({}, {f"metric{n}": "1" for n in range(64)}),
        {"maxProperties": {f"metric{n}": "1" for n in range(65)}},
    ),
    "status.metrics{}": at_most(64),
    "status.startTime": Values.time,
    "status.completionTime": Values.time,
}

_POOL: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "spec.nodeSelector": (
        ({}, {f"key{n}": "a" for n in range(32)}),
        {"maxProperties": {f"key{n}": "a" for n in range(33)}},
    ),
    "spec.nodeSelector{}": Values.label_value,
    "spec.tolerations": (
        ([], [{"operator": "Exists"}] * 32),
        {"maxItems": [{"operator": "Exists"}] * 33},
    ),
    "spec.tolerations[].key": Values.qualified,
    "spec.tolerations[].operator": (("Equal",), {"enum": "Like"}),
    "spec.tolerations[].value": Values.label_value,
    "spec.tolerations[].effect": (("NoSchedule", "PreferNoSchedule", "NoExecute"), {"enum": "Evict"}),
    "spec.cpuPerNode": Values.cpu,
    "spec.memoryPerNode": Values.memory,
    "spec.maxNodes": numbers(1, 10_000),
    "spec.accelerator.resourceName": Values.qualified,
    "spec.accelerator.memory": Values.memory,
    "spec.accelerator.perNode": numbers(1, 64),
    "spec.cost": numbers(0, 1_000_000, 0.5),
    "spec.queueName": Values.label,
    "spec.priorityClassName": Values.name,
    "spec.runtimeClassName": Values.name,
    "spec.storageClassName": Values.name,
    "spec.image": Values.image,
    "spec.namespaces": (([], [f"team{n}" for n in range(256)]), {"maxItems": [f"team{n}" for n in range(257)]}),
    "spec.namespaces[]": Values.label,
}

_VERSION: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "spec.model": Values.label,
    "spec.version": at_least(1),
    "spec.task": at_most(64, 1),
    "spec.method": at_most(64, 1),
    "spec.registry.claim": Values.name,
    "spec.registry.path": (
        ("ab", "default/answers/1", "a" * 512),
        {"minLength": "", "maxLength": "a" * 513, "pattern": "../other"},
    ),
    "spec.registry.sizeBytes": at_least(0),
    "spec.registry.manifestSha256": Values.sha256,
    "spec.planDigest": (
        (f"sha256:{HASH}",),
        {"minLength": f"sha256:{HASH[1:]}", "maxLength": f"sha256:{HASH}0", "pattern": f"sha512:{HASH}"},
    ),
    "spec.baseModel.source": at_most(1024, 1),
    "spec.baseModel.revision": at_most(255),
    "spec.baseModel.fingerprint": at_most(80, 1),
    "spec.dataset.fingerprint": at_most(80, 1),
    "spec.dataset.trainRows": at_least(0),
    "spec.dataset.validationRows": at_least(0),
    "spec.metrics": (([], [{"name": "a"}] * 64), {"maxItems": [{"name": "a"}] * 65}),
    "spec.metrics[].name": at_most(64, 1),
    "spec.proofs": (
        ([], [{"artifact": "a", "passed": True}] * 16),
        {"maxItems": [{"artifact": "a", "passed": True}] * 17},
    ),
    "spec.proofs[].artifact": at_most(128, 1),
    "spec.proofs[].judgedBy": (([], ["f1 0.8 (at least 0.7)"] * 16), {"maxItems": ["f1 0.8 (at least 0.7)"] * 17}),
    "spec.proofs[].judgedBy[]": at_most(128, 1),
    "spec.job.name": Values.name,
    "spec.job.uid": at_most(64, 1),
    "spec.publishedAt": Values.time,
}

_DATA_SOURCES = (
    ("configmap://rows/train.jsonl", "pvc://a.b/rows", "hf://datasets/owner/name/a/b.jsonl", "pvc://a/" + "b" * 1016),
    {"minLength": "", "maxLength": "pvc://a/" + "b" * 1017, "form": "ftp://host/file"},
)

_NO_VALIDATION = {"spec.dataset.validation": ABSENT}

_NO_REVISION = {"spec.model.revision": ABSENT}

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
        *Values.sha256,
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
                *Values.revision,
                {f"spec.dataset.{part}[].source": "hf://datasets/owner/name/file"},
            ),
            Bound(
                "FineTuneJob",
                f"spec.dataset.{part}[].sha256",
                *Values.sha256,
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
    Bound("FineTuneJob", "spec.dataset.validationSplit", *above(0, 0.5, 0.001), _NO_VALIDATION),
    Bound("FineTuneJob", "spec.training.maxSteps", *numbers(1, 10_000_000), {"spec.training.epochs": ABSENT}),
    Bound(
        "FineTuneJob", "spec.training.effectiveBatchSize", *numbers(1, 65536), {"spec.training.microBatchSize": ABSENT}
    ),
    Bound(
        "FineTuneJob", "spec.training.microBatchSize", *numbers(1, 4096), {"spec.training.effectiveBatchSize": ABSENT}
    ),
    Bound("FineTuneJob", "spec.distributed.nodes", *numbers(1, 1024), not_yet=True),
    Bound(
        "FineTuneJob",
        "spec.distributed.processesPerNode",
        *numbers(1, 64),
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
        *above(0, 10, 0.001),
        {"spec.task": "preference", "spec.evaluation": ABSENT},
    ),
    Bound("FineTuneJob", "spec.evaluation.generateRows", *numbers(0, 10_000), {"spec.evaluation.minimum": ABSENT}),
    *(
        Bound(
            "FineTuneJob",
            f"spec.evaluation.{bound}{{}}",
            *numbers(-1e9, 1e9),
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
    Bound(
        "FineTuneJob", "spec.method.prompt.virtualTokens", *numbers(1, 1024), with_method("prompt-tuning", prompt={})
    ),
)
