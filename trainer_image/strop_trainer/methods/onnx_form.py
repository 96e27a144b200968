"""Whether a plan's adapter can be a file of its own for a base graph. No torch here."""

from __future__ import annotations

from strop_trainer.errors import bad_configuration
from strop_trainer.plan import LABEL_TASKS, ONNX_ADAPTER_METHODS, ONNX_ADAPTER_MODULES, TrainingPlan


def check_onnx_form(plan: TrainingPlan) -> None:
    """Refuse an ONNX adapter of what no base graph has inputs for.

    Raises:
        TrainerError: field, found and allowed (exit 78).
    """
    if plan.artifact.onnx_form is None:
        return
    method, lora, found = plan.method.type, plan.method.lora, f"artifact.onnxForm: found {plan.artifact.onnx_form}"
    if method not in ONNX_ADAPTER_METHODS or lora is None or plan.task in LABEL_TASKS:
        raise bad_configuration(
            f"{found} for task {plan.task} and method {method}, allowed: merged; an ONNX adapter is for models that "
            f"answer in words, tuned by {' or '.join(ONNX_ADAPTER_METHODS)}"
        )
    if lora.modules_to_save:
        raise bad_configuration(f"{found}, allowed with modules that are trained in full: merged")
    unknown = set(lora.target_modules) - set(ONNX_ADAPTER_MODULES) if lora.target_modules != "all-linear" else set()
    if unknown:
        raise bad_configuration(
            f"{found} for {', '.join(sorted(unknown))}, allowed: merged; an ONNX adapter has "
            f"{', '.join(ONNX_ADAPTER_MODULES)}"
        )
