"""Models whose architecture the ONNX builder lacks: tuned and published, without ONNX where it is a default."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from strop_trainer.exit_codes import ExitCode
from strop_trainer.registry import verify
from tests.support.models import tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = pytest.mark.trainer

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "decoder_sparse_step": 1},
}


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    found = Surroundings(tmp_path)
    found.write_rows()
    return found


def folders(version: Path) -> set[str]:
    return {path.name for path in version.iterdir() if path.is_dir()}


@pytest.mark.parametrize(("method", "published"), [("lora", {"adapter"}), ("full", {"merged"})])
def test_onnx_that_was_not_asked_for_is_left_out_with_a_note(
    around: Surroundings, method: str, published: set[str]
) -> None:
    tiny_llama(around.volumes / "models" / "tiny", architecture="olmo2")
    rate = {"learning_rate": 1e-2 if method == "lora" else 3e-3}
    plan = make_plan(
        method={"type": method, "lora": LORA if method == "lora" else None},
        artifact={"onnx": ["fp32", "int4"]},
        hyperparameters=rate,
    )
    ended = around.run(plan)
    assert ended.code == 0, ended.output + ended.errors
    assert "note: no ONNX is published, which the job does not ask for: found architecture Olmo2" in ended.output
    version = around.registry / "tuned" / "1"
    assert verify(version) == []
    assert folders(version) == published
    assert ended.message
    assert ended.message.published
    assert ended.message.published.metrics_tuned["eval_loss"] < ended.message.published.metrics_base["eval_loss"]
    written = json.loads((version / "training.json").read_text())
    assert written["planDigest"] == plan.digest
    assert written["plan"]["artifact"]["onnx"] == ["fp32", "int4"], "the plan is told as it was given"
    assert "- onnx\n" not in (version / "README.md").read_text()


def test_onnx_that_was_asked_for_is_refused_before_training(around: Surroundings) -> None:
    tiny_llama(around.volumes / "models" / "tiny", architecture="olmo2")
    ended = around.run(make_plan(artifact={"onnx": ["fp32"], "onnx_required": True}))
    assert ended.code == ExitCode.BAD_CONFIGURATION
    assert ended.message
    assert ended.message.stage == "check"
    assert "found architecture Olmo2ForCausalLM, ONNX export supports" in ended.message.message


@pytest.mark.parametrize("architecture", EXPERTS)
def test_experts_are_adapted_as_other_layers_are(around: Surroundings, architecture: str) -> None:
    tiny_llama(around.volumes / "models" / "tiny", architecture=architecture, **EXPERTS[architecture])
    ended = around.run(make_plan(method={"lora": LORA}, artifact={"onnx": ["fp32"]}))
    assert ended.code == 0, ended.output + ended.errors
    with safe_open(around.registry / "tuned" / "1" / "adapter" / "adapter_model.safetensors", "pt") as adapter:
        layers = {name.rpartition(".lora_")[0] for name in adapter.keys()}  # noqa: SIM118 - no mapping
    assert {"base_model.model.model.layers.0.mlp.experts", "base_model.model.model.layers.0.mlp.gate"} <= layers


@pytest.mark.parametrize("architecture", EXPERTS)
def test_experts_are_not_quantized_and_qlora_is_refused_for_them(around: Surroundings, architecture: str) -> None:
    tiny_llama(around.volumes / "models" / "tiny", architecture=architecture, **EXPERTS[architecture])
    ended = around.run(make_plan(method={"type": "qlora", "lora": LORA}))
    assert ended.code == ExitCode.BAD_CONFIGURATION
    assert ended.message
    assert "method.type: found qlora for a model with experts" in ended.message.message
