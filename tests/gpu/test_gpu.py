"""The trainer on a real accelerator: `make gpu`, on a machine that has one. They fail where there is none."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from strop_trainer import checkpoints
from strop_trainer.plan import Plan
from tests.support.data import write_jsonl
from tests.support.models import tiny_encoder, tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = pytest.mark.gpu


def lay_out(path: Path) -> Surroundings:
    around = Surroundings(path)
    around.write_rows()
    tiny_llama(around.volumes / "models" / "tiny")
    return around


def plan_for(*, accelerators: int = 1, **changes: Any) -> Plan:
    plan = make_plan(checkpoint={"every_steps": 2, "keep": 10}, **changes)
    resources = plan.placement.resources.model_copy(
        update={"accelerator": "nvidia.com/gpu" if accelerators else None, "accelerators": accelerators}
    )
    return plan.model_copy(update={"placement": plan.placement.model_copy(update={"resources": resources})})


def losses(around: Surroundings) -> list[float]:
    return [line["loss"] for line in around.metrics() if "loss" in line]


def final_tensors(around: Surroundings) -> dict[str, bytes]:
    found = checkpoints.load_newest(around.work / "checkpoints", {})
    assert found is not None
    assert found.step == 6
    return {name: tensor.numpy().tobytes() for name, tensor in found.tensors.items()}


def test_it_learns_as_on_the_cpu(tmp_path: Path) -> None:
    without = {"method": {"lora": {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}}}
    there, here = lay_out(tmp_path / "gpu"), lay_out(tmp_path / "cpu")
    on_gpu, on_cpu = there.run(plan_for(**without)), here.run(plan_for(accelerators=0, **without))
    assert on_gpu.code == 0, on_gpu
    assert on_cpu.code == 0, on_cpu
    assert "on cuda" in on_gpu.output
    assert "on cpu" in on_cpu.output
    assert losses(there) == pytest.approx(losses(here), rel=1e-3)


def test_from_a_checkpoint_it_ends_as_without_an_interruption(tmp_path: Path) -> None:
    straight, again = lay_out(tmp_path / "straight"), lay_out(tmp_path / "again")
    assert straight.run(plan_for()).code == 0
    (again.work / "checkpoints").mkdir(parents=True)
    early = min((straight.work / "checkpoints").iterdir(), key=lambda folder: folder.name)
    shutil.copytree(early, again.work / "checkpoints" / early.name)
    ended = again.run(plan_for())
    assert ended.code == 0, ended
    assert "goes on after step 2" in ended.output
    assert final_tensors(again) == final_tensors(straight)


@pytest.mark.parametrize("method", ["full", "dora", "qlora", "ia3", "prompt-tuning"])
def test_each_method_trains_there(tmp_path: Path, method: str) -> None:
    around = lay_out(tmp_path)
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
    options: dict[str, Any] = {"type": method, "lora": lora if method in {"dora", "qlora"} else None}
    if method == "prompt-tuning":
        options["virtual_tokens"] = 4
    packing = {"packing": method != "prompt-tuning"}
    # Method full has no adapter: what it publishes is the merged model.
    artifact = {"onnx": [], "merged": method == "full"}
    ended = around.run(plan_for(method=options, hyperparameters=packing, artifact=artifact))
    assert ended.code == 0, ended
    assert "on cuda" in ended.output
    index = json.loads((around.registry / "tuned" / "index.json").read_text())
    assert index["versions"], index


@pytest.mark.parametrize("method", ["lora", "qlora", "ia3"])
def test_a_model_with_a_head_for_labels_trains_there(tmp_path: Path, method: str) -> None:
    around = Surroundings(tmp_path)
    rows = [
        {"text": f"the {colour} fox {number}", "label": colour} for number in range(16) for colour in ("red", "blue")
    ]
    write_jsonl(around.volumes / "data" / "train.jsonl", rows[8:])
    write_jsonl(around.volumes / "data" / "held.jsonl", rows[:8])
    tiny_encoder(around.volumes / "models" / "tiny", "bert")
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
    plan = plan_for(
        task="text-classification",
        method={"type": method, "lora": lora if method != "ia3" else None},
        hyperparameters={"packing": False, "precision": "fp32"},
        artifact={"onnx": ["fp32"]},
    )
    ended = around.run(plan)
    assert ended.code == 0, ended
    training = json.loads((around.registry / "tuned" / "1" / "training.json").read_text())
    assert training["ranks"][0]["devicePeakBytes"] > 0
    assert ended.message
    assert ended.message.published
    assert [proof.passed for proof in ended.message.published.proofs] == [True]
