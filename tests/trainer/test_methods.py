"""Each method from rows to a published version: trained, measured, merged where it can be, and proven."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.methods import load_model, load_tokenizer
from strop_trainer.methods.loading import LoadedModel
from strop_trainer.plan import Plan
from strop_trainer.ranks.sharing import optimisation_of
from strop_trainer.ranks.team import Team
from strop_trainer.registry import verify
from strop_trainer.schedule import Schedule
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


def check_adapter(name: str, adapter: Path) -> None:
    """Check that what is published is of its method, and has learnt in each of its parts."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    kinds = {"ia3": "IA3", "prompt-tuning": "PROMPT_TUNING", "prefix-tuning": "PREFIX_TUNING", "p-tuning": "P_TUNING"}
    assert config["peft_type"] == kinds.get(name, "LORA")
    if name == "ia3":
        assert len(tensors) == 2 * 3
        assert all((vector != 1).any() for vector in tensors.values())
    if name in kinds:
        return
    assert config["use_dora"] == (name == "dora")
    assert config["use_rslora"] == (name == "rslora")
    # What started elsewhere is saved as the change, of twice the rank.
    doubled = 2 if name in {"pissa", "olora", "loftq"} else 1
    assert config["r"] == LORA["rank"] * doubled
    layers = 2 * 7
    parts = {
        part: [value for key, value in tensors.items() if f".{part}" in key]
        for part in ("lora_A", "lora_B", "lora_magnitude_vector")
    }
    assert [len(found) for found in parts.values()] == [layers, layers, layers if name == "dora" else 0]
    assert all(value.abs().max() > 0 for value in parts["lora_B"])
    assert {value.shape[0] for value in parts["lora_A"]} == {config["r"]}


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
    proof = json.loads((version / "proof.json").read_text())
    adapter, merged = proof["adapter"], proof["merged"]
    assert (adapter is None) == (moved or name == "full")
    if adapter is not None:
        # In fp32, also what was trained in half precision, whose rounding is some hundredths.
        assert adapter["logitDifference"] < 1e-4 < adapter["limit"] == 1e-3
    tuned = published.metrics_tuned
    assert (merged is None) == (name == "full" or name in PROMPTS)
    if merged is not None:
        assert merged["logitDifference"] < 1e-4
        # The base, in fp32, was rounded for training in half precision.
        assert (merged["trainedDifference"] is None) == (moved or precision == "bf16")
        assert abs(tuned["eval_loss_merged"] - tuned["eval_loss"]) < 0.1
    assert ("exact_match_merged" in tuned) == moved
    if name != "full":
        check_adapter(name, version / "adapter")
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


def loaded_of(name: str, path: Path) -> LoadedModel:
    folder = path / "model"
    if not folder.exists():
        tiny_llama(folder)
    return load_model(folder, plan_of(name).training, load_tokenizer(folder))


@pytest.mark.parametrize("name", METHODS)
def test_the_matrices_b_alone_learn_faster_and_with_lora_plus_alone(tmp_path: Path, name: str) -> None:
    loaded = loaded_of(name, tmp_path)
    plan = plan_of(name).training.hyperparameters
    run: Any = SimpleNamespace(loaded=loaded, plan=plan_of(name), team=Team(), device="cpu")
    run.head = SimpleNamespace(loss=lambda _run: None)
    groups = optimisation_of(run, Schedule.of(plan, 12)).optimizer.param_groups
    rate_of = {id(p): group["initial_lr"] for group in groups for p in group["params"]}
    rates = {parameter: rate_of[id(value)] for parameter, value in loaded.trainable.items()}
    faster = {parameter for parameter, rate in rates.items() if rate != plan.learning_rate}
    assert faster == ({p for p in rates if ".lora_B." in p} if name == "lora-plus" else set())
    assert all(rates[parameter] == 4 * plan.learning_rate for parameter in faster)
    assert faster or name != "lora-plus"


@pytest.mark.parametrize("name", ["full", "lora", "dora", "ia3"])
def test_matrices_alone_decay(tmp_path: Path, name: str) -> None:
    loaded = loaded_of(name, tmp_path)
    plan = plan_of(name, hyperparameters={"weight_decay": 0.1})
    run: Any = SimpleNamespace(loaded=loaded, plan=plan, team=Team(), device="cpu")
    run.head = SimpleNamespace(loss=lambda _run: None)
    groups = optimisation_of(run, Schedule.of(plan.training.hyperparameters, 12)).optimizer.param_groups
    decay_of = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    # Of (IA)3, which scales by its vectors, 1 is no effect and 0 none of what is scaled; PEFT keeps them as matrices.
    for parameter, value in loaded.trainable.items():
        vector = any(part in parameter for part in ("ia3_l", "norm", "lora_magnitude_vector"))
        assert decay_of[id(value)] == (0.0 if vector else 0.1), parameter


