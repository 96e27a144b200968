"""Models that read one text and write another, as the planner knows them."""

from typing import Any

import pytest

from strop.api.finetunejob import FineTuneJobSpec, ModelSpec, ResourcesSpec
from strop.planning.chooser import Chooser
from strop.planning.inputs import PlanError
from strop.planning.presets import PRESETS, Preset, model_facts
from strop.planning.resolve import needs_of, resolve_training
from strop_trainer.plan import TrainingPlan

T5, BART, UNKNOWN = "hf://google-t5/t5-small", "hf://facebook/bart-base", "pvc://models/someones-t5"
BART_LARGE = "hf://facebook/bart-large"
SMOLLM = "hf://HuggingFaceTB/SmolLM2-135M-Instruct"


def plan(source: str, task: str = "translation", **change: Any) -> TrainingPlan:
    rows = {"train": [{"source": "configmap://rows/train.jsonl"}]}
    spec = FineTuneJobSpec.model_validate({"task": task, "model": {"source": source}, "dataset": rows, **change})
    return resolve_training(spec, model_facts(spec.model), Chooser())


def test_a_known_one_is_padded_and_exported_as_it_can_be() -> None:
    found = plan(T5)
    assert not found.hyperparameters.packing
    assert found.artifact.onnx == ["fp32", "int8"]
    assert found.artifact.onnx_encoder is None
    assert found.hyperparameters.max_length == 512
    assert plan(BART, "summarization").hyperparameters.max_length == 1024


def test_of_an_unknown_model_the_folder_will_tell() -> None:
    found = plan(UNKNOWN)
    assert found.artifact.onnx == ["fp32", "int4"]
    assert found.artifact.onnx_encoder == ["fp32", "int8"]
    assert plan(UNKNOWN, output={"onnx": {"precisions": ["int4"]}}).artifact.onnx_encoder is None


def test_a_decoder_that_translates_is_planned_as_before() -> None:
    found = plan(SMOLLM)
    assert found.hyperparameters.packing
    assert found.hyperparameters.max_length == 1024
    assert found.artifact.onnx_encoder is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "chat"}, "spec.task: found chat, allowed for T5ForConditionalGeneration, which reads one text and"),
        ({"method": {"type": "qlora"}}, "spec.method.type: found qlora, allowed for T5ForConditionalGeneration, which"),
        ({"method": {"type": "p-tuning"}}, "spec.method.type: found p-tuning, allowed"),
        (
            {"method": {"type": "lora", "lora": {"initialization": "pissa"}}},
            "spec.method.lora.initialization: found pissa, allowed",
        ),
        ({"output": {"onnx": {"precisions": ["fp32", "int4"]}}}, "spec.output.onnx.precisions: found int4, allowed"),
        ({"output": {"onnx": {"form": "adapter"}}}, "spec.output.onnx.form: found adapter, allowed"),
        ({"distributed": {"processesPerNode": 2}}, "spec.distributed.strategy: found ddp, allowed"),
        (
            {"method": {"type": "lora", "lora": {"targetModules": ["q_proj"]}}},
            "spec.method.lora.targetModules: found q_proj, allowed for T5ForConditionalGeneration: q, k, v, o, wi",
        ),
    ],
)
def test_what_it_does_not_do_is_refused_at_admission(change: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError) as refused:
        plan(T5, **{"task": "translation", **change})
    assert words in refused.value.message


@pytest.mark.parametrize(
    "name", ["google/mt5-small", "google/pegasus-xsum", "facebook/nllb-200-distilled-600M", "facebook/mbart-large-50"]
)
def test_further_families_are_planned_as_their_kin(name: str) -> None:
    found = plan(f"hf://{name}")
    assert not found.hyperparameters.packing
    assert found.artifact.onnx == ["fp32", "int8"]
    kin = plan(T5 if "mt5" in name else BART_LARGE)
    assert found.hyperparameters.learning_rate == kin.hyperparameters.learning_rate


@pytest.mark.parametrize("name", ["facebook/nllb-200-1.3B", "facebook/m2m100_418M", "facebook/mbart-large-50"])
def test_models_whose_texts_carry_languages_translate_alone(name: str) -> None:
    with pytest.raises(PlanError) as refused:
        plan(f"hf://{name}", "summarization")
    assert "spec.task: found summarization, allowed for M" in refused.value.message
    assert "whose texts carry the tokens of languages: translation" in refused.value.message


def test_labels_are_another_kind_of_models() -> None:
    found = plan(BART, "text-classification")
    assert found.artifact.onnx == ["fp32"]
    assert found.hyperparameters.learning_rate == 5e-4


@pytest.mark.parametrize("method", ["full", "lora", "dora", "ia3"])
def test_its_memory_is_estimated(method: str) -> None:
    facts = model_facts(ModelSpec(source=T5))
    needs = needs_of(ResourcesSpec(), facts, plan(T5, method={"type": method}))
    assert needs.cpu_estimate is not None
    assert needs.cpu_estimate.basis == "preset t5-small"
    # Each layer of the decoder counts for two, as it attends to the source as well.
    assert facts.shape is not None
    assert facts.shape.layers == 6 + 2 * 6


def test_one_of_unknown_kind_is_estimated_with_padded_rows() -> None:
    facts = model_facts(ModelSpec(source=UNKNOWN, parameters="250M"))
    decoder = facts.model_copy(update={"architecture": model_facts(ModelSpec(source=SMOLLM)).architecture})
    training = plan(UNKNOWN, model={"source": UNKNOWN, "parameters": "250M"})
    translation, known = (needs_of(ResourcesSpec(), each, training) for each in (facts, decoder))
    assert translation.cpu_estimate is not None
    assert known.cpu_estimate is not None
    assert translation.cpu_estimate.activations > known.cpu_estimate.activations


@pytest.mark.parametrize("preset", [each for each in PRESETS if each.shape.encoder_layers], ids=lambda each: each.name)
def test_the_shape_that_covers_it_has_no_fewer_parameters(preset: Preset) -> None:
    assert preset.shape.covering.parameters >= preset.shape.parameters
    assert preset.shape.covering.covering == preset.shape.covering
