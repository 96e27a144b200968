"""Kinds of models, by what they put out."""

from __future__ import annotations

from strop_trainer.heads.base import Head
from strop_trainer.heads.causal import CausalHead
from strop_trainer.heads.encoder import EncoderHead
from strop_trainer.heads.encoder_decoder import EncoderDecoderHead
from strop_trainer.heads.preference import PreferenceHead
from strop_trainer.tasks.base import Task
from strop_trainer.tasks.encoder_decoder import EncoderDecoderTask
from strop_trainer.tasks.extractive_qa import ExtractiveQaTask
from strop_trainer.tasks.preference import PreferenceTask
from strop_trainer.tasks.text_classification import TextClassificationTask
from strop_trainer.tasks.token_classification import TokenClassificationTask

LABELLED = (TextClassificationTask, TokenClassificationTask, ExtractiveQaTask)


def head_for(task: Task) -> Head:
    """Return the kind of model that a task trains."""
    if isinstance(task, EncoderDecoderTask):
        return EncoderDecoderHead()
    if isinstance(task, PreferenceTask):
        return PreferenceHead()
    return EncoderHead(task) if isinstance(task, LABELLED) else CausalHead()
