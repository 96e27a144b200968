"""What each method gets where the job says nothing, and what it asks of the rest of the plan."""

from typing import Any

import pytest

from strop.planning.chooser import Chooser
from strop.planning.inputs import PlanError
from strop.planning.presets import model_facts
from strop.planning.resolve import resolve, resolve_training
from strop_trainer.plan import PROMPT_METHODS, TrainingPlan, canonical_json
from tests.support.planning import job_of, pool_of

SMOLLM = "hf://HuggingFaceTB/SmolLM2-135M-Instruct"
LLAMA_8B = "hf://meta-llama/Llama-3.1-8B-Instruct"
UNKNOWN = "pvc://models/of-unknown-size"


def planned(method: dict[str, Any], source: str = SMOLLM, **fields: Any) -> tuple[TrainingPlan, dict[str, str]]:
    spec = job_of(model__source=source, method=method, **fields).spec
    chooser = Chooser()
    training = resolve_training(spec, model_facts(spec.model), chooser)
    return training, {resolution.field: resolution.reason for resolution in chooser.resolved}


@pytest.mark.parametrize(
    ("source", "rate"),
    [
        ("hf://HuggingFaceTB/SmolLM2-135M-Instruct", 1e-3),
        ("hf://HuggingFaceTB/SmolLM2-360M-Instruct", 9e-4),
        ("hf://meta-llama/Llama-3.2-1B-Instruct", 5e-4),
        ("hf://meta-llama/Llama-3.1-8B-Instruct", 3e-4),
        ("hf://mistralai/Mistral-7B-Instruct-v0.3", 3e-4),
        ("hf://meta-llama/Llama-3.3-70B-Instruct", 2e-4),
        ("hf://Qwen/Qwen3-8B", 5e-4),
        (UNKNOWN, 2e-4),
    ],
)
def test_the_learning_rate_of_lora_falls_with_the_width_of_the_model(source: str, rate: float) -> None:
    training, reasons = planned({"type": "lora"}, source)
    assert training.hyperparameters.learning_rate == pytest.approx(rate)
    assert "QLoRA" in reasons["training.learningRate"] or "hidden size" in reasons["training.learningRate"]


@pytest.mark.parametrize("source", [SMOLLM, LLAMA_8B, "hf://Qwen/Qwen3-8B", UNKNOWN])
def test_all_weights_learn_at_about_a_tenth_of_the_rate_of_lora(source: str) -> None:
    full, lora = (planned({"type": method}, source)[0].hyperparameters.learning_rate for method in ("full", "lora"))
    assert 0.08 <= full / lora <= 0.12


@pytest.mark.parametrize(
    ("method", "rate", "word"),
    [
        ({"type": "qlora"}, 3e-4, "x 10 for LoRA"),
        ({"type": "dora"}, 3e-4, "x 10 for LoRA"),
        ({"type": "qlora", "lora": {"initialization": "loftq"}}, 3e-4, "x 10 for LoRA"),
        ({"type": "lora", "lora": {"initialization": "pissa"}}, 3e-5, "principal part"),
        ({"type": "lora", "lora": {"initialization": "olora"}}, 3e-5, "principal part"),
        ({"type": "lora", "lora": {"plusRatio": 16}}, 1e-4, "Hayou"),
        ({"type": "lora", "lora": {"plusRatio": 1}}, 3e-4, "x 10 for LoRA"),
        ({"type": "full"}, 3e-5, "5e-5 x (2000"),
        ({"type": "ia3"}, 8e-3, "PEFT's guide"),
        ({"type": "prompt-tuning"}, 3e-2, "PEFT"),
        ({"type": "prefix-tuning"}, 1e-2, "P-tuning v2"),
        ({"type": "p-tuning"}, 1e-3, "PEFT"),
    ],
)
def test_each_method_has_a_learning_rate_with_its_source(method: dict[str, Any], rate: float, word: str) -> None:
    training, reasons = planned(method, LLAMA_8B)
    assert training.hyperparameters.learning_rate == pytest.approx(rate)
    assert word in reasons["training.learningRate"]


@pytest.mark.parametrize(
    ("lora", "alpha"),
    [
        ({}, 32),
        ({"rank": 64}, 32),
        ({"useRslora": True}, 8),
        ({"initialization": "pissa"}, 16),
        ({"initialization": "olora", "rank": 8}, 8),
    ],
)
def test_alpha_goes_by_how_the_adapter_starts_and_scales(lora: dict[str, Any], alpha: int) -> None:
    training, reasons = planned({"type": "lora", "lora": lora})
    assert training.method.lora
    assert training.method.lora.alpha == alpha
    assert reasons["method.lora.alpha"]


