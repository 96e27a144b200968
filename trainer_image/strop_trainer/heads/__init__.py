"""Kinds of models, by what they put out."""

from __future__ import annotations

from typing import Final

from strop_trainer.heads.base import Head
from strop_trainer.heads.causal import CausalHead
from strop_trainer.heads.encoder import EncoderHead
from strop_trainer.sources.model_folder import ModelFolder
from strop_trainer.tasks.base import Task
from strop_trainer.tasks.extractive_qa import ExtractiveQaTask
from strop_trainer.tasks.text_classification import TextClassificationTask
from strop_trainer.tasks.token_classification import TokenClassificationTask

BY_MODEL: Final = frozenset({"question-answering"})
"""Tasks that an encoder does by pointing at a part of the text, and a language model in words of its own."""
LABELLED: Final = (TextClassificationTask, TokenClassificationTask, ExtractiveQaTask)
_GENERATES: Final = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")


def task_for(task: Task, model: ModelFolder) -> Task:
    """Return the task as this model does it."""
    if task.name in BY_MODEL and not model.architecture.endswith(_GENERATES):
        return ExtractiveQaTask()
    return task


def head_for(task: Task) -> Head:
    """Return the kind of model that a task trains."""
    return EncoderHead(task) if isinstance(task, LABELLED) else CausalHead()
