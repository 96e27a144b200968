"""How long a row may be: by the job, else by its task, and by what the model can read."""

from __future__ import annotations

from typing import Final

from strop.api.finetunejob import FineTuneJobSpec
from strop.planning.encoder_decoders import TRANSLATION_LENGTH, is_encoder_decoder
from strop.planning.presets import ModelFacts
from strop_trainer.plan import LABEL_TASKS, Task

CONVERSATIONS: Final = ("chat", "instruction", "preference")
_MAX_LENGTH: Final = 1024
_LABELLED_LENGTH: Final = (256, "sentences and short paragraphs, as labels have; how many were cut is reported")
_ANSWER_LENGTH: Final = (
    384,
    "as SQuAD's usual: an encoder reads a longer text in windows; a larger model may take more",
)


def usual_length(task: Task, facts: ModelFacts) -> tuple[int, str]:
    """Return how long a row may be, in tokens, where neither job nor model says more, and why."""
    if task in LABEL_TASKS:
        return _LABELLED_LENGTH
    if task == "question-answering" and facts.may_be_encoder:
        return _ANSWER_LENGTH
    if task == "translation" and (facts.architecture is None or is_encoder_decoder(facts)):
        return TRANSLATION_LENGTH
    rows = "chat rows" if task in CONVERSATIONS else "rows"
    return _MAX_LENGTH, f"most {rows} are shorter; how many were cut is reported"


def longest_row(spec: FineTuneJobSpec, facts: ModelFacts) -> int:
    """Return the tokens that a row has at most, those of a method left out."""
    given = spec.training.max_length if spec.training else None
    usual = usual_length(spec.task, facts)[0] if given is None else given
    return usual if facts.context_length is None else min(usual, facts.context_length)
