"""Activations are recomputed where they do not fit in the pool that was chosen, and the plan's digest knows no pool."""

from typing import Any

import pytest

from strop.api.quantities import format_bytes, parse_quantity
from strop.planning.inputs import PlanError, Pool
from strop.planning.pools import HEADROOM
from strop.planning.resolve import resolve
from strop_trainer.plan import MemoryEstimate, Plan
from tests.support.planning import gpu_pool_of, job_of, pool_of

EIGHT_B = "hf://meta-llama/Llama-3.1-8B-Instruct"
THREE_B = "hf://meta-llama/Llama-3.2-3B-Instruct"
FIELD = "training.gradientCheckpointing"
BARE: dict[str, Any] = {"output__onnx__enabled": False}
"""Without export, training is what takes the most of a pod's memory on CPUs."""
LONG: dict[str, Any] = {**BARE, "training__maxLength": 4096, "training__microBatchSize": 1}
HUGE = "4Ti"


def planned(pool: Pool, source: str = EIGHT_B, **fields: Any) -> Plan:
    return resolve(job_of(model__source=source, **fields), [pool])


def estimated(pool: Pool, *, on: bool, source: str = EIGHT_B, **fields: Any) -> MemoryEstimate:
    """Return the estimate of the same job where it says itself whether activations are recomputed."""
    found = planned(pool, source, training__gradientCheckpointing=on, **fields).placement.estimate
    assert found is not None
    return found


def why(plan: Plan) -> str:
    """Return the reason of the one line that a user sees of it."""
    (line,) = (item for item in plan.resolved if item.field == FIELD)
    assert line.value == "auto"
    return line.reason


def accelerators(memory: str) -> Pool:
    return gpu_pool_of(memory=memory, memory_per_node=HUGE)


def cpus(size: float) -> Pool:
    return pool_of(memory_per_node=f"{round(size / (1 << 20))}Mi")


def test_a_large_accelerator_keeps_what_a_small_one_recomputes_and_the_digest_is_the_same() -> None:
    fields = {"training__maxLength": 1024, "training__microBatchSize": 2}
    large, small = accelerators("80Gi"), accelerators("24Gi")
    kept, recomputed = planned(large, **fields), planned(small, **fields)
    assert kept.placement.gradient_checkpointing is False
    assert recomputed.placement.gradient_checkpointing is True
    off, on = estimated(large, on=False, **fields), estimated(large, on=True, **fields)
    assert on.total <= parse_quantity("24Gi") < off.total
    assert (kept.placement.estimate, recomputed.placement.estimate) == (off, on)
    assert kept.training == recomputed.training
    assert kept.training.hyperparameters.gradient_checkpointing == "auto"
    assert kept.digest == recomputed.digest == planned(pool_of(memory_per_node=HUGE), **fields).digest


def test_the_reason_has_the_numbers_of_the_pool() -> None:
    large, small = accelerators("80Gi"), accelerators("24Gi")
    fields = {"training__maxLength": 1024, "training__microBatchSize": 2}
    off, on = (format_bytes(estimated(large, on=value, **fields).total) for value in (False, True))
    assert why(planned(large, **fields)) == (
        f"off in pool gpu, where all activations fit: {off} and a tenth more of the accelerator's 80Gi; on, it is {on} "
        "and about a third more time (Chen et al. 2016)"
    )
    assert why(planned(small, **fields)) == (
        f"on in pool gpu, where it is {on}: off, it is {off} and a tenth more, which the accelerator's 24Gi do not have"
    )


def test_a_tenth_of_an_accelerator_stays_free() -> None:
    needed = estimated(accelerators(HUGE), on=False, training__maxLength=1024).total
    tight, roomy = (f"{int(needed * share) >> 20}Mi" for share in (1.05, HEADROOM + 0.01))
    assert planned(accelerators(tight), training__maxLength=1024).placement.gradient_checkpointing is True
    assert planned(accelerators(roomy), training__maxLength=1024).placement.gradient_checkpointing is False


def test_on_cpus_the_node_is_what_has_room_and_the_pod_gets_what_is_needed() -> None:
    off, on = (estimated(pool_of(memory_per_node=HUGE), on=value, source=THREE_B, **LONG) for value in (False, True))
    assert on.total * HEADROOM < off.total
    large, small = cpus(off.total * 1.2), cpus((on.total + off.total) / 2)
    kept, recomputed = planned(large, THREE_B, **LONG), planned(small, THREE_B, **LONG)
    assert (kept.placement.gradient_checkpointing, kept.placement.estimate) == (False, off)
    assert (recomputed.placement.gradient_checkpointing, recomputed.placement.estimate) == (True, on)
    assert off.total * HEADROOM <= parse_quantity(kept.placement.resources.memory) < off.total * 1.2
    assert parse_quantity(recomputed.placement.resources.memory) < off.total
    assert f"a tenth more of a node's {large.spec.memory_per_node}" in why(kept)
    assert f"a node's {small.spec.memory_per_node} do not have" in why(recomputed)
    memory = next(item.reason for item in kept.resolved if item.field == "compute.resources.memory")
    assert format_bytes(off.total) in memory
    in_fp32 = planned(
        pool_of(memory_per_node=HUGE), THREE_B, **LONG, training__gradientCheckpointing=False
    ).placement.fp32_memory
    assert kept.placement.fp32_memory == in_fp32


def test_ranks_of_a_pod_count_together() -> None:
    two = {**LONG, "distributed__processesPerNode": 2}
    rank = estimated(pool_of(memory_per_node=HUGE), on=False, source=THREE_B, **two).total
    found = planned(cpus(rank * 1.5), THREE_B, **two)
    assert found.placement.gradient_checkpointing is True
    assert planned(cpus(rank * 2.5), THREE_B, **two).placement.gradient_checkpointing is False


