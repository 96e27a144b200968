"""`strop plan` and `strop estimate` as a shell meets them: what they print, and their exit codes."""

import re
from pathlib import Path
from typing import Any

import pytest

from strop.cli import machine
from strop.planning.inputs import Job, Pool
from strop.planning.resolve import resolve
from strop_trainer.plan import load_plan
from tests.support.cli import POOL, Strop, config_map, job_file, write
from tests.support.planning import manifest_of, pool_of

EIGHT_B = "hf://meta-llama/Llama-3.1-8B-Instruct"


def test_plan_as_json_is_the_plan_that_the_operator_makes(strop: Strop, tmp_path: Path) -> None:
    answer = strop("plan", job_file(tmp_path, POOL), "-o", "json")
    assert answer.code == 0
    assert load_plan(answer.out) == resolve(Job.from_resource(manifest_of()), [Pool.from_resource(POOL)])


def test_plan_on_this_machine_has_the_same_digest_as_in_a_cluster(strop: Strop, tmp_path: Path) -> None:
    answer = strop("plan", job_file(tmp_path, compute={"pool": "far-away"}), "-o", "json")
    here = load_plan(answer.out)
    there = resolve(Job.from_resource(manifest_of()), [Pool.from_resource(POOL)])
    assert here.digest == there.digest
    assert here.placement.pool == machine.NAME
    assert answer.err == (
        "note: team-a/job: spec.compute.pool: found far-away, but no ComputePool was given: planned for this machine; "
        "give the pool with --pools FILE\n"
    )


def test_plan_does_not_speak_of_pools_where_the_job_names_none(strop: Strop, tmp_path: Path) -> None:
    assert strop("plan", job_file(tmp_path)).err == ""
    assert strop("plan", job_file(tmp_path, POOL, compute={"pool": "cpu"})).err == ""


def test_pools_of_a_file_without_any_are_refused(strop: Strop, tmp_path: Path) -> None:
    file = write(tmp_path / "pools.yaml", config_map())
    answer = strop("plan", job_file(tmp_path), "--pools", file)
    assert answer.code == 78
    assert answer.err == f"--pools {file}: found ConfigMap, allowed: a file with ComputePools\n"
    empty = tmp_path / "empty.yaml"
    empty.touch()
    assert "found no object" in strop("plan", job_file(tmp_path), "--pools", empty).err


def test_a_file_of_jobs_and_pools_may_be_named_as_both(strop: Strop, tmp_path: Path) -> None:
    file = job_file(tmp_path, POOL)
    answer = strop("plan", file, "--pools", file, "-o", "json")
    assert load_plan(answer.out).placement.pool == "cpu"


