"""`strop plan` shows what a job gives beside what Strop chose."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from strop.planning.chooser import FIXED
from strop_trainer.plan import TrainingPlan
from tests.support.cli import runner
from tests.support.paths import REPOSITORY
from tests.support.planning import manifest_of

EVERY_OPTION = REPOSITORY / "examples" / "every-option.yaml"
POOLS = REPOSITORY / "examples" / "pools.yaml"


def rows(text: str) -> dict[str, tuple[str, str]]:
    """Return field → value and reason, of the lines of a plan's table that have all three."""
    found = re.findall(r"^ ([a-z]\S*) {2,}(\S.*?) {2,}(\S.*?) *$", text, flags=re.M)
    return {field: (value, reason) for field, value, reason in found}


def test_each_given_value_is_shown_as_given(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    answer = runner(monkeypatch, capfd)("plan", str(EVERY_OPTION), "--pools", str(POOLS))
    shown = rows(answer.out)
    given = yaml.safe_load(EVERY_OPTION.read_text(encoding="utf-8"))["spec"]["training"]
    assert {field for field in shown if field.startswith("training.")} == {f"training.{name}" for name in given}
    assert shown["training.learningRate"] == ("0.001", "given")
    assert shown["training.deterministic"] == ("true", "given")
    assert shown["dataset.train[0].source"] == ("pvc://team-data/support/train.jsonl", "given")
    assert shown["evaluation.minimum.exact_match"] == ("0.5", "given")
    assert shown["output.onnx.precisions"] == ("fp32, int4", "given")
    assert shown["compute.resources.memory"] == ("6Gi", "given")


def leaves(part: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each value of a plan, of those that are not set as well."""
    if isinstance(part, dict) and part and not path.endswith((".columns", ".minimum", ".maximum")):
        for name, inner in part.items():
            yield from leaves(inner, f"{path}.{name}".removeprefix("."))
    else:
        yield path


OTHERWISE = {
    "method.virtualTokens": "method.prompt.virtualTokens",
    "training.optimizer": "optimizer",
    "distributed.worldSize": "distributed.processesPerNode",
    "output.onnx": "output.onnx.enabled",
    "output.onnxForm": "output.onnx.form",
}
NOT_SET_BY_A_JOB = {"output.onnxEncoder", "output.onnxRequired"}
"""By the model, and by whether the job says anything of ONNX."""
ONE_OF = {"training.maxSteps": "training.epochs", "dataset.validation": "dataset.validationSplit"}
ELSEWHERE = {
    "model.sha256": "of https:// alone, which asks for it",
    "method.lora": "of other methods",
    "method.virtualTokens": "of other methods",
    "training.preferenceBeta": "of task preference",
    "output.onnxForm": "where ONNX is exported",
}
"""Leaf → where it has a value, so that it needs no line where it has none."""


@pytest.mark.parametrize("method", ["full", "lora", "qlora", "dora", "ia3", "prompt-tuning"])
@pytest.mark.parametrize("task", ["chat", "text-classification", "preference", "text-generation"])
def test_every_value_of_a_plan_has_a_line(
    method: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if method == "prompt-tuning" and task == "text-classification":
        method = "lora"
    file = tmp_path / "job.yaml"
    job = manifest_of(task=task, method__type=method, model__source="hf://HuggingFaceTB/SmolLM2-135M-Instruct")
    file.write_text(yaml.safe_dump(job), encoding="utf-8")
    strop = runner(monkeypatch, capfd)
    shown = set(rows(strop("plan", str(file)).out))
    training = json.loads(strop("plan", str(file), "-o", "json").out)["training"]
    whole = TrainingPlan.model_validate(training).model_dump(by_alias=True)
    whole["training"], whole["output"] = whole.pop("hyperparameters"), whole.pop("artifact")
    for leaf in leaves(whole):
        name = leaf.partition(".proof.")[0] + "?" if ".proof." in leaf else leaf
        value = dig(whole, leaf)
        if leaf in NOT_SET_BY_A_JOB or (leaf in ELSEWHERE and value is None):
            continue
        if leaf == "model.chatTemplate" and task in {"text-classification", "text-generation"}:
            continue
        if name == "output?":
            assert "proof" in shown or not whole["output"]["onnx"]
            continue
        line = OTHERWISE.get(leaf, leaf)
        assert any(field == line or field.startswith(f"{line}[") for field in shown) or ONE_OF.get(leaf) in shown, leaf
    assert {"optimizer"} <= shown
    assert ("quantization" in shown) == (method == "qlora")


def dig(part: Any, path: str) -> Any:
    for step in path.split("."):
        part = part[step]
    return part


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"model__source": "hf://meta-llama/Llama-3.1-8B-Instruct"},
            "model: preset llama-3.1-8b; licence: Llama 3.1 Community License; its chat template: The system",
        ),
        (
            {"model__source": "hf://Qwen/Qwen3-0.6B", "task": "text-generation"},
            "model: preset qwen3-0.6b; licence: Apache-2.0\n",
        ),
        ({"model__source": "hf://owner/thing-1B"}, "'thing-1B', 1B; its licence is not known here\n"),
    ],
)
def test_what_is_known_of_the_model_has_a_line(
    fields: dict[str, Any],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "job.yaml"
    fields |= {"training__maxLength": 64, "training__gradientCheckpointing": True}
    file.write_text(yaml.safe_dump(manifest_of(**fields)), encoding="utf-8")
    pools = tmp_path / "pools.yaml"
    spec = {"cpuPerNode": "8", "memoryPerNode": "256Gi"}
    pool = {"apiVersion": "strop.dev/v1alpha1", "kind": "ComputePool", "metadata": {"name": "big"}, "spec": spec}
    pools.write_text(yaml.safe_dump(pool), encoding="utf-8")
    assert words in runner(monkeypatch, capfd)("plan", str(file), "--pools", str(pools)).out


def test_lines_stand_together_by_the_part_of_the_spec_that_they_are_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(manifest_of(method__type="qlora", training__seed=1)), encoding="utf-8")
    text = runner(monkeypatch, capfd)("plan", str(file)).out
    parts = [re.split(r"[.\[]", field)[0] for field in re.findall(r"^ ([a-z]\S*)  ", text, flags=re.M)]
    parts = [FIXED.get(part, part) for part in parts]
    assert len([part for part, before in zip(parts, ["", *parts], strict=False) if part != before]) == len(set(parts))
    assert parts[:2] == ["task", "model"]


def test_a_field_is_either_given_or_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(manifest_of(compute={"pool": "far-away"})), encoding="utf-8")
    text = runner(monkeypatch, capfd)("plan", str(file)).out
    fields = re.findall(r"^ ([a-z]\S*)  ", text, flags=re.M)
    assert len(fields) == len(set(fields))
    assert rows(text)["compute.pool"][0] == "this-machine", "without a pool file, the job's pool does not count"
    assert rows(text)["task"][1] == "given"


def test_a_long_text_is_shown_by_its_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    template = "{% for m in messages %}\n{{ m.content }}\n{% endfor %}"
    file.write_text(yaml.safe_dump(manifest_of(model__chatTemplate=template)), encoding="utf-8")
    assert rows(runner(monkeypatch, capfd)("plan", str(file)).out)["model.chatTemplate"] == (
        "{% for m in messages %} …",
        "given",
    )
