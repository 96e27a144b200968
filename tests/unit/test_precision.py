"""In which precision a job is computed where its plan leaves that open, and what its arithmetic is held against."""

from typing import Any

import pytest

from strop.api.finetunejob import ModelSpec
from strop.planning.chooser import Chooser
from strop.planning.inputs import Pool
from strop.planning.memory import LAUNCHER_BYTES, estimate_memory
from strop.planning.presets import ARCHITECTURES, PRESETS, model_facts
from strop.planning.resolve import resolve, resolve_training
from strop_trainer.plan import MemoryEstimate, PlacementPlan, Precision, with_hyperparameters
from strop_trainer.precision import bytes_of, choose_precision, fp32_lacks
from strop_trainer.roofline import Linear, Work, work_of
from tests.support.planning import gpu_pool_of, job_of, pool_of

GIB = 1 << 30
LLAMA_1B = "hf://meta-llama/Llama-3.2-1B-Instruct"
LLAMA_3B = "hf://meta-llama/Llama-3.2-3B-Instruct"


def rates(bf16: float, fp32: float) -> dict[Precision, float]:
    return {"bf16": bf16 * 1e9, "fp32": fp32 * 1e9}


@pytest.mark.parametrize(
    ("bf16", "fp32", "missing", "chosen"),
    [
        (400, 200, 0, "bf16"),
        (200, 200, 0, "bf16"),
        (200, 230, 0, "bf16"),  # a little faster is not worth twice the memory
        (10, 200, 0, "fp32"),
        (10, 200, -GIB, "fp32"),
        (10, 200, 1, "bf16"),
    ],
)
def test_fp32_must_be_clearly_faster_and_fit(bf16: float, fp32: float, missing: int, chosen: str) -> None:
    precision, why = choose_precision(rates(bf16, fp32), missing)
    assert precision == chosen
    assert f"{bf16:.0f} GFLOP/s in bf16 and {fp32:.0f} in fp32" in why


def test_where_fp32_does_not_fit_it_says_what_would_help() -> None:
    _, why = choose_precision(rates(10, 200), 2_500_000_000)
    assert "2.5 GB more than compute.resources.memory" in why
    assert "training.precision: fp32" in why


def placed(source: str, *, pool: Pool | None = None, **fields: Any) -> PlacementPlan:
    return resolve(job_of(model__source=source, **fields), [pool or pool_of(memory_per_node="4Ti")]).placement


def in_fp32(found: PlacementPlan, source: str, **fields: Any) -> MemoryEstimate:
    """Return the planner's estimate of the same job as it was placed, in fp32 from the start."""
    facts, job = (
        model_facts(ModelSpec(source=source)),
        job_of(model__source=source, training__precision="fp32", **fields),
    )
    training = resolve_training(job.spec, facts, Chooser())
    if found.gradient_checkpointing is not None:
        training = with_hyperparameters(training, gradient_checkpointing=found.gradient_checkpointing)
    assert facts.shape
    assert facts.parameters
    return estimate_memory(facts.shape, facts.parameters, training, accelerator=False, basis=facts.basis)


def test_a_pod_that_exports_has_room_for_fp32() -> None:
    # Merging and exporting takes two copies in fp32, training in fp32 one and what it keeps: 10.2 of 11.25 GiB.
    fields: dict[str, Any] = {"training__gradientCheckpointing": True}
    found = placed(LLAMA_1B, **fields)
    assert found.resources.memory == "11520Mi"
    assert fp32_lacks(found) == in_fp32(found, LLAMA_1B, **fields).total - (11520 << 20) < 0


def test_a_pod_that_keeps_all_activations_asks_for_the_room_of_fp32() -> None:
    found = placed(LLAMA_1B)
    assert found.gradient_checkpointing is False
    memory, needed = bytes_of(found.resources.memory), in_fp32(found, LLAMA_1B).total
    assert 1.09 * needed <= memory <= 1.12 * needed
    assert fp32_lacks(found) == needed - memory < 0


def test_ranks_need_room_for_fp32_together() -> None:
    two: dict[str, Any] = {"distributed__processesPerNode": 2}
    found = placed(LLAMA_3B, **two)
    rank, memory = in_fp32(found, LLAMA_3B, **two).total, bytes_of(found.resources.memory)
    assert rank < memory
    assert fp32_lacks(found) == LAUNCHER_BYTES + 2 * rank - memory > 6 * GIB
    assert fp32_lacks(placed(LLAMA_3B, **two, compute__resources__memory="64Gi")) < 0


def test_memory_that_is_given_is_what_counts() -> None:
    found = placed(LLAMA_1B, compute__resources__memory="8Gi")
    assert fp32_lacks(found) == in_fp32(found, LLAMA_1B).total - 8 * GIB > 0


@pytest.mark.parametrize("method", ["full", "lora", "qlora", "dora", "ia3"])
def test_whether_fp32_has_room_is_what_the_planner_says_of_each_preset(method: str) -> None:
    with_room = 0
    decoders = [preset for preset in PRESETS if not ARCHITECTURES[preset.architecture].encoder_decoder]
    for preset in decoders:
        source = f"hf://{preset.sources[0]}"
        found = placed(source, method__type=method, output__merged=True)
        missing = in_fp32(found, source, method__type=method, output__merged=True).total - bytes_of(
            found.resources.memory
        )
        assert fp32_lacks(found) == missing, preset.name
        with_room += missing <= 0
    assert with_room > 0.8 * len(decoders)


def test_nothing_is_said_of_fp32_where_the_trainer_has_no_choice_or_the_size_is_unknown() -> None:
    assert placed(LLAMA_1B, training__precision="bf16").fp32_memory is None
    assert placed(LLAMA_1B, pool=gpu_pool_of(memory_per_node="64Gi")).fp32_memory is None
    unknown = placed("pvc://models/mystery")
    assert unknown.fp32_memory is None
    assert fp32_lacks(unknown) == 0


@pytest.mark.parametrize(
    ("quantity", "size"),
    [("2816Mi", 2816 << 20), ("4Gi", 4 * GIB), ("1.5Gi", 3 * GIB // 2), ("3G", 3 * 10**9), ("7", 7)],
)
def test_quantities(quantity: str, size: int) -> None:
    assert bytes_of(quantity) == size


def test_frozen_weights_cost_four_operations_and_trained_ones_six() -> None:
    work = work_of([Linear(100, trained=False), Linear(10, trained=True), Linear(50, trained=False, last=True)])
    assert work == Work(per_token=460, per_target=200)
    assert work.of(tokens=3, targets=2) == 3 * 460 + 2 * 200
    assert work_of([Linear(100, trained=True), Linear(50, trained=True, last=True)]).of(1, 1) == 6 * 150


def test_a_decoder_behind_an_encoder_works_on_what_is_written_alone() -> None:
    work = work_of([Linear(100, trained=True), Linear(10, trained=True, writes=True)])
    assert work.of(tokens=30, targets=4) == 6 * (26 * 100 + 4 * 10)