def test_dora_starts_at_the_lengths_of_the_rows_of_the_weights(tmp_path: Path) -> None:
    model = loaded_of("dora", tmp_path).model
    layers = [module for module in model.modules() if hasattr(module, "lora_magnitude_vector")]
    assert len(layers) == 2 * 7
    for layer in layers:
        lengths = layer.base_layer.weight.norm(dim=1)
        assert torch.allclose(layer.lora_magnitude_vector["default"].weight, lengths)


@pytest.mark.parametrize("name", ["lora", "rslora"])
def test_the_scale_is_alpha_over_the_rank_or_its_root(tmp_path: Path, name: str) -> None:
    model = loaded_of(name, tmp_path).model
    scales = {module.scaling["default"] for module in model.modules() if hasattr(module, "lora_A")}
    assert scales == {8 / 2 if name == "rslora" else 8 / 4}


@pytest.mark.parametrize("name", METHODS)
def test_qloras_base_alone_is_in_nf4_with_its_scales_quantized_once_more(tmp_path: Path, name: str) -> None:
    layers = [module for module in loaded_of(name, tmp_path).model.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == (2 * 7 if name in {"qlora", "loftq"} else 0)
    for layer in layers:
        state: Any = layer.weight.quant_state
        assert (layer.weight.dtype, state.quant_type, state.nested) == (torch.uint8, "nf4", True)
        assert not layer.weight.requires_grad


def test_loftq_starts_nearer_to_the_weights_than_four_bits_alone(tmp_path: Path) -> None:
    started, plain = (loaded_of(name, tmp_path) for name in ("loftq", "qlora"))
    weights = load_file(tmp_path / "model" / "model.safetensors")
    layers = dict(started.model.named_modules())
    seen = 0
    for name, module in plain.model.named_modules():
        if not hasattr(module, "lora_A"):
            continue
        exact = weights[f"{name.removeprefix('base_model.model.')}.weight"]
        four = dequantize_4bit(module.weight.data, module.weight.quant_state).float()
        assert not module.get_delta_weight("default").any()
        # A rank of 4 of 64 takes a part of what is like noise.
        assert (exact - four - layers[name].get_delta_weight("default")).norm() < 0.95 * (exact - four).norm()
        seen += 1
    assert seen == 2 * 7


@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_another_start_is_the_base_model_in_other_parts(tmp_path: Path, name: str) -> None:
    model = loaded_of(name, tmp_path).model
    weights = load_file(tmp_path / "model" / "model.safetensors")
    layers = {key: module for key, module in model.named_modules() if hasattr(module, "lora_A")}
    assert len(layers) == 2 * 7
    for key, module in layers.items():
        exact = weights[f"{key.removeprefix('base_model.model.')}.weight"]
        delta = module.get_delta_weight("default")
        assert delta.norm() > 0.1 * exact.norm()
        assert (module.weight + delta - exact).norm() < 1e-4 * exact.norm()


def test_a_module_that_is_trained_in_full_is_published_with_the_adapter_and_merged(around: Surroundings) -> None:
    method = {"lora": {**LORA, "modules_to_save": ["model.norm"]}}
    artifact = {"onnx": ["fp32"], "merged": True}
    ended = around.run(make_plan(method=method, artifact=artifact, hyperparameters={"max_steps": 8}))
    assert ended.code == 0, ended.output + ended.errors
    version, base = around.registry / "tuned" / "1", load_file(around.volumes / "models" / "tiny" / "model.safetensors")
    adapter = load_file(version / "adapter" / "adapter_model.safetensors")
    saved = {name: value for name, value in adapter.items() if "lora_" not in name}
    assert set(saved) == {"base_model.model.model.norm.weight"}
    learnt = saved["base_model.model.model.norm.weight"]
    assert (learnt - base["model.norm.weight"]).abs().max() > 1e-3
    assert torch.equal(load_file(version / "merged" / "model.safetensors")["model.norm.weight"], learnt)
