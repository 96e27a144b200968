"""What is done with models of encoder and decoder, and what is not: told by planner and trainer. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from strop_trainer.plan import LABEL_TASKS, MethodType, OnnxPrecision, Task, TrainingPlan

TASKS: Final[tuple[Task, ...]] = ("translation", "summarization", "instruction", "question-answering")
"""One text is read, another is written."""
CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    "bart": ("BartForConditionalGeneration", "BartModel"),
    "m2m_100": ("M2M100ForConditionalGeneration", "M2M100Model"),
    "marian": ("MarianMTModel", "MarianModel"),
    "mbart": ("MBartForConditionalGeneration", "MBartModel"),
    "mt5": ("MT5ForConditionalGeneration", "MT5Model"),
    "pegasus": ("PegasusForConditionalGeneration", "PegasusModel"),
    "t5": ("T5ForConditionalGeneration", "T5Model"),
}
"""Model type → transformers' class of what writes texts, and of its body, whose weights are the same: what our tests
train. Others are refused. NLLB's is M2M100's, mBART-50's mBART's."""
OF_LANGUAGES: Final = ("m2m_100", "mbart")
"""Model types whose texts carry the tokens of languages, which only rows of translation tell."""
METHODS: Final[tuple[MethodType, ...]] = ("lora", "dora", "ia3", "full")
PRECISIONS: Final[tuple[OnnxPrecision, ...]] = ("fp32", "int8")


def task_refusal(task: Task | str, architecture: str) -> str | None:
    """Return why such a model does not do a task, as `field: found, allowed`; None where it does.

    Tasks of labels are another kind of model's, which may be made of such a one.
    """
    if task in LABEL_TASKS:
        return None
    if has_languages(architecture):
        if task == "translation":
            return None
        return f"task: found {task}, allowed for {architecture}, whose texts carry the tokens of languages: translation"
    if task in TASKS:
        return None
    return f"task: found {task}, allowed for {_words(architecture)}: {', '.join(TASKS)}"


def has_languages(architecture: str) -> bool:
    """Whether a model's texts carry the tokens of their languages."""
    return any(architecture in {model_type, *CLASSES[model_type]} for model_type in OF_LANGUAGES)


def plan_refusal(plan: TrainingPlan, architecture: str) -> str | None:
    """Return what such a model is not trained or exported with, as `field: found, allowed`; None where all is right."""
    method, artifact, where = plan.method, plan.artifact, _words(architecture)
    if method.type not in METHODS:
        return f"method.type: found {method.type}, allowed for {where}: {', '.join(METHODS)}"
    if method.lora is not None and method.lora.initialization != "default":
        return f"method.lora.initialization: found {method.lora.initialization}, allowed for {where}: default"
    if plan.distributed.strategy != "none":
        return f"distributed.strategy: found {plan.distributed.strategy}, allowed for {where}: none, and one rank"
    if artifact.onnx_form is not None:
        return f"output.onnx.form: found {artifact.onnx_form}, allowed for {where}: merged"
    if wrong := set(precisions_of(plan)) - set(PRECISIONS):
        found = ", ".join(sorted(wrong))
        return f"output.onnx.precisions: found {found}, allowed for {where}: {', '.join(PRECISIONS)}"
    if plan.model.chat_template is not None:
        return f"model.chatTemplate: found one for {where}, which has no conversations: leave it out"
    return None


def precisions_of(plan: TrainingPlan) -> list[OnnxPrecision]:
    """Return what a model with an encoder is exported in."""
    artifact = plan.artifact
    return artifact.onnx if artifact.onnx_encoder is None else artifact.onnx_encoder


def model_refusal(model_type: str, architecture: str) -> str | None:
    """Return why a model cannot be one that reads one text and writes another; None where it can."""
    if model_type not in CLASSES:
        return f"model: found model type {model_type}, allowed of encoder and decoder: {', '.join(CLASSES)}"
    if architecture not in {model_type, *CLASSES[model_type]}:
        return f"model: found architecture {architecture}, allowed for {model_type}: {', '.join(CLASSES[model_type])}"
    return None


def _words(architecture: str) -> str:
    return f"{architecture}, which reads one text and writes another"