def test_memory_that_the_job_gives_is_what_has_room() -> None:
    roomy, fields = pool_of(memory_per_node=HUGE), {**LONG, "training__precision": "bf16"}
    off, on = (estimated(roomy, on=value, source=THREE_B, **fields).total for value in (False, True))
    little, much = (f"{round(size / (1 << 20))}Mi" for size in ((on + off) / 2, off * 1.2))
    recomputed = planned(roomy, THREE_B, **fields, compute__resources__memory=little)
    assert recomputed.placement.gradient_checkpointing is True
    assert f"compute.resources.memory's {little} do not have" in why(recomputed)
    kept = planned(roomy, THREE_B, **fields, compute__resources__memory=much)
    assert kept.placement.gradient_checkpointing is False
    assert (kept.placement.resources.memory, recomputed.placement.resources.memory) == (much, little)


def test_it_takes_no_room_from_fp32_which_a_cpu_may_be_faster_in() -> None:
    roomy = pool_of(memory_per_node=HUGE)
    asked = {**LONG, "compute__resources__memory": "60Gi"}
    on = planned(roomy, THREE_B, **asked, training__gradientCheckpointing=True).placement
    off = planned(roomy, THREE_B, **asked, training__gradientCheckpointing=False).placement
    assert on.fp32_memory
    assert off.fp32_memory
    assert off.estimate
    between = f"{(on.fp32_memory + off.fp32_memory) >> 21}Mi"
    assert off.estimate.total * HEADROOM < parse_quantity(between)
    fields = {**LONG, "compute__resources__memory": between}
    found = planned(roomy, THREE_B, **fields)
    assert found.placement.gradient_checkpointing is True
    assert "fp32" in why(found)
    assert planned(roomy, THREE_B, **fields, training__precision="bf16").placement.gradient_checkpointing is False


@pytest.mark.parametrize("source", ["hf://Qwen/Qwen2.5-1.5B-Instruct", "hf://HuggingFaceTB/SmolLM2-1.7B", THREE_B])
def test_a_plain_job_on_a_large_node_keeps_all_and_has_room_for_fp32(source: str) -> None:
    roomy = pool_of(memory_per_node=HUGE)
    found, on = planned(roomy, source), planned(roomy, source, training__gradientCheckpointing=True).placement
    assert found.placement.gradient_checkpointing is False
    assert found.placement.fp32_memory
    assert on.fp32_memory
    had_room = on.fp32_memory <= parse_quantity(on.resources.memory)
    has_room = found.placement.fp32_memory <= parse_quantity(found.placement.resources.memory)
    assert has_room or not had_room
    memory = next(item.reason for item in found.resolved if item.field == "compute.resources.memory")
    assert ("in fp32" in memory) is (has_room and had_room)


def test_a_node_with_room_for_bf16_alone_recomputes_in_fp32() -> None:
    source = "hf://Qwen/Qwen2.5-1.5B-Instruct"
    roomy = planned(pool_of(memory_per_node=HUGE), source).placement
    assert roomy.fp32_memory
    found = planned(cpus(roomy.fp32_memory * 1.05), source)
    assert found.placement.gradient_checkpointing is True
    assert found.placement.fp32_memory
    assert found.placement.fp32_memory <= parse_quantity(found.placement.resources.memory)
    assert "in fp32" in why(found)


def test_what_fits_only_with_checkpointing_is_placed_still_and_in_the_pool_that_it_was() -> None:
    fields = {"training__maxLength": 1024, "training__microBatchSize": 2}
    small, large = accelerators("24Gi"), gpu_pool_of("large", "80Gi", memory_per_node=HUGE, cost=9)
    with pytest.raises(PlanError, match="of accelerator memory, one has 24Gi"):
        planned(small, training__gradientCheckpointing=False, **fields)
    found = resolve(job_of(model__source=EIGHT_B, **fields), [small, large])
    assert found.placement.pool == "gpu"
    assert found.placement.gradient_checkpointing is True


@pytest.mark.parametrize("pool", [accelerators("80Gi"), pool_of(memory_per_node=HUGE)])
@pytest.mark.parametrize("source", ["pvc://models/mystery", "hf://google/gemma-2-9b-it"])
def test_of_a_model_whose_shape_is_not_known_nothing_is_known_to_fit(pool: Pool, source: str) -> None:
    found = planned(pool, source)
    assert found.training.hyperparameters.gradient_checkpointing == "auto"
    assert found.placement.gradient_checkpointing is True
    assert why(found) == "on: the model has no preset, and so it is not known whether all activations would fit"


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"training__gradientCheckpointing": True}, True),
        ({"training__gradientCheckpointing": False}, False),
        ({"model__source": "hf://HuggingFaceTB/SmolLM2-135M-Instruct"}, False),
        ({"method__type": "prefix-tuning"}, False),
        ({"task": "text-classification", "model__source": "pvc://models/mystery"}, False),
    ],
)
def test_where_the_training_part_says_it_the_placement_does_not(fields: dict[str, Any], value: bool) -> None:
    found = resolve(job_of(**{"model__source": THREE_B, **fields}), [pool_of(memory_per_node=HUGE)])
    assert found.training.hyperparameters.gradient_checkpointing is value
    assert found.placement.gradient_checkpointing is None
    assert "gradientCheckpointing" not in found.placement.model_dump_json(by_alias=True, exclude_none=True)
