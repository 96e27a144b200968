"""Tasks whose way depends on the kind of model. No torch here."""

from __future__ import annotations

from typing import Final

from strop_trainer.sources.model_folder import ModelFolder
from strop_trainer.tasks.base import Task
from strop_trainer.tasks.extractive_qa import ExtractiveQaTask

BY_MODEL: Final = frozenset({"question-answering"})
"""Tasks that an encoder does by pointing at a part of the text, and a language model in words of its own."""
_GENERATES: Final = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")


def task_for(task: Task, model: ModelFolder) -> Task:
    """Return the task as this model does it."""
    if task.name in BY_MODEL and not model.architecture.endswith(_GENERATES):
        return ExtractiveQaTask()
    return task
