"""The Plan as a whole: what it takes over, what its digest covers, and that it can be read again."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.api.quantities import GIB, parse_quantity
from strop.planning.inputs import Job, PlanError, PlanSettings, Pool
from strop.planning.resolve import resolve
from strop_trainer.plan import load_plan
from tests.support.planning import gpu_pool_of, job_of, manifest_of, pool_of

OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "training__learningRate": st.floats(1e-6, 1e-1),
    "training__maxSteps": st.integers(1, 10_000),
    "training__maxLength": st.integers(16, 2048),
    "training__microBatchSize": st.integers(1, 8),
    "training__seed": st.integers(0, 2**32 - 1),
    "training__packing": st.booleans(),
    "method__lora__rank": st.integers(1, 256),
    "method__lora__dropout": st.floats(0, 0.9),
    "dataset__maxRows": st.integers(2, 10**6),
    "dataset__validationSplit": st.floats(0.01, 0.5),
    "evaluation__minimum": st.dictionaries(st.sampled_from(["exact_match", "token_accuracy"]), st.floats(0, 1)),
    "checkpoint__keep": st.integers(1, 10),
    "output__merged": st.booleans(),
}
FIELDS = st.fixed_dictionaries({}, optional=OPTIONS)
BIG = pool_of("big", memory_per_node="1Ti")


@given(FIELDS)
def test_resolving_twice_gives_the_same_plan(fields: dict[str, Any]) -> None:
    assert resolve(job_of(**fields), [BIG]) == resolve(job_of(**fields), [BIG])


@given(FIELDS)
def test_a_plan_can_be_read_again_as_it_was(fields: dict[str, Any]) -> None:
    plan = resolve(job_of(**fields), [BIG])
    assert load_plan(plan.model_dump_json(by_alias=True, exclude_none=True)) == plan


@given(FIELDS, st.randoms())
def test_the_digest_does_not_depend_on_the_order_of_keys(fields: dict[str, Any], order: random.Random) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            keys = order.sample(list(value), len(value))
            return {key: shuffled(value[key]) for key in keys}
        return value

    manifest = manifest_of(**fields)
    again = resolve(Job.from_resource(shuffled(manifest)), [BIG])
    assert again.digest == resolve(Job.from_resource(manifest), [BIG]).digest


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"name": "other-name"},
        {"namespace": "team-b"},
        {"compute__pool": "big"},
        {"compute__resources": {"cpu": "1", "memory": "16Gi"}},
        {"compute__image": "registry.example/trainer:2"},
        {"output__model": "other"},
        {"output__claim": {"name": "other"}},
        {"output__aliases": ["candidate"]},
        {"credentials": {"name": "token"}},
        {"checkpoint__size": "99Gi"},
        {"suspend": True},
        {"activeDeadlineSeconds": 60},
        {"backoffLimit": 0},
    ],
)
def test_the_digest_does_not_depend_on_where_a_job_runs(elsewhere: dict[str, Any]) -> None:
    assert resolve(job_of(**elsewhere), [BIG]).digest == resolve(job_of(), [BIG]).digest


@pytest.mark.parametrize("pools", [[BIG], [gpu_pool_of()], [pool_of("other", cost=9, image="trainer:3"), BIG]])
def test_the_digest_does_not_depend_on_the_pools(pools: list[Pool]) -> None:
    assert resolve(job_of(), pools).training == resolve(job_of(), [BIG]).training


@pytest.mark.parametrize(
    "other",
    [
        {"training__seed": 1},
        {"training__learningRate": 1e-4},
        {"method__lora__rank": 2},
        {"model__source": "pvc://base-models/other-135m"},
        {"dataset__train": [{"source": "configmap://rows/other.jsonl"}]},
        {"output__merged": True},
        {"evaluation__minimum": {"exact_match": 0.1}},
    ],
)
def test_the_digest_depends_on_what_is_computed(other: dict[str, Any]) -> None:
    assert resolve(job_of(**other), [BIG]).digest != resolve(job_of(), [BIG]).digest


def test_the_digest_of_a_plain_job_is_what_it_was() -> None:
    # Changes with any automatic value or default: a release that changes it says so, since it starts runs anew.
    assert resolve(job_of(), [BIG]).digest == (
        "sha256:c1aa54d02281b01bc82587efcc3d479deac5b06c3c27ff0e9062dc958fc409c3"
    )


@given(FIELDS)
def test_every_automatic_value_has_a_reason_and_is_the_value_in_the_plan(fields: dict[str, Any]) -> None:
    plan = resolve(job_of(**fields), [BIG])
    document = plan.model_dump(by_alias=True)
    found = {item.field: item for item in plan.resolved}
    assert len(found) == len(plan.resolved)
    given_ = {name.replace("__", ".") for name in fields}
    for name, item in found.items():
        assert item.reason
        assert name not in given_
        part, _, rest = name.partition(".")
        if part == "training":
            assert document["training"]["hyperparameters"][rest] == item.value
        elif part == "evaluation":
            value = document["training"]["evaluation"][rest]
            assert value == item.value or (rest, value, item.value) == ("everySteps", None, "never")
    for name in document["training"]["hyperparameters"].keys() - {"optimizer", "epochs", "maxSteps", "preferenceBeta"}:
        assert f"training.{name}" in given_ | found.keys()


def test_claims_and_config_maps_are_those_of_the_sources_each_once() -> None:
    plan = resolve(
        job_of(
            dataset__train=[
                {"source": "pvc://zeta/a.jsonl"},
                {"source": "configmap://rows/a.jsonl"},
                {"source": "configmap://rows/b.jsonl"},
                {"source": "hf://datasets/owner/name/c.jsonl"},
            ],
            dataset__validation=[{"source": "configmap://held/d.jsonl"}],
        ),
        [BIG],
    )
    assert plan.placement.claims == ["base-models", "zeta"]
    assert plan.placement.config_maps == ["held", "rows"]


def test_sources_keep_revision_and_hash() -> None:
    plan = resolve(
        job_of(
            model={"source": "hf://Qwen/Qwen3-8B", "revision": "abc"},
            dataset__train=[{"source": "https://data.example/rows.jsonl", "sha256": "0" * 64}],
        ),
        [BIG],
    )
    assert plan.training.model.revision == "abc"
    assert plan.training.dataset.train[0].sha256 == "0" * 64


def test_the_image_is_the_jobs_else_the_pools_else_the_installations() -> None:
    settings = PlanSettings(image="installation:1")
    with_image = pool_of("big", memory_per_node="1Ti", image="pool:1")
    assert resolve(job_of(compute__image="job:1"), [with_image], settings).placement.image == "job:1"
    assert resolve(job_of(), [with_image], settings).placement.image == "pool:1"
    assert resolve(job_of(), [BIG], settings).placement.image == "installation:1"
    assert resolve(job_of(), [BIG]).placement.image is None


def test_output_is_named_after_the_job_and_goes_to_the_default_claim() -> None:
    output = resolve(job_of("support-bot"), [BIG], PlanSettings(default_claim="registry")).placement.output
    assert (output.model, output.claim, output.aliases) == ("support-bot", "registry", [])
    given_ = {"model": "bot", "claim": {"name": "own"}, "aliases": ["best"]}
    output = resolve(job_of(output=given_), [BIG]).placement.output
    assert (output.model, output.claim, output.aliases) == ("bot", "own", ["best"])


def test_a_job_whose_name_cannot_be_a_models_is_told_so() -> None:
    with pytest.raises(PlanError, match=r"metadata\.name: found my\.job") as refused:
        resolve(job_of("my.job"), [BIG])
    assert refused.value.reason == "Invalid"
    assert resolve(job_of("my.job", output__model="fine"), [BIG]).placement.output.model == "fine"


def test_credentials_and_work_volume_are_placed() -> None:
    placement = resolve(job_of(credentials={"name": "token"}, checkpoint={"size": "7Gi"}), [BIG]).placement
    assert placement.secret == "token"
    assert placement.resources.work_volume == "7Gi"


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz"])
def test_an_archive_on_a_claim_is_unpacked_on_the_work_volume(suffix: str) -> None:
    hint = {"model__parameters": "1B"}
    folder, archive = (
        resolve(job_of(model__source=f"pvc://models/thing{end}", **hint), [BIG]).placement.resources.work_volume
        for end in ("", suffix)
    )
    assert parse_quantity(archive) >= parse_quantity(folder) + 3 * GIB


def test_what_a_newer_schema_admits_is_refused_here_too() -> None:
    job = job_of()
    with pytest.raises(PlanError) as refused:
        resolve(Job(job.namespace, job.name, job.spec.model_copy(update={"task": "painting"})), [BIG])
    assert refused.value.reason == "Unsupported"
    assert "spec.task: found painting" in refused.value.message


def test_a_resource_of_another_schema_is_refused_with_its_field() -> None:
    with pytest.raises(PlanError) as refused:
        Job.from_resource(manifest_of(quantumSpeed=9))
    assert refused.value.reason == "Invalid"
    assert refused.value.message.startswith("spec.quantumSpeed: unknown field")
    with pytest.raises(PlanError, match=r"ComputePool p: spec\.cpuPerNode: missing"):
        Pool.from_resource({"metadata": {"name": "p"}, "spec": {"memoryPerNode": "1Gi"}})


def test_a_resource_as_the_server_gives_it_is_read() -> None:
    job = Job.from_resource(
        {
            "metadata": {"name": "j", "uid": "u", "managedFields": []},
            "spec": manifest_of()["spec"],
            "status": {"new": 1},
        }
    )
    assert (job.namespace, job.name) == ("default", "j")
    pool = Pool.from_resource({"metadata": {"name": "p"}, "spec": {"cpuPerNode": 2, "memoryPerNode": "1Gi"}})
    assert (pool.name, pool.spec.cpu_per_node) == ("p", "2")


PINNED = "12fd25f77366fa6b3b4b768ec3050bf629380bac"


@pytest.mark.parametrize(
    ("model", "revision", "shown"),
    [
        ({"source": "hf://HuggingFaceTB/SmolLM2-135M-Instruct"}, PINNED, PINNED),
        ({"source": "hf://HuggingFaceTB/SmolLM2-135M-Instruct", "revision": "main"}, "main", None),
        ({"source": "pvc://claim/SmolLM2-135M-Instruct"}, None, None),
        ({"source": "hf://owner/unknown-1B"}, None, "main"),
    ],
    ids=["pinned", "overridden", "folder", "unknown"],
)
def test_a_presets_pin_is_the_revision_unless_the_job_says_one(
    model: dict[str, str], revision: str | None, shown: str | None
) -> None:
    plan = resolve(job_of(model=model), [BIG])
    assert plan.training.model.revision == revision
    lines = [item for item in plan.resolved if item.field == "model.revision"]
    assert [item.value for item in lines] == ([shown] if shown else [])
    assert all(("pinned by preset smollm2-135m" in item.reason) == (revision == PINNED) for item in lines)