@pytest.mark.parametrize(
    ("change", "source", "rank", "words"),
    [
        ({"train": [{"source": "pvc://rows/train.jsonl"}]}, SMOLLM, 16, "number of rows (without dataset.maxRows)"),
        ({"maxRows": 1_000_000}, UNKNOWN, 16, "the size of the model is not known"),
        ({"train": [{"source": "pvc://rows/t.jsonl"}], "maxRows": 2000}, SMOLLM, 16, "2,000 rows of 1024 tokens"),
        ({"train": [{"source": "pvc://rows/t.jsonl"}], "maxRows": 12_000}, SMOLLM, 32, "at most 12.3M"),
        ({"train": [{"source": "pvc://rows/t.jsonl"}], "maxRows": 12_000}, LLAMA_8B, 16, "at most 12.3M"),
        ({"train": [{"source": "pvc://rows/t.jsonl"}], "maxRows": 200_000}, LLAMA_8B, 64, "at most 204.8M"),
        ({"train": [{"source": "pvc://rows/t.jsonl"}], "maxRows": 10_000_000}, SMOLLM, 128, "may have more"),
        ({"train": [{"source": "configmap://rows/t.jsonl"}], "maxRows": 10_000_000}, SMOLLM, 16, "of a ConfigMap"),
    ],
)  # fmt: skip
def test_the_rank_follows_what_is_known_of_the_data(change: dict[str, Any], source: str, rank: int, words: str) -> None:
    dataset = {"train": [{"source": "pvc://rows/train.jsonl"}], **change}
    training, reasons = planned({"type": "lora"}, source, dataset=dataset)
    assert training.method.lora
    assert training.method.lora.rank == rank
    assert words in reasons["method.lora.rank"]
    assert "LoRA Without Regret" in reasons["method.lora.rank"]


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "preference"])
def test_rows_of_a_few_bits_need_no_higher_rank(task: str) -> None:
    rows = {"train": [{"source": "pvc://rows/train.jsonl"}], "maxRows": 10_000_000}
    training, reasons = planned({"type": "lora"}, dataset=rows, task=task)
    assert training.method.lora
    assert training.method.lora.rank == 16
    assert "a few bits" in reasons["method.lora.rank"]


def test_a_given_rank_stays() -> None:
    rows = {"train": [{"source": "pvc://rows/train.jsonl"}], "maxRows": 10_000_000}
    training, reasons = planned({"type": "lora", "lora": {"rank": 8}}, dataset=rows)
    assert training.method.lora
    assert training.method.lora.rank == 8
    assert "method.lora.rank" not in reasons


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_methods_with_virtual_tokens_are_neither_packed_nor_exported(method: str) -> None:
    training, reasons = planned({"type": method})
    assert training.method.virtual_tokens == 20
    assert training.method.lora is None
    assert not training.hyperparameters.packing
    assert training.artifact.onnx == []
    assert "Lester" in reasons["method.prompt.virtualTokens"]
    assert "in front of each row" in reasons["training.packing"]
    assert f"Strop exports no ONNX of {method}" in reasons["output.onnx.enabled"]
    assert planned({"type": method, "prompt": {"virtualTokens": 7}})[0].method.virtual_tokens == 7


@pytest.mark.parametrize("method", ["full", "ia3", "qlora", "dora"])
def test_the_other_methods_are_packed_and_exported(method: str) -> None:
    training, _ = planned({"type": method})
    assert training.hyperparameters.packing
    assert training.artifact.onnx == ["fp32", "int4"]
    assert training.method.virtual_tokens is None
    assert (training.method.lora is None) == (method in {"full", "ia3"})


@pytest.mark.parametrize(
    ("method", "merged", "word"),
    [
        ("dora", True, "vLLM"),
        ("lora", False, "the adapter is small"),
        ("full", False, "the ONNX model is the tuned one"),
        ("p-tuning", False, "cannot be folded"),
    ],
)
def test_the_merged_model_is_published_where_the_adapter_serves_nobody(method: str, merged: bool, word: str) -> None:
    training, reasons = planned({"type": method})
    assert training.artifact.merged is merged
    assert word in reasons["output.merged"]


def test_what_the_job_says_of_the_merged_model_stays() -> None:
    training, reasons = planned({"type": "dora"}, output={"merged": False})
    assert training.artifact.merged is False
    assert "output.merged" not in reasons


def test_a_prefix_is_not_recomputed() -> None:
    assert planned({"type": "prompt-tuning"}, LLAMA_8B)[0].hyperparameters.gradient_checkpointing == "auto"
    training, reasons = planned({"type": "prefix-tuning"}, LLAMA_8B)
    assert training.hyperparameters.gradient_checkpointing is False
    assert "prefix" in reasons["training.gradientCheckpointing"]


@pytest.mark.parametrize(
    ("method", "source", "field", "value"),
    [
        ("ia3", SMOLLM, "modules", "keys, values, the MLP's product"),
        ("p-tuning", SMOLLM, "width", 576),
        ("p-tuning", UNKNOWN, "width", "the model's"),
        *((method, SMOLLM, "start", "vocabulary") for method in PROMPT_METHODS),
    ],
)
def test_what_a_method_does_not_let_choose_is_told(method: str, source: str, field: str, value: Any) -> None:
    spec = job_of(model__source=source, method={"type": method}).spec
    chooser = Chooser()
    resolve_training(spec, model_facts(spec.model), chooser)
    (found,) = (resolution for resolution in chooser.resolved if resolution.field == field)
    assert found.value == value if field != "start" else value in found.value
    assert found.reason.startswith("fixed: ")


def test_virtual_tokens_count_in_the_length() -> None:
    assert planned({"type": "p-tuning"}, training__maxLength=8172)
    with pytest.raises(PlanError, match="allowed: up to 8172, the model's context length less 20 virtual tokens"):
        planned({"type": "p-tuning"}, training__maxLength=8173)
    assert planned({"type": "lora"}, training__maxLength=8192)


def test_what_is_left_out_does_not_change_the_digest() -> None:
    # None is absent in the canonical form: a plan of an earlier version keeps its digest.
    assert b"plusRatio" not in canonical_json(planned({"type": "lora"})[0])
    assert b"virtualTokens" not in canonical_json(planned({"type": "lora"})[0])


@pytest.mark.parametrize("method", ["full", "lora", "qlora", "dora", "ia3", *PROMPT_METHODS])
def test_every_method_gets_a_whole_plan(method: str) -> None:
    plan = resolve(job_of(model__source=SMOLLM, method__type=method), [pool_of()])
    assert plan.training.method.type == method
    assert all(resolution.reason for resolution in plan.resolved)
