"""Values of the tasks whose model puts out labels: mostly encoders, small, short rows, with a head that is new."""

from __future__ import annotations

from typing import Final

from strop.api.finetunejob import FineTuneJobSpec
from strop.planning.encoder_decoders import is_encoder_decoder
from strop.planning.methods import learning_rate_of
from strop.planning.presets import ModelFacts
from strop_trainer.plan import LORA_METHODS, OnnxPrecision

PACKING: Final = (False, "rows are padded: each has outputs of its own")
ONNX: Final[tuple[list[OnnxPrecision], str]] = (["fp32"], "exact; int8 is a quarter of the size")
ANSWER_ONNX: Final[tuple[list[OnnxPrecision], str]] = (["fp32", "int8"], "of a model with an encoder")
_LORA_RATE: Final = (5e-4, "as LoRA's for RoBERTa (Hu et al. 2021, table 9); encoders have no presets")
_FULL_RATE: Final = (
    5e-5,
    "the upper end of BERT's 2e-5 to 5e-5 (Devlin et al. 2019, appendix A.3): small data gives a new head few steps; "
    "encoders have no presets",
)


def label_learning_rate(spec: FineTuneJobSpec, facts: ModelFacts) -> tuple[float, str]:
    """Return the peak learning rate and why: an encoder's, unless a preset or the size tells of a language model."""
    small = facts.may_be_encoder or is_encoder_decoder(facts)
    if small and spec.method.type in LORA_METHODS:
        return _LORA_RATE
    if small and spec.method.type == "full":
        return _FULL_RATE
    return learning_rate_of(spec, facts)


def question_learning_rate(spec: FineTuneJobSpec, facts: ModelFacts) -> tuple[float, str]:
    """Return the same for answers to questions, which either kind of model gives.

    An encoder's where the model is small and its kind is not known: about half of a language model's of that size.
    """
    if facts.parameters is None:
        return learning_rate_of(spec, facts)
    return label_learning_rate(spec, facts)
