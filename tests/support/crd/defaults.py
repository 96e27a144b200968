"""What the server puts where nothing is given."""

from typing import Any

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
