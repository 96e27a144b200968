"""`strop validate` as a shell meets it: what it prints, and its exit codes."""

import re
from pathlib import Path
from typing import Any

import pytest

from strop_trainer.exit_codes import ExitCode
from tests.support.cli import POOL, Answer, Strop, config_map, job_file, write
from tests.support.planning import manifest_of


def test_validate_says_what_is_valid(strop: Strop, tmp_path: Path) -> None:
    answer = strop("validate", job_file(tmp_path, POOL))
    assert answer == Answer(0, f"{tmp_path}/job.yaml: valid (2 resources)\n", "")


def test_validate_says_what_is_wrong_on_the_error_stream(strop: Strop, tmp_path: Path) -> None:
    answer = strop("validate", job_file(tmp_path, method__lora__rank=0))
    assert (answer.code, answer.out) == (78, "")
    assert answer.err == f"{tmp_path}/job.yaml: spec.method.lora.rank: found 0, allowed: a whole number, 1 to 1024\n"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"model__source": "hf://allenai/OLMo-2-1124-7B", "output": {"onnx": {"enabled": True}}},
            "spec.output.onnx.enabled: found true, allowed for Olmo2ForCausalLM: false",
        ),
        ({"model__source": "hf://microsoft/Phi-3-small-8k-instruct"}, "it needs remote code"),
        ({"training__maxLength": 9000, "model__source": "hf://HuggingFaceTB/SmolLM2-135M"}, "allowed: up to 8192"),
    ],
)
def test_validate_refuses_what_planning_refuses_without_a_pool(
    strop: Strop, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    answer = strop("validate", job_file(tmp_path, **fields))
    assert answer.code == ExitCode.BAD_CONFIGURATION
    assert answer.out == ""
    assert re.search(rf"^team-a/job: .*{re.escape(words)}", answer.err)


def test_validate_takes_a_job_for_a_pool_that_is_not_here(strop: Strop, tmp_path: Path) -> None:
    assert strop("validate", job_file(tmp_path, compute={"pool": "far-away"})).code == 0


def test_validate_refuses_a_file_without_a_resource_of_strop(strop: Strop, tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", config_map())
    answer = strop("validate", file)
    assert (answer.code, answer.out) == (78, "")
    assert answer.err == f"{file}: no resource of strop.dev in it (found ConfigMap)\n"


def test_validate_of_a_file_of_another_sort_says_so(strop: Strop, tmp_path: Path) -> None:
    answer = strop("validate", write(tmp_path / "values.yaml", {"image": {"tag": "v1"}}))
    assert answer.code == 78
    assert "no resource of strop.dev in it (found an object without kind)" in answer.err


def test_validate_counts_no_file_as_valid_that_has_nothing_to_check(strop: Strop, tmp_path: Path) -> None:
    other = write(tmp_path / "rows.yaml", config_map())
    job = write(tmp_path / "job.yaml", manifest_of())
    answer = strop("validate", other, job)
    assert (answer.code, answer.out) == (0, f"{job}: valid (1 resource)\n")
    assert answer.err == f"note: {other}: no resource of strop.dev in it (found ConfigMap)\n"


def test_validate_tells_for_which_kind_of_pool_memory_is_too_little(strop: Strop, tmp_path: Path) -> None:
    def said(command: str, memory: str, *pools: dict[str, Any]) -> str:
        return strop(command, job_file(tmp_path, *pools, compute={"resources": {"memory": memory}})).err

    both = said("validate", "600Mi")
    on_cpus, beside, needed = re.findall(r"([\d.]+) GiB on CPUs, ([\d.]+) GiB beside .* give (\w+) or", both)[0]
    assert float(beside) < float(on_cpus)
    assert f"give {needed} or" in said("plan", "600Mi", POOL), "validate advises what plan does"
    between = said("validate", "3Gi")
    assert f"the estimate is {on_cpus} GiB on CPUs (by" in between
    assert f"would probably be killed for want of memory there; give {needed} or leave it out" in between
    assert between.endswith(f"; it is enough beside an accelerator ({beside} GiB)\n")
    assert said("validate", needed) == ""
