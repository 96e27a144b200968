"""Modules that are trained in full beside an adapter."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from strop.planning.presets import ARCHITECTURES
from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.methods import load_model, load_tokenizer
from strop_trainer.methods.loading import LoadedModel, prepare_method
from strop_trainer.optimisation import Optimisation
from strop_trainer.schedule import Schedule
from tests.support.models import tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = pytest.mark.trainer

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
BF16 = {"precision": "bf16"}
IDS = torch.arange(8)[None]


def loaded_of(path: Path, method: str, module: str) -> LoadedModel:
    folder = tiny_llama(path / "model", tie_word_embeddings=False)
    tokenizer = load_tokenizer(folder)
    if method != "ia3":
        plan = make_plan(
            method={"type": method, "lora": {**LORA, "modules_to_save": [module]}}, hyperparameters=BF16
        ).training
        return load_model(folder, plan, tokenizer)
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - seconds

    plan = make_plan(method={"type": method, "lora": None}, hyperparameters=BF16).training
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return prepare_method(base, plan, tokenizer, folder, new=[module])


def loss_of(loaded: LoadedModel) -> Any:
    return torch.nn.functional.cross_entropy(loaded.model(input_ids=IDS).logits[0].float(), IDS[0].roll(-1))


@pytest.mark.parametrize("module", ["lm_head", "embed_tokens", "norm"])
@pytest.mark.parametrize("method", ["lora", "dora", "qlora", "ia3"])
def test_a_module_that_is_trained_in_full_learns_in_fp32_and_computes_as_the_plan_says(
    tmp_path: Path, method: str, module: str
) -> None:
    loaded = loaded_of(tmp_path, method, module)
    hyperparameters = loaded.plan.hyperparameters.model_copy(update={"learning_rate": 1e-6, "warmup_ratio": 0.0})
    assert any(f"{module}.modules_to_save" in name for name in loaded.trainable)
    with torch.no_grad(), loaded.as_base() as base:
        expected = base(input_ids=IDS).logits
    computed = loaded.model(input_ids=IDS).logits
    # DoRA divides by the lengths that it multiplies with, and rounds.
    limit = 0.02 if method == "dora" else 0.0
    assert (computed.float() - expected.float()).norm() <= limit * expected.float().norm()
    # The base of qlora has its ends and norms in fp32, as PEFT prepares it.
    assert computed.dtype == (torch.float32 if method == "qlora" else torch.bfloat16)

    found = Optimisation(loaded.trainable, lambda _batch: None, hyperparameters, Schedule(1, 1, 100, 0, 1), {})
    before = {name: value.detach().clone() for name, value in loaded.trainable.items()}
    loss_of(loaded).backward()
    gradients = {name: value.grad.clone() for name, value in loaded.trainable.items()}
    found.step()
    for name, value in loaded.trainable.items():
        moments = found.optimizer.state[value]
        assert {value.dtype, moments["exp_avg"].dtype, moments["exp_avg_sq"].dtype} == {torch.float32}, name
        learnt = gradients[name] != 0
        if "modules_to_save" in name:
            assert learnt.any()
            # A step of 1e-6 is lost where a weight of some hundredths is kept in bf16.
            assert (value != before[name])[learnt].float().mean() > 0.99


@pytest.mark.parametrize(
    ("method", "module"), [("lora", "lm_head"), ("dora", "model.embed_tokens"), ("qlora", "lm_head")]
)
def test_what_is_trained_in_full_in_half_precision_is_published_and_merged(
    tmp_path: Path, method: str, module: str
) -> None:
    around = Surroundings(tmp_path)
    around.write_rows()
    base = load_file(tiny_llama(around.volumes / "models" / "tiny", tie_word_embeddings=False) / "model.safetensors")
    plan = make_plan(
        method={"type": method, "lora": {**LORA, "modules_to_save": [module]}},
        artifact={"onnx": [], "merged": True},
        hyperparameters=BF16 | {"gradient_checkpointing": True},
    )
    ended = around.run(plan)
    assert ended.code == 0, ended.output + ended.errors
    version, name = around.registry / "tuned" / "1", f"{module}.weight"
    learnt = load_file(version / "adapter" / "adapter_model.safetensors")[f"base_model.model.{name}"]
    assert learnt.dtype == torch.float32
    assert not torch.equal(learnt, learnt.bfloat16().float())
    assert (learnt - base[name]).abs().max() > 1e-3
    assert torch.equal(load_file(version / "merged" / "model.safetensors")[name], learnt)


def plan_with(**lora: Any) -> Any:
    return make_plan(method={"lora": {**LORA, **lora}}).training


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modules_to_save": ["lm_heads"]}, r"modulesToSave: found lm_heads, allowed .*\blm_head\b.*"),
        ({"modules_to_save": ["norm", "classifer"]}, r"modulesToSave: found classifer, allowed .*\bnorm\b.*"),
        ({"modules_to_save": ["head"]}, "modulesToSave: found head, allowed .*"),
        ({"modules_to_save": ["layers"]}, "modulesToSave: found layers, allowed .*"),
        ({"modules_to_save": ["act_fn"]}, "modulesToSave: found act_fn, allowed .*"),
        ({"target_modules": ["q_proj", "nonsense"]}, r"targetModules: found nonsense, allowed .*\bq_proj\b.*"),
        ({"target_modules": ["q_proj", "proj"]}, "targetModules: found proj, allowed .*"),
    ],
)
def test_a_name_of_no_layer_is_refused_with_those_there_are(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = tiny_llama(tmp_path / "model", tie_word_embeddings=False)
    with pytest.raises(TrainerError, match=rf"^method\.lora\.{words}") as refused:
        load_model(folder, plan_with(**changes), load_tokenizer(folder))
    assert refused.value.exit_code is ExitCode.BAD_CONFIGURATION
    allowed = str(refused.value).partition("allowed")[2]
    assert len(allowed) < 200
    assert not any(name in allowed.replace(",", " ").split() for name in ("0", "self_attn", "layers", "act_fn"))


def test_a_name_of_layers_in_four_bits_is_refused_with_those_that_can_be_trained(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "model", tie_word_embeddings=False)
    plan = make_plan(method={"type": "qlora", "lora": {**LORA, "modules_to_save": ["o_proj"]}}).training
    allowed = "embed_tokens, input_layernorm, post_attention_layernorm, norm, lm_head"
    with pytest.raises(TrainerError, match=rf"modulesToSave: found o_proj, allowed for this model: {allowed}$"):
        load_model(folder, plan, load_tokenizer(folder))


@pytest.mark.parametrize("name", ["norm", "model.norm"])
def test_a_name_stands_for_no_layer_that_it_is_a_part_of_the_name_of(tmp_path: Path, name: str) -> None:
    folder = tiny_llama(tmp_path / "model")
    loaded = load_model(folder, plan_with(modules_to_save=[name]), load_tokenizer(folder))
    saved = [name for name in loaded.trainable if "modules_to_save" in name]
    assert saved == ["base_model.model.model.norm.modules_to_save.default.weight"]


def test_a_name_stands_for_each_layer_of_it(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "model")
    names = ["input_layernorm", "0.post_attention_layernorm"]
    loaded = load_model(folder, plan_with(modules_to_save=names), load_tokenizer(folder))
    saved = sorted(name.split(".layers.")[1].split(".modules")[0] for name in loaded.trainable if ".modules" in name)
    assert saved == ["0.input_layernorm", "0.post_attention_layernorm", "1.input_layernorm"]


@pytest.mark.parametrize("initialization", ["pissa", "olora", "loftq"])
def test_an_embedding_is_not_adapted_from_another_start(tmp_path: Path, initialization: str) -> None:
    folder = tiny_llama(tmp_path / "model", tie_word_embeddings=False)
    method = "qlora" if initialization == "loftq" else "lora"

    def plan(**lora: Any) -> Any:
        return make_plan(method={"type": method, "lora": {**LORA, **lora}}).training

    ends = {"target_modules": ["q_proj", "lm_head", "model.embed_tokens"]}
    with pytest.raises(TrainerError) as refused:
        load_model(folder, plan(initialization=initialization, **ends), load_tokenizer(folder))
    assert str(refused.value).startswith(
        f"method.lora.targetModules: found model.embed_tokens, an embedding, with initialization {initialization}, "
        "allowed: linear layers, or initialization default"
    )
    assert refused.value.exit_code is ExitCode.BAD_CONFIGURATION
    assert load_model(folder, plan(**ends), load_tokenizer(folder)).trainable_parameters


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_planner_knows_what_has_weights(name: str) -> None:
    kind, model_class, names = ARCHITECTURES[name], getattr(transformers, name), set[str]()
    for kind_of_mlp in ("relu", "gated-gelu"):
        with torch.device("meta"):
            model = model_class(
                model_class.config_class(**({"feed_forward_proj": kind_of_mlp} if "T5" in name else {}))
            )
        names |= {
            full.rpartition(".")[2] for full, module in model.named_modules() if any(True for _ in module.parameters())
        }
    # A whole model, what stands in lists, and an embedding of which each use is another name are left out.
    names -= {"", "model", "layers", "block", "layer", "shared", *(number for number in names if number.isdigit())}
    assert names == {*kind.linear, *kind.others, "lm_head", "embed_tokens"}
