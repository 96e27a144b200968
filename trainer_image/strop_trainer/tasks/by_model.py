"""Tasks whose way depends on the kind of model. No torch here."""

from __future__ import annotations

from typing import Final

from strop_trainer.encoder_decoders import CLASSES, task_refusal
from strop_trainer.errors import bad_configuration
from strop_trainer.plan import METRICS
from strop_trainer.sources.model_folder import ModelFolder
from strop_trainer.tasks.base import Task
from strop_trainer.tasks.encoder_decoder import EncoderDecoderTask
from strop_trainer.tasks.extractive_qa import ExtractiveQaTask
from strop_trainer.tasks.prompted import PromptedTask

BY_MODEL: Final = frozenset(task for task, metrics in METRICS.items() if metrics.by_model)
"""Tasks whose rows depend on the model: an encoder points at a part of the text, others answer in their own words."""
_GENERATES: Final = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ModelWithLMHead", "GenerationDecoder")
"""How transformers' classes of models that write are called."""


def writes(model: ModelFolder) -> bool:
    """Whether a model's architecture is one that generates text."""
    return model.architecture.endswith(_GENERATES) or model.architecture in CLASSES.get(model.model_type, ())


def task_for(task: Task, model: ModelFolder) -> Task:
    """Return the task as this model does it.

    Raises:
        TrainerError: an encoder-decoder model is asked for what it does not do (exit 78).
    """
    if task.name in BY_MODEL and not writes(model):
        return ExtractiveQaTask()
    if not model.encoder_decoder:
        return task
    if why := task_refusal(task.name, model.architecture):
        raise bad_configuration(why)
    return EncoderDecoderTask(task, model) if isinstance(task, PromptedTask) else task
