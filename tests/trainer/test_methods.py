"""Each method from rows to a published version: trained, measured, merged where it can be, and proven."""

import json
from pathlib import Path
from typing import Any

import pytest

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.methods import load_model, load_tokenizer
from strop_trainer.plan import Plan
from strop_trainer.registry import verify
from tests.support.models import tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = pytest.mark.trainer

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "full": ({"type": "full", "lora": None}, 3e-3),
    "lora": ({"lora": LORA}, 1e-2),
    "rslora": ({"lora": {**LORA, "use_rslora": True}}, 1e-2),
    "lora-plus": ({"lora": {**LORA, "plus_ratio": 4.0}}, 5e-3),
    "pissa": ({"lora": {**LORA, "alpha": 4, "initialization": "pissa"}}, 3e-3),
    "olora": ({"lora": {**LORA, "alpha": 4, "initialization": "olora"}}, 3e-3),
    "dora": ({"type": "dora", "lora": LORA}, 1e-2),
    "qlora": ({"type": "qlora", "lora": LORA}, 1e-2),
    "loftq": ({"type": "qlora", "lora": {**LORA, "initialization": "loftq"}}, 1e-2),
    "ia3": ({"type": "ia3", "lora": None}, 3e-2),
    "prompt-tuning": ({"type": "prompt-tuning", "lora": None, "virtual_tokens": 5}, 3e-2),
    "prefix-tuning": ({"type": "prefix-tuning", "lora": None, "virtual_tokens": 5}, 3e-2),
    "p-tuning": ({"type": "p-tuning", "lora": None, "virtual_tokens": 5}, 1e-2),
}
PROMPTS = ("prompt-tuning", "prefix-tuning", "p-tuning")


def plan_of(name: str, **changes: Any) -> Plan:
    method, rate = METHODS[name]
    prompts = name in PROMPTS
    changes["hyperparameters"] = {
        "learning_rate": rate,
        "packing": not prompts,
        "max_steps": 8,
        **changes.get("hyperparameters", {}),
    }
    changes.setdefault("artifact", {"onnx": [] if prompts else ["fp32"]})
    return make_plan(method=method, **changes)


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    found = Surroundings(tmp_path)
    found.write_rows()
    tiny_llama(found.volumes / "models" / "tiny")
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_from_rows_to_a_proven_version(around: Surroundings, name: str, precision: str) -> None:
    ended = around.run(plan_of(name, hyperparameters={"precision": precision}))
    assert ended.code == 0, ended.output + ended.errors
    assert ended.message
    published = ended.message.published
    assert published
    assert published.metrics_tuned["eval_loss"] < published.metrics_base["eval_loss"]
    version = around.registry / "tuned" / "1"
    assert verify(version) == []
    folders = {path.name for path in version.iterdir() if path.is_dir()}
    if name in PROMPTS:
        assert folders == {"adapter"}
        assert "adapter: loaded again, its logits differ by" in ended.output
    elif name == "full":
        assert folders == {"onnx"}
    else:
        assert folders == {"adapter", "onnx"}
    if name not in PROMPTS:
        assert [proof.passed for proof in published.proofs] == [True]
    moved = name in {"qlora", "loftq", "pissa", "olora"}
    adapter = json.loads((version / "proof.json").read_text())["adapter"]
    assert (adapter is None) == (moved or name == "full")
    if adapter is not None:
        # In fp32, also what was trained in half precision, whose rounding is some hundredths.
        assert adapter["logitDifference"] < 1e-4 < adapter["limit"] == 1e-3
    if moved:
        tuned = published.metrics_tuned
        assert abs(tuned["eval_loss_merged"] - tuned["eval_loss"]) < 0.1
    assert "Warning" not in ended.errors, ended.errors


@pytest.mark.parametrize("layer", ["lm_head", "embed_tokens", "model.embed_tokens"])
@pytest.mark.parametrize("field", ["target_modules", "modules_to_save"])
def test_an_end_that_shares_its_weights_with_the_other_is_not_adapted(tmp_path: Path, field: str, layer: str) -> None:
    method = {"lora": {**LORA, "target_modules": ["q_proj"], field: ["v_proj", layer]}}
    plan = make_plan(method=method).training
    tied, untied = tiny_llama(tmp_path / "tied"), tiny_llama(tmp_path / "untied", tie_word_embeddings=False)
    name = {"target_modules": "targetModules", "modules_to_save": "modulesToSave"}[field]
    with pytest.raises(TrainerError, match=rf"method\.lora\.{name}: found .*{layer}, which shares its") as refused:
        load_model(tied, plan, load_tokenizer(tied))
    assert refused.value.exit_code is ExitCode.BAD_CONFIGURATION
    assert load_model(untied, plan, load_tokenizer(untied)).trainable_parameters
