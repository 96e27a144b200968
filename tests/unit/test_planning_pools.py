"""Where a job runs: what fits, what is chosen, and what is said when nothing does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.api.finetunejob import ResourcesSpec
from strop.api.quantities import parse_quantity
from strop.planning.inputs import PlanError, Pool
from strop.planning.pools import Needs, fit
from strop.planning.resolve import resolve
from strop_trainer.plan import PlacementPlan
from tests.support.planning import SMOLLM, gpu_pool_of, job_of, pool_of

EIGHT_B = "hf://meta-llama/Llama-3.1-8B-Instruct"


def refusal(job, pools) -> PlanError:
    with pytest.raises(PlanError) as refused:
        resolve(job, pools)
    return refused.value


def test_auto_takes_the_cheapest_that_fits() -> None:
    pools = [pool_of("dear", cost=3), pool_of("cheap", cost=1), pool_of("small", cost=0.1, memory_per_node="1Gi")]
    plan = resolve(job_of(), pools)
    assert plan.placement.pool == "cheap"
    assert any(item.field == "compute.pool" and "cost 1" in item.reason for item in plan.resolved)


@pytest.mark.parametrize("pools", [["a", "b"], ["b", "a"]])
def test_of_equal_cost_the_first_by_name_is_taken_whatever_their_order(pools: list[str]) -> None:
    assert resolve(job_of(), [pool_of(name) for name in pools]).placement.pool == "a"


def test_the_only_pool_is_not_called_the_cheapest() -> None:
    (reason,) = (item.reason for item in resolve(job_of(), [pool_of()]).resolved if item.field == "compute.pool")
    assert reason == "the only pool there is"


def test_a_pool_that_is_named_is_taken_though_a_cheaper_one_fits() -> None:
    plan = resolve(job_of(compute__pool="dear"), [pool_of("cheap", cost=0), pool_of("dear", cost=9)])
    assert plan.placement.pool == "dear"
    assert not any(item.field == "compute.pool" for item in plan.resolved)


def test_without_any_pool_the_message_says_to_create_one() -> None:
    found = refusal(job_of(), [])
    assert found.reason == "PoolNotFound"
    assert "create one" in found.message


def test_a_pool_that_is_not_there_is_answered_with_those_that_are() -> None:
    found = refusal(job_of(compute__pool="gpuu"), [pool_of("gpu"), pool_of("cpu")])
    assert (found.reason, found.message) == ("PoolNotFound", "spec.compute.pool: found gpuu, there is cpu, gpu")
    assert "create one" in refusal(job_of(compute__pool="gpu"), []).message


def test_a_pool_admits_only_its_namespaces() -> None:
    closed = pool_of("closed", namespaces=["team-b"])
    found = refusal(job_of(compute__pool="closed"), [closed, pool_of("open")])
    assert found.reason == "NamespaceNotAllowed"
    assert "team-a" in found.message
    assert "team-b" in found.message
    found = refusal(job_of(), [closed])
    assert found.reason == "NamespaceNotAllowed"
    assert "closed" in found.message
    assert resolve(job_of(), [closed, pool_of("open", cost=9)]).placement.pool == "open"
    assert resolve(job_of(), [pool_of("ours", namespaces=["team-a"])]).placement.pool == "ours"


def test_a_pod_gets_a_tenth_more_than_the_estimate_where_the_node_has_it() -> None:
    roomy, tight = pool_of("roomy", memory_per_node="8Gi"), pool_of("tight", memory_per_node="3900Mi")
    assert resolve(job_of(), [roomy]).placement.resources.memory == "4Gi"
    assert resolve(job_of(), [tight]).placement.resources.memory == "3900Mi"


def test_what_fits_nowhere_is_refused_with_the_numbers_of_each_pool() -> None:
    pools = [pool_of("small", memory_per_node="1Gi"), pool_of("smaller", memory_per_node="512Mi")]
    found = refusal(job_of(), pools)
    assert found.reason == "NoPoolFits"
    assert "small: needs 3840Mi of memory, a node has 1Gi" in found.message
    assert "smaller: needs 3840Mi of memory, a node has 512Mi" in found.message
    assert "preset smollm2-135m" in found.message
    assert "maxLength" in found.message


def test_where_export_is_what_does_not_fit_no_smaller_batch_is_advised() -> None:
    found = refusal(job_of(model__source=EIGHT_B), [pool_of("small", memory_per_node="8Gi")])
    assert "maxLength" not in found.message


def test_where_the_jobs_own_number_does_not_fit_no_smaller_batch_is_advised() -> None:
    found = refusal(job_of(compute__resources__memory="500Gi"), [pool_of("small"), pool_of("smaller")])
    assert "asks for 500Gi" in found.message
    assert "maxLength" not in found.message


def test_memory_beside_an_accelerator_is_told_as_the_nodes_own_with_what_it_is_for() -> None:
    job = job_of(model__source=EIGHT_B, method__type="qlora")
    found = refusal(job, [gpu_pool_of("l4", memory_per_node="48Gi")]).message
    assert "of the node's own memory, beside the accelerator's, to merge the adapter and export it in fp32" in found
    assert "; a node has 48Gi; without export (output.onnx.enabled: false) and merged model " in found
    assert "maxLength" not in found
    small = refusal(job, [gpu_pool_of("l4", memory_per_node="16Gi")]).message
    assert "output.onnx.enabled" not in small, "that would not help"
    bare = job_of(model__source=EIGHT_B, method__type="qlora", output__onnx__enabled=False)
    assert resolve(bare, [gpu_pool_of("l4", memory_per_node="48Gi")]).placement.pool == "l4"


@pytest.mark.parametrize(
    ("fields", "pool", "words"),
    [
        ({"compute__resources__cpu": "8"}, pool_of(), "needs 8 CPUs, a node has 4"),
        ({"compute__resources__cpu": "4001m"}, pool_of(), "needs 4001m CPUs, a node has 4"),
        ({"compute__resources__memory": "33Gi"}, pool_of(), "resources.memory asks for 33Gi, a node has 32Gi: give no"),
        ({"compute__resources__accelerators": 1}, pool_of(), "needs 1 accelerator(s), has none"),
        (
            {"model__source": EIGHT_B},
            gpu_pool_of(memory="16Gi", memory_per_node="80Gi"),
            "of accelerator memory, one has 16Gi",
        ),
    ],
)
def test_each_obstacle_is_named_with_its_numbers(fields: dict, pool: Pool, words: str) -> None:
    found = refusal(job_of(compute__pool=pool.name, **fields), [pool])
    assert found.reason == "NoPoolFits"
    assert words in found.message


def test_more_accelerators_than_one_process_uses_are_refused() -> None:
    found = refusal(job_of(compute__resources__accelerators=2), [gpu_pool_of(per_node=4)])
    assert found.reason == "Unsupported"
    assert "found 2, allowed in this version: 0, 1 (one a rank)" in found.message


def test_a_pool_with_too_few_accelerators_or_nodes_does_not_fit() -> None:
    given_ = ResourcesSpec(accelerators=4)
    needs = Needs(cpu_estimate=None, accelerator_estimate=None, pod=None, host=None, given=given_, nodes=3, ranks=4)
    assert fit(gpu_pool_of(per_node=2, max_nodes=2), needs).obstacles == (
        "needs 4 accelerators, a node has 2",
        "needs 3 nodes, a job may use 2",
    )
    assert fit(gpu_pool_of(per_node=4, max_nodes=3), needs).obstacles == ()


def test_each_rank_has_an_accelerator_and_the_pod_has_the_host_memory_of_all() -> None:
    two = {"model__source": EIGHT_B, "distributed": {"processesPerNode": 2}}
    pool = gpu_pool_of(memory="80Gi", per_node=4, memory_per_node="200Gi")
    plan = resolve(job_of(**two), [pool])
    assert (plan.placement.resources.accelerators, plan.placement.processes_per_node) == (2, 2)
    assert refusal(job_of(**two), [gpu_pool_of(memory="80Gi", memory_per_node="200Gi")]).message.endswith(
        "gpu: needs 2 accelerators, a node has 1"
    )
    found = refusal(job_of(**two, compute__resources__accelerators=1), [pool])
    assert "found 1, allowed in this version: 0, 2 (one a rank)" in found.message


def test_ranks_on_cpus_need_a_cpu_each_and_their_memory_together() -> None:
    full = {"model__source": SMOLLM, "method__type": "full"}
    one = resolve(job_of(**full), [pool_of()]).placement
    two = resolve(job_of(**full, distributed__processesPerNode=2), [pool_of()]).placement
    assert one.estimate
    assert two.estimate
    assert two.estimate.total <= one.estimate.total
    assert parse_quantity(two.resources.memory) > 2 * two.estimate.total
    assert (one.resources.shared_memory, two.resources.shared_memory) == ("1Gi", "2Gi")
    found = refusal(job_of(**full, distributed__processesPerNode=2, compute__resources__cpu="1"), [pool_of()])
    assert "needs 2 CPUs, one a rank, has 1" in found.message


def test_resources_that_are_given_are_taken() -> None:
    given_ = {"cpu": "1500m", "memory": "6Gi"}
    resources = resolve(job_of(compute__resources=given_), [pool_of()]).placement.resources
    assert (resources.cpu, resources.memory, resources.accelerators) == ("1500m", "6Gi", 0)


def test_on_an_accelerator_pool_a_pod_takes_one_and_the_host_memory_for_export() -> None:
    plan = resolve(job_of(model__source=EIGHT_B), [gpu_pool_of(memory_per_node="80Gi")])
    resources = plan.placement.resources
    assert (resources.accelerator, resources.accelerators) == ("nvidia.com/gpu", 1)
    assert parse_quantity(resources.memory) > 60 * 1024**3
    fields = {item.field: item.reason for item in plan.resolved}
    assert "beside the accelerator" in fields["compute.resources.memory"]
    assert fields["compute.resources.accelerators"]


def test_accelerators_zero_trains_on_the_cpus_of_an_accelerator_pool() -> None:
    resources = resolve(job_of(compute__resources__accelerators=0), [gpu_pool_of()]).placement.resources
    assert (resources.accelerator, resources.accelerators) == (None, 0)


def test_a_model_of_unknown_size_gets_a_whole_node_and_the_reason_says_so() -> None:
    plan = resolve(job_of(model__source="pvc://models/mystery"), [pool_of(memory_per_node="12Gi")])
    assert plan.placement.resources.memory == "12Gi"
    assert plan.placement.estimate is None
    reasons = {item.field: item.reason for item in plan.resolved}
    assert "a whole node" in reasons["compute.resources.memory"]
    assert "mystery" in reasons["compute.resources.memory"]
    assert plan.placement.resources.work_volume == "50Gi"


def test_a_model_of_unknown_size_is_refused_without_an_estimate_to_blame() -> None:
    found = refusal(job_of(model__source="pvc://models/mystery", compute__resources__cpu="64"), [pool_of()])
    assert "estimate" not in found.message


SIZES = ["1Gi", "2Gi", "4Gi", "6Gi", "16Gi", "64Gi", "256Gi"]
POOLS = st.lists(
    st.builds(
        pool_of,
        st.sampled_from("abcdefgh"),
        cost=st.sampled_from([0.0, 0.5, 1.0, 10.0]),
        memory_per_node=st.sampled_from(SIZES),
        namespaces=st.sampled_from([[], ["team-a"], ["team-b"]]),
    )
    | st.builds(
        gpu_pool_of,
        st.sampled_from("ijklmnop"),
        memory=st.sampled_from(SIZES),
        cost=st.sampled_from([0.0, 0.5, 1.0, 10.0]),
        memory_per_node=st.sampled_from(SIZES),
    ),
    max_size=6,
    unique_by=lambda pool: pool.name,
)
MODELS = st.sampled_from([EIGHT_B, "hf://HuggingFaceTB/SmolLM2-135M", "hf://Qwen/Qwen3-4B", "pvc://models/mystery"])


@given(POOLS, MODELS, st.randoms())
def test_the_chosen_pool_fits_and_no_cheaper_one_does(pools: list[Pool], source: str, random) -> None:
    job = job_of(model__source=source)
    try:
        plan = resolve(job, pools)
    except PlanError:
        for pool in pools:
            refusal(job_of(model__source=source, compute__pool=pool.name), pools)
        return
    chosen = next(pool for pool in pools if pool.name == plan.placement.pool)
    assert parse_quantity(plan.placement.resources.memory) <= parse_quantity(chosen.spec.memory_per_node)
    assert not chosen.spec.namespaces or "team-a" in chosen.spec.namespaces
    if plan.placement.resources.accelerators and plan.placement.estimate:
        assert chosen.spec.accelerator
        assert plan.placement.estimate.total <= parse_quantity(chosen.spec.accelerator.memory)
    for pool in pools:
        if pool.spec.cost < chosen.spec.cost:
            refusal(job_of(model__source=source, compute__pool=pool.name), pools)
    shuffled = random.sample(pools, len(pools))
    assert resolve(job, shuffled) == plan


@pytest.mark.parametrize("ranks", [2, 4])
def test_zero_deals_out_more_of_a_rank_with_each_stage(ranks: int) -> None:
    big = pool_of(cpu_per_node="64", memory_per_node="4Ti")
    found = {}
    for strategy in ("ddp", "zero-1", "zero-2", "zero-3"):
        shared = {"processesPerNode": ranks, "strategy": strategy}
        estimate = resolve(job_of(model__source=EIGHT_B, method__type="full", distributed=shared), [big])
        assert estimate.placement.estimate
        found[strategy] = estimate.placement.estimate
    parameters = found["ddp"].weights // 4
    assert found["zero-1"].optimizer == 12 * parameters // ranks
    assert found["zero-1"].optimizer < found["ddp"].optimizer
    assert found["zero-2"].gradients < found["zero-1"].gradients
    assert found["zero-3"].weights < found["zero-2"].weights == found["ddp"].weights
    totals = [estimate.total for estimate in found.values()]
    assert totals == sorted(totals, reverse=True)


def test_what_is_offloaded_is_in_the_pods_memory_instead_of_the_accelerators() -> None:
    pool = gpu_pool_of(memory="640Gi", per_node=2, memory_per_node="4Ti")

    def placed(**shared: str) -> PlacementPlan:
        distributed = {"processesPerNode": 2, "strategy": "zero-3", **shared}
        return resolve(job_of(model__source=EIGHT_B, method__type="full", distributed=distributed), [pool]).placement

    kept, optimizer, everything = placed(), placed(offload="optimizer"), placed(offload="all")
    on_accelerator = [found.estimate.total for found in (kept, optimizer, everything) if found.estimate]
    assert on_accelerator == sorted(on_accelerator, reverse=True)
    assert on_accelerator[0] - on_accelerator[1] > 60 * 10**9
    hosts = [parse_quantity(found.resources.memory) for found in (kept, optimizer, everything)]
    assert hosts == sorted(hosts)
    assert hosts[2] - hosts[0] > 2 * 60 * 10**9
