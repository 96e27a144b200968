"""Defaults of the tasks whose model puts out labels."""

import pytest

from strop.planning.chooser import Chooser
from strop.planning.inputs import PlanError
from strop.planning.presets import model_facts
from strop.planning.resolve import resolve_training
from strop_trainer.plan import TrainingPlan
from tests.support.planning import job_of


def plan_of(**changes: object) -> TrainingPlan:
    spec = job_of(**changes).spec
    return resolve_training(spec, model_facts(spec.model), Chooser())


def test_an_encoder_gets_an_encoders_values() -> None:
    plan = plan_of(task="text-classification", model__source="pvc://models/bert")
    found = plan.hyperparameters
    assert (found.learning_rate, found.max_length, found.precision) == (5e-4, 256, "auto")
    assert not found.packing
    assert not found.gradient_checkpointing
    assert plan.artifact.onnx == ["fp32"]


def test_full_fine_tuning_takes_the_upper_end_of_berts_rates() -> None:
    plan = plan_of(task="token-classification", model__source="pvc://models/bert", method={"type": "full"})
    assert plan.hyperparameters.learning_rate == 5e-5


@pytest.mark.parametrize(
    ("model", "method", "rate"),
    [
        ({"source": "pvc://models/bert", "parameters": "110M"}, "lora", 5e-4),
        ({"source": "pvc://models/bert", "parameters": "110M"}, "full", 5e-5),
        ({"source": "pvc://models/bert", "parameters": "110M"}, "qlora", 5e-4),
        ({"source": "pvc://models/bert", "parameters": "110M"}, "ia3", 8e-3),
        ({"source": "hf://HuggingFaceTB/SmolLM2-135M"}, "ia3", 8e-3),
        ({"source": "pvc://models/encoder-110M"}, "lora", 5e-4),
        # Larger than encoders are: as for a language model of that size.
        ({"source": "pvc://models/own", "parameters": "7B"}, "lora", 3e-4),
        ({"source": "hf://HuggingFaceTB/SmolLM2-135M"}, "lora", 1e-3),
    ],
)
def test_a_size_alone_does_not_make_an_encoder_learn_as_a_language_model(
    model: dict[str, str], method: str, rate: float
) -> None:
    plan = plan_of(task="text-classification", model=model, method={"type": method})
    assert plan.hyperparameters.learning_rate == rate


def test_questions_to_a_model_of_which_the_size_alone_is_known_suit_an_encoder() -> None:
    found = plan_of(
        task="question-answering", model={"source": "pvc://models/bert", "parameters": "110M"}
    ).hyperparameters
    assert (found.learning_rate, found.max_length) == (5e-4, 384)
    larger = plan_of(task="question-answering", model={"source": "pvc://models/own", "parameters": "7B"})
    assert larger.hyperparameters.learning_rate == 3e-4
    known = plan_of(task="question-answering", model__source="hf://HuggingFaceTB/SmolLM2-135M")
    assert known.hyperparameters.learning_rate == 1e-3


def test_questions_leave_the_precisions_to_the_kind_of_model_unless_they_are_named() -> None:
    left_out = plan_of(task="question-answering", model__source="pvc://models/bert").artifact
    assert (left_out.onnx, left_out.onnx_encoder) == (["fp32", "int4"], ["fp32", "int8"])
    named = plan_of(task="question-answering", output__onnx={"precisions": ["int4"]}).artifact
    assert (named.onnx, named.onnx_encoder) == (["int4"], None)
    off = plan_of(task="question-answering", output__onnx={"enabled": False}).artifact
    assert (off.onnx, off.onnx_encoder) == ([], None)
    assert plan_of(task="chat").artifact.onnx_encoder is None


def test_a_gate_on_answers_needs_answers_of_a_model_that_is_known_to_generate_them() -> None:
    gate = {"minimum": {"f1": 0.5}, "generateRows": 0}
    plan = plan_of(task="question-answering", model__source="pvc://models/bert", evaluation=gate)
    assert (plan.evaluation.minimum, plan.evaluation.generate_rows) == ({"f1": 0.5}, 0)
    with pytest.raises(PlanError, match=r"spec\.evaluation\.generateRows: found 0, allowed: at least 1"):
        plan_of(task="question-answering", model__source="hf://HuggingFaceTB/SmolLM2-135M", evaluation=gate)
    loss = gate | {"minimum": {}, "maximum": {"eval_loss": 2.0}}
    plan_of(task="question-answering", model__source="hf://HuggingFaceTB/SmolLM2-135M", evaluation=loss)


@pytest.mark.parametrize("onnx", [{}, {"enabled": True}, {"form": "merged"}])
def test_an_export_without_precisions_has_those_of_the_task(onnx: dict[str, object]) -> None:
    bert = "pvc://models/bert"
    assert plan_of(task="token-classification", model__source=bert, output__onnx=onnx).artifact.onnx == ["fp32"]
    asked = plan_of(task="question-answering", model__source=bert, output__onnx=onnx).artifact
    assert (asked.onnx, asked.onnx_encoder) == (["fp32", "int4"], ["fp32", "int8"])
    chat, left_out = (plan_of(task="chat", **more).artifact for more in ({"output__onnx": onnx}, {}))
    assert (chat.onnx_required, left_out.onnx_required) == (True, None)
    assert chat.model_copy(update={"onnx_required": None}) == left_out


def test_questions_to_an_unknown_model_are_as_long_as_squads() -> None:
    assert plan_of(task="question-answering", model__source="pvc://models/bert").hyperparameters.max_length == 384
    known = plan_of(task="question-answering", model__source="hf://HuggingFaceTB/SmolLM2-135M")
    assert known.hyperparameters.max_length == 1024
