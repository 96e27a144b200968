"""Values of models that read one text and write another: T5, BART, Marian and their like."""

from __future__ import annotations

from typing import Final

from strop.planning.presets import ModelFacts
from strop_trainer.encoder_decoders import TASKS
from strop_trainer.plan import OnnxPrecision, TrainingPlan

PACKING: Final = (False, "rows are padded: each is a source and a target")
TRANSLATION_LENGTH: Final = (512, "sentences and paragraphs; Marian has no more positions")
ONNX: Final[tuple[list[OnnxPrecision], str]] = (["fp32", "int8"], "fp32 is exact, int8 is a quarter of the size")


def is_encoder_decoder(facts: ModelFacts) -> bool:
    """Whether a model is known to be one."""
    return facts.architecture is not None and facts.architecture.encoder_decoder


def as_estimated(training: TrainingPlan, facts: ModelFacts) -> TrainingPlan:
    """Return what memory is estimated of: padded rows, where only the model's folder tells whether they are."""
    if facts.architecture is not None or training.task not in TASKS:
        return training
    padded = training.hyperparameters.model_copy(update={"packing": False})
    return training.model_copy(update={"hyperparameters": padded})
