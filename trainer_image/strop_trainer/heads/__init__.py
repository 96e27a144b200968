"""Kinds of models, by what they put out."""

from __future__ import annotations

from strop_trainer.heads.base import Head
from strop_trainer.heads.causal import CausalHead
from strop_trainer.sources.model_folder import ModelFolder
from strop_trainer.tasks.base import Task


def head_for(task: Task, model: ModelFolder) -> Head:
    """Return the kind of model that a task trains: by the task, and by the model's architecture where both could be."""
    del task, model  # one kind so far
    return CausalHead()
