"""Whether a plan's method can be trained, told before anything is loaded. No torch here."""

from __future__ import annotations

from typing import Final

from strop_trainer.errors import bad_configuration
from strop_trainer.methods.onnx_form import check_onnx_form
from strop_trainer.plan import (
    INITIALIZATIONS,
    LORA_METHODS,
    PROMPT_METHODS,
    SHARED_METHODS,
    UNSHARED_TASKS,
    DistributedPlan,
    MethodType,
    Precision,
    Task,
    TrainingPlan,
)
from strop_trainer.sources.model_folder import ModelFolder

PRECISIONS: Final[tuple[Precision, ...]] = ("auto", "bf16", "fp32")


def check_method(plan: TrainingPlan) -> None:
    """Refuse a method with options that cannot be trained together.

    Raises:
        TrainerError: field, found and allowed (exit 78).
    """
    method, hyperparameters, distributed = plan.method, plan.hyperparameters, plan.distributed
    if method.type in LORA_METHODS:
        if method.lora is None:
            raise bad_configuration(f"method.lora: missing for method {method.type}")
        if method.lora.initialization not in INITIALIZATIONS[method.type]:
            raise bad_configuration(
                f"method.lora.initialization: found {method.lora.initialization}, allowed for {method.type}: "
                f"{', '.join(INITIALIZATIONS[method.type])}"
            )
    if method.type in PROMPT_METHODS:
        _check_prompts(plan)
    check_onnx_form(plan)
    if method.type == "full" and not plan.artifact.onnx and not plan.artifact.merged:
        raise bad_configuration("artifact.merged: found false without ONNX; method full has no adapter to publish")
    if hyperparameters.precision not in PRECISIONS:
        raise bad_configuration(
            f"training.precision: {hyperparameters.precision} is not supported, allowed: {', '.join(PRECISIONS)}"
        )
    _check_ranks(plan.task, method.type, distributed, hyperparameters.effective_batch_size)


def check_experts(method: MethodType, model: ModelFolder) -> None:
    """Refuse 4 bits for a mixture of experts: transformers keeps all of a layer in one tensor, which stays whole.

    Raises:
        TrainerError: field, found and allowed (exit 78).
    """
    if method == "qlora" and model.experts:
        raise bad_configuration(
            f"method.type: found qlora for a model with experts ({model.architecture}), allowed: lora; bitsandbytes "
            "quantizes linear layers alone, and the experts, most of the weights, would be in fp32"
        )


def _check_ranks(task: Task, method: MethodType, plan: DistributedPlan, batch: int) -> None:
    if plan.strategy == "none" and plan.world_size != 1:
        raise bad_configuration(
            f"distributed.strategy: found none for {plan.world_size} ranks, allowed: ddp, zero-1, zero-2, zero-3"
        )
    if plan.offload is not None and not (plan.partitions_weights if plan.offload == "all" else plan.is_zero):
        raise bad_configuration(
            f"distributed.offload: found {plan.offload} with strategy {plan.strategy}, allowed: optimizer with zero-1, "
            "zero-2 and zero-3, all with zero-3"
        )
    if plan.world_size > batch:
        raise bad_configuration(
            f"training.effectiveBatchSize: found {batch} for {plan.world_size} ranks, allowed: at least a row a rank"
        )
    if plan.strategy != "none" and method not in SHARED_METHODS:
        raise bad_configuration(
            f"distributed.strategy: found {plan.strategy} for method {method}, allowed: none; other strategies are for "
            f"{', '.join(SHARED_METHODS)}"
        )
    if plan.strategy != "none" and task in UNSHARED_TASKS:
        raise bad_configuration(f"distributed.strategy: found {plan.strategy} for task {task}, allowed: none")


def _check_prompts(plan: TrainingPlan) -> None:
    method, hyperparameters = plan.method.type, plan.hyperparameters
    if not plan.method.virtual_tokens:
        raise bad_configuration(f"method.virtualTokens: missing for method {method}")
    if hyperparameters.packing:
        raise bad_configuration(f"training.packing: found true; {method} puts tokens in front of each row")
    if method == "prefix-tuning" and hyperparameters.gradient_checkpointing is not False:
        found = str(hyperparameters.gradient_checkpointing).lower()
        raise bad_configuration(f"training.gradientCheckpointing: found {found}; what is recomputed sees no prefix")
    if plan.artifact.onnx or plan.artifact.merged:
        raise bad_configuration(
            f"artifact: found onnx or merged; the tokens of {method} cannot be folded into the weights"
        )