def test_plan_says_what_there_is_where_no_job_is(strop: Strop, tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", POOL, config_map(), config_map("more"))
    answer = strop("plan", file)
    assert answer.code == 78
    assert answer.err == f"{file}: no FineTuneJob in it (found ComputePool, ConfigMap)\n"


@pytest.mark.parametrize("command", [["plan", "none.yaml"], ["models"], ["logs", "job"]])
def test_a_namespace_of_another_form_is_refused(strop: Strop, command: list[str]) -> None:
    answer = strop(*command, "-n", "Bad_NS")
    assert answer.code == 64
    assert answer.err == (
        "--namespace: found 'Bad_NS', allowed: 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends\n"
    )


def test_plan_prints_every_automatic_value_with_its_reason(strop: Strop, tmp_path: Path) -> None:
    answer = strop("plan", job_file(tmp_path, POOL))
    plan = load_plan(strop("plan", job_file(tmp_path, POOL), "-o", "json").out)
    assert plan.digest in answer.out
    for resolution in plan.resolved:
        assert resolution.field in answer.out
    assert "LoRA Without Regret" in answer.out
    assert "GiB = weights" in answer.out


def test_plan_takes_pools_from_another_file(strop: Strop, tmp_path: Path) -> None:
    pools = write(tmp_path / "pools.yaml", POOL)
    answer = strop("plan", job_file(tmp_path), "--pools", pools, "-o", "json")
    assert load_plan(answer.out).placement.pool == "cpu"


def test_plan_shows_all_jobs_or_the_one_that_is_asked_for(strop: Strop, tmp_path: Path) -> None:
    file = write(tmp_path / "jobs.yaml", manifest_of("one"), manifest_of("two"), POOL)
    assert strop("plan", file).out.count("sha256:") == 2
    assert "team-a/two" in strop("plan", file, "--job", "two").out
    assert "team-a/one" not in strop("plan", file, "--job", "two").out
    answer = strop("plan", file, "--job", "three")
    assert answer.code == 78
    assert "no FineTuneJob named three in it (there is one, two)" in answer.err


def test_plan_says_which_job_fits_nowhere(strop: Strop, tmp_path: Path) -> None:
    small = {**POOL, "spec": {**POOL["spec"], "memoryPerNode": "1Gi"}}
    answer = strop("plan", job_file(tmp_path, small))
    assert answer.code == 78
    assert answer.err.startswith("team-a/job: the job fits no pool")
    assert answer.err.count("\n") == 1


def test_plan_of_an_accelerator_pool_names_the_accelerator(strop: Strop, tmp_path: Path) -> None:
    accelerator = {"resourceName": "amd.com/gpu", "memory": "24Gi"}
    pool = {**POOL, "spec": {**POOL["spec"], "accelerator": accelerator}}
    assert "1 amd.com/gpu" in strop("plan", job_file(tmp_path, pool)).out


def test_a_plan_for_this_machine_says_so_where_the_job_wants_what_is_not_here(
    strop: Strop, tmp_path: Path, monkeypatch
) -> None:
    small = Pool(machine.NAME, pool_of(memory_per_node="1Gi").spec)
    monkeypatch.setattr("strop.cli.planned.this_machine", lambda: small)
    answer = strop("plan", job_file(tmp_path, compute={"pool": "gpu"}))
    assert answer.code == 78
    assert "the job asks for pool gpu, but no ComputePool was given; --pools FILE tells of" in answer.err
    monkeypatch.setattr("strop.cli.planned.this_machine", lambda: Pool(machine.NAME, pool_of().spec))
    answer = strop("plan", job_file(tmp_path, compute={"resources": {"accelerators": 1}}))
    assert answer.code == 0
    assert "spec.compute.resources.accelerators: found 1, but no ComputePool was given" in answer.err


def test_memory_below_the_estimate_is_told_with_both_numbers(strop: Strop, tmp_path: Path) -> None:
    file = job_file(tmp_path, POOL, compute={"resources": {"memory": "600Mi"}})
    (estimate,) = re.findall(r"^memory (.* GiB) = ", strop("plan", file).out, flags=re.MULTILINE)
    for command in ("plan", "validate"):
        answer = strop(command, file)
        assert answer.code == 0
        assert answer.err.startswith(
            "note: team-a/job: spec.compute.resources.memory: found 600Mi, but the estimate is "
        )
        assert "leave it out" in answer.err
    assert f"the estimate is {estimate} (by preset smollm2-135m): the pod will be killed" in strop("plan", file).err


def test_memory_beside_an_accelerator_is_held_against_what_is_needed_there(strop: Strop, tmp_path: Path) -> None:
    accelerator = {"resourceName": "nvidia.com/gpu", "memory": "800Gi"}
    big = {**POOL, "spec": {**POOL["spec"], "memoryPerNode": "900Gi"}}
    gpu = {**big, "spec": {**big["spec"], "accelerator": accelerator}}
    long = {"maxLength": 8192, "microBatchSize": 4, "gradientCheckpointing": False}
    model = {"model__source": "hf://meta-llama/Llama-3.2-1B-Instruct", "training": long}
    memory = load_plan(strop("plan", job_file(tmp_path, gpu, **model), "-o", "json").out).placement.resources.memory
    fields = {**model, "compute": {"resources": {"memory": memory}}}
    assert strop("plan", job_file(tmp_path, gpu, **fields)).err == ""
    assert "it is enough beside an accelerator" in strop("validate", job_file(tmp_path, **fields)).err
    assert f"found {memory}, but the estimate is" in strop("plan", job_file(tmp_path, big, **fields)).err
    none = {**model, "compute": {"resources": {"memory": memory, "accelerators": 0}}}
    assert f"found {memory}, but the estimate is" in strop("validate", job_file(tmp_path, **none)).err


def test_memory_that_is_enough_or_left_out_is_not_spoken_of(strop: Strop, tmp_path: Path) -> None:
    assert strop("validate", job_file(tmp_path)).err == ""
    assert strop("validate", job_file(tmp_path, compute={"resources": {"memory": "6Gi"}})).err == ""


def test_plan_of_a_model_of_unknown_size_asks_for_it(strop: Strop, tmp_path: Path) -> None:
    answer = strop("plan", job_file(tmp_path, POOL, model__source="pvc://models/mystery"))
    assert answer.code == 0
    assert answer.err == (
        "note: team-a/job: spec.model.parameters: missing: there is no preset for pvc://models/mystery, so its size "
        "must be given, such as 135M or 8B; without it there is no memory estimate, and the job takes all of a node\n"
    )


def test_estimate_needs_no_pool(strop: Strop, tmp_path: Path) -> None:
    answer = strop("estimate", job_file(tmp_path, model__source="hf://meta-llama/Llama-3.3-70B-Instruct"))
    assert answer.code == 0
    assert "preset llama-3.1-70b" in answer.out
    assert "On an accelerator" in answer.out


def test_estimate_tells_both_where_the_pool_decides_on_checkpointing(strop: Strop, tmp_path: Path) -> None:
    def totals(**fields: Any) -> tuple[str, str, str]:
        out = strop("estimate", job_file(tmp_path, model__source=EIGHT_B, **fields)).out
        (cpu, accelerator), (words,) = (
            re.findall(r"^ *total +([\d.]+ GiB) +([\d.]+ GiB)", out, flags=re.MULTILINE)[0],
            re.findall(r"gradient checkpointing (.*)$", out, flags=re.MULTILINE),
        )
        return cpu, accelerator, words

    on, off = totals(training__gradientCheckpointing=True), totals(training__gradientCheckpointing=False)
    assert (on[2], off[2]) == ("on", "off")
    assert on[1] != off[1]
    assert totals() == (
        *on[:2],
        f"on; off, it is {off[0]} on a CPU and {off[1]} on an accelerator, taken where the pool has room for that",
    )


def test_plan_says_once_what_was_decided_on_checkpointing_in_its_pool(strop: Strop, tmp_path: Path) -> None:
    accelerator = {"resourceName": "nvidia.com/gpu", "memory": "80Gi"}
    gpu = {**POOL, "spec": {**POOL["spec"], "memoryPerNode": "900Gi", "accelerator": accelerator}}
    file = job_file(tmp_path, gpu, model__source=EIGHT_B, training__maxLength=1024)
    out = strop("plan", file).out
    assert out.count("gradientCheckpointing") == 1
    plan = load_plan(strop("plan", file, "-o", "json").out)
    assert plan.placement.gradient_checkpointing is False
    (reason,) = (item.reason for item in plan.resolved if item.field == "training.gradientCheckpointing")
    (estimate,) = re.findall(r"^memory (.* GiB) = ", out, flags=re.MULTILINE)
    assert f"all activations fit: {estimate} and a tenth more of the accelerator's 80Gi" in reason
    assert reason.split(":")[0] in " ".join(out.split())


def test_estimate_of_a_model_of_unknown_size_asks_for_it(strop: Strop, tmp_path: Path) -> None:
    answer = strop("estimate", job_file(tmp_path, model__source="pvc://models/mystery"))
    assert answer.code == 78
    assert "spec.model.parameters: missing" in answer.err
    answer = strop("estimate", job_file(tmp_path, training__maxLength=100_000))
    assert answer.code == 78
    assert "spec.training.maxLength" in answer.err


def test_what_an_address_is_signed_with_is_not_shown(strop: Strop, tmp_path: Path) -> None:
    signed = {"source": "https://bucket.example/train.jsonl?X-Amz-Signature=secret", "sha256": "0" * 64}
    model = {"source": "https://hub.example/model.tar.gz?token=secret", "sha256": "0" * 64}
    file = job_file(tmp_path, dataset={"train": [signed]}, model=model | {"parameters": "135M"})
    answer = strop("plan", file)
    assert (answer.code, answer.err.count("secret")) == (0, 0)
    assert "https://bucket.example/train.jsonl" in answer.out
    assert "https://hub.example/model.tar.gz" in answer.out
    assert "secret" not in answer.out
    assert "secret" not in strop("estimate", file).out
    assert "token=secret" in strop("plan", file, "-o", "json").out, "what is run needs it"
