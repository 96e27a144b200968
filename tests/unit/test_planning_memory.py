"""The memory estimate: it holds what it says it holds, and grows with what costs memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.api.finetunejob import ModelSpec
from strop.planning.chooser import Chooser
from strop.planning.memory import (
    activation_bytes,
    estimate_memory,
    export_bytes,
    host_bytes,
    lora_parameters,
    work_volume_bytes,
)
from strop.planning.presets import ModelFacts, model_facts
from strop.planning.quantities import GIB
from strop.planning.resolve import resolve_training
from strop_trainer.plan import MemoryEstimate, TrainingPlan
from tests.support.planning import SMOLLM, job_of

SIZES = st.sampled_from(["hf://Qwen/Qwen3-8B", "hf://microsoft/phi-2", "pvc://m/thing-1B", SMOLLM])


def training_of(source: str = SMOLLM, **fields) -> tuple[ModelFacts, TrainingPlan]:
    facts = model_facts(ModelSpec(source=source))
    return facts, resolve_training(job_of(model__source=source, **fields).spec, facts, Chooser())


def estimate(source: str = SMOLLM, *, accelerator: bool = False, **fields) -> MemoryEstimate:
    facts, training = training_of(source, **fields)
    assert facts.shape
    assert facts.parameters
    assert training.method.lora
    return estimate_memory(
        facts.shape, facts.parameters, training, training.method.lora, accelerator=accelerator, basis=facts.basis
    )


def test_lora_trains_rank_times_inputs_plus_outputs_of_each_layer() -> None:
    # Of one block of SmolLM2-135M: q and o 576 + 576, k and v 576 + 192, gate, up and down 576 + 1536.
    facts, training = training_of(method__lora__rank=8)
    assert facts.shape
    assert training.method.lora
    assert lora_parameters(facts.shape, training.method.lora) == 30 * 8 * (2 * 1152 + 2 * 768 + 3 * 2112)


@given(SIZES, st.booleans())
def test_the_total_is_the_sum_of_its_parts(source: str, accelerator: bool) -> None:
    found = estimate(source, accelerator=accelerator)
    parts = found.weights + found.gradients + found.optimizer + found.activations + found.overhead
    assert found.total == parts
    assert min(found.weights, found.gradients, found.optimizer, found.activations, found.overhead) > 0


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"method__lora__dropout": 0}, {"method__lora__dropout": 0.1}),
        ({"training__microBatchSize": 1}, {"training__microBatchSize": 2}),
        ({"training__maxLength": 512}, {"training__maxLength": 2048}),
        ({"method__lora__rank": 8}, {"method__lora__rank": 64}),
        ({"training__precision": "bf16"}, {"training__precision": "fp32"}),
        ({"training__gradientCheckpointing": True}, {"training__gradientCheckpointing": False}),
    ],
)
def test_what_costs_memory_is_seen(less: dict, more: dict) -> None:
    fixed = {"training__effectiveBatchSize": 8}
    one = {"training__microBatchSize": 1}
    assert (
        estimate(accelerator=True, **{**fixed, **one, **less}).total
        < estimate(accelerator=True, **{**fixed, **one, **more}).total
    )


def test_the_logits_are_in_the_activations() -> None:
    facts, training = training_of()
    assert facts.shape
    h = training.hyperparameters
    tokens = h.micro_batch_size * h.max_length
    wider = facts.shape.model_copy(update={"vocabulary": facts.shape.vocabulary + 1})
    assert activation_bytes(wider, training) - activation_bytes(facts.shape, training) == tokens * (2 + 3 * 4)


def test_on_a_cpu_the_pod_also_holds_the_export() -> None:
    found = estimate("hf://Qwen/Qwen3-8B")
    assert found.total >= export_bytes(8_190_735_360)


def test_an_8b_model_with_lora_fits_a_24_gib_accelerator_and_a_70b_model_does_not() -> None:
    assert estimate("hf://meta-llama/Llama-3.1-8B-Instruct", accelerator=True).total < 24 * GIB
    assert estimate("hf://meta-llama/Llama-3.3-70B-Instruct", accelerator=True).total > 80 * GIB


def test_the_host_beside_an_accelerator_holds_the_export() -> None:
    assert host_bytes(10**9) > export_bytes(10**9) == 8 * 10**9


def test_a_model_that_is_fetched_needs_room_on_the_work_volume() -> None:
    assert work_volume_bytes(10**9, downloads=True) - work_volume_bytes(10**9, downloads=False) == 4 * 10**9


@pytest.mark.parametrize(
    ("micro", "length", "fields", "seen"),
    [
        (2, 1024, {}, 4.55),
        (1, 512, {}, 1.92),
        (2, 1024, {"method__lora__dropout": 0.05}, 7.08),
        (16, 128, {"method__lora__dropout": 0.05}, 6.91),
        (2, 1024, {"method__lora__dropout": 0.05, "training__gradientCheckpointing": True}, 3.26),
    ],
)
def test_the_estimate_covers_what_was_measured_and_not_much_more(
    micro: int, length: int, fields: dict, seen: float
) -> None:
    # Peak resident GiB of one pass of SmolLM2-135M with LoRA of rank 16, bf16, torch 2.15 on a CPU.
    batch = {"training__microBatchSize": micro, "training__effectiveBatchSize": micro, "training__maxLength": length}
    assert seen <= estimate(**batch, **fields).total / GIB <= 1.5 * seen
