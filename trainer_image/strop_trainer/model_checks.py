"""Whether a plan fits the folder of its base model, told by its files alone. No torch here.

The trainer's first stages ask, and who wants to know before anything is started.
"""

from __future__ import annotations

import json
from typing import Any, Final

from strop_trainer.encoder_decoders import precisions_of
from strop_trainer.errors import bad_configuration
from strop_trainer.export.exportable import check_exportable, export_refusal
from strop_trainer.methods.checks import check_experts
from strop_trainer.plan import LABEL_METHODS, Plan, TrainingPlan
from strop_trainer.sources.model_folder import ModelFolder
from strop_trainer.sources.text_part import text_config
from strop_trainer.tasks.base import Task
from strop_trainer.tasks.by_model import writes
from strop_trainer.tasks.encoder_decoder import EncoderDecoderTask
from strop_trainer.tasks.gates import check_gates
from strop_trainer.tasks.labelled import LabelledBase
from strop_trainer.text_parts import text_part_refusal

SHIFTED: Final = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "roberta-prelayernorm"}
)
"""Model types whose positions begin behind the padding token's number."""
LENGTH: Final = "training.maxLength"


def check_model(plan: TrainingPlan, task: Task, model: ModelFolder) -> None:
    """Refuse what cannot be trained or exported of this model.

    Args:
        plan: what to compute.
        task: as this model does it; see `task_for`.
        model: its folder.

    Raises:
        TrainerError: field, found and allowed (exit 78).
    """
    check_experts(plan.method.type, model)
    if model.whole is not None and (why := text_part_refusal(plan.method.type)):
        raise bad_configuration(why)
    if isinstance(task, LabelledBase):
        _check_labelled(plan, model)
    elif isinstance(task, EncoderDecoderTask):
        task.check_plan(plan)
    else:
        _check_causal(plan, model)
    check_gates(plan.evaluation, task)


def fit_length(plan: Plan, model: ModelFolder) -> tuple[Plan, str]:
    """Return the plan with rows as long as the model has positions for, and a note; "" where it was so.

    What the job left to Strop is cut, as planning does for models that it knows.

    Raises:
        TrainerError: the job asks for more (exit 78).
    """
    numbers, virtual = plan.training.hyperparameters, plan.training.method.virtual_tokens or 0
    positions = context_length(text_config(json.loads((model.path / "config.json").read_bytes())))
    if positions is None or numbers.max_length <= (limit := max(1, positions - virtual)):
        return plan, ""
    besides = f" less {virtual} virtual tokens" if virtual else ""
    if all(choice.field != LENGTH for choice in plan.resolved):
        raise bad_configuration(
            f"{LENGTH}: found {numbers.max_length}, allowed: up to {limit}, the positions that this model has{besides}"
        )
    numbers = numbers.model_copy(update={"max_length": limit})
    training = plan.training.model_copy(update={"hyperparameters": numbers})
    return plan.model_copy(update={"training": training}), (
        f"{LENGTH}: {limit} in place of {plan.training.hyperparameters.max_length}, the positions that this model has"
        f"{besides}"
    )


def lacks_onnx(plan: TrainingPlan, task: Task, model: ModelFolder) -> str:
    """Return why nothing is exported to ONNX, where the job did not ask for it by itself; "" where all is."""
    words = not isinstance(task, LabelledBase | EncoderDecoderTask)
    if not plan.artifact.onnx or plan.artifact.onnx_required or not words:
        return ""
    return export_refusal(model.path) or ""


def context_length(config: dict[str, Any]) -> int | None:
    """Return the tokens that a model has positions for, by its configuration; None where it does not say."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return None
    shift = (config.get("pad_token_id") or 0) + 1 if config.get("model_type") in SHIFTED else 0
    return positions - shift


def _check_causal(plan: TrainingPlan, model: ModelFolder) -> None:
    if plan.task == "preference" and plan.hyperparameters.preference_beta is None:
        raise bad_configuration("training.preferenceBeta: missing for task preference")
    # Of a folder that names no class, the library tells.
    if not writes(model) and model.architecture != model.model_type:
        raise bad_configuration(
            f"model: unsupported architecture {model.architecture} for task {plan.task}: no causal language model, "
            "such as LlamaForCausalLM"
        )
    if plan.artifact.onnx_required:
        check_exportable(model.path)


def _check_labelled(plan: TrainingPlan, model: ModelFolder) -> None:
    _check_labelled_method(plan)
    if plan.model.chat_template is not None:
        raise bad_configuration(
            f"model.chatTemplate: found one for {model.architecture}, which reads no conversations: leave it out"
        )
    if plan.artifact.onnx_form is not None:
        raise bad_configuration(
            f"output.onnx.form: found {plan.artifact.onnx_form}, allowed for {model.architecture}: merged; "
            "only models that answer in words have a base graph to share"
        )
    if "int4" in precisions_of(plan):
        raise bad_configuration(f"output.onnx.precisions: found int4, allowed for {plan.task}: fp32, int8")


def _check_labelled_method(plan: TrainingPlan) -> None:
    """Refuse methods that do not go with a new head."""
    if plan.method.type not in LABEL_METHODS:
        raise bad_configuration(
            f"method.type: found {plan.method.type}, allowed for {plan.task} with a head for labels: "
            f"{', '.join(LABEL_METHODS)}; tokens in front of a row are for models that answer in words"
        )
    if plan.method.lora is not None and plan.method.lora.initialization != "default":
        raise bad_configuration(
            f"method.lora.initialization: found {plan.method.lora.initialization}, allowed for {plan.task}: default"
        )
