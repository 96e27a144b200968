"""Tasks of labels from rows to a published version, with tiny random models."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import get_peft_model
from peft.tuners.ia3 import IA3Layer
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.heads.encoder import EncoderHead
from strop_trainer.heads.encoder_model import load_with_head
from strop_trainer.heads.merged import hold_merged
from strop_trainer.methods.ia3 import ia3_config
from strop_trainer.model_checks import check_model
from strop_trainer.registry import verify
from strop_trainer.sources.model_folder import check_model_folder
from strop_trainer.tasks.extractive_qa import ExtractiveQaTask
from strop_trainer.tasks.labelled import Labels
from strop_trainer.tasks.text_classification import TextClassificationTask
from tests.support.data import write_jsonl
from tests.support.models import tiny_encoder, tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]

COLOURS = ("red", "green", "blue")
LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
WORDS = ("fox", "dog", "blade", "answer")


def classified(count: int) -> list[dict[str, Any]]:
    return [{"text": f"the {COLOURS[n % 3]} {WORDS[n % 4]} {n}", "label": COLOURS[n % 3]} for n in range(count)]


def multi(count: int) -> list[dict[str, Any]]:
    rows = []
    for n in range(count):
        found = [colour for at, colour in enumerate(COLOURS) if n >> at & 1]
        rows.append({"text": f"{' '.join(found)} {WORDS[n % 4]} {n}", "labels": found})
    return rows


def tagged(count: int) -> list[dict[str, Any]]:
    return [
        {"tokens": ["the", COLOURS[n % 3], WORDS[n % 4], str(n)], "tags": ["O", "B-COLOUR", "B-THING", "I-THING"]}
        for n in range(count)
    ]


def asked(count: int) -> list[dict[str, Any]]:
    rows = []
    for n in range(count):
        context = f"the {WORDS[n % 4]} {n} is {COLOURS[n % 3]} yes"
        colour = COLOURS[n % 3]
        answers = {"text": [colour], "answer_start": [context.index(colour)]}
        rows.append({"question": "what colour?", "context": context, "answers": answers})
    return rows


CASES: dict[str, tuple[str, Any, str, list[str]]] = {
    "text-classification": ("text-classification", classified, "accuracy", ["logits"]),
    "several labels": ("text-classification", multi, "f1_micro", ["logits"]),
    "token-classification": ("token-classification", tagged, "f1", ["logits"]),
    "question-answering": ("question-answering", asked, "f1", ["start_logits", "end_logits"]),
}


def plan_for(task: str, **changes: Any) -> Any:
    hyperparameters = {
        "max_steps": 60,
        "learning_rate": 5e-3,
        "effective_batch_size": 8,
        "micro_batch_size": 8,
        "packing": False,
        **changes.pop("hyperparameters", {}),
    }
    return make_plan(
        task=task,
        hyperparameters=hyperparameters,
        artifact=changes.pop("artifact", {"onnx": ["fp32", "int8"]}),
        checkpoint={"every_steps": 30},
        **changes,
    )


def around(tmp_path: Path, rows: Any, architecture: str = "bert", **configuration: Any) -> Surroundings:
    found = Surroundings(tmp_path)
    write_jsonl(found.volumes / "data" / "train.jsonl", rows(60))
    write_jsonl(found.volumes / "data" / "held.jsonl", rows(90)[60:])
    folder = found.volumes / "models" / "tiny"
    if architecture == "llama":
        tiny_llama(folder)
    else:
        tiny_encoder(folder, architecture, **configuration)
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_task_is_learnt_proven_and_published(tmp_path: Path, case: str) -> None:
    task, rows, metric, outputs = CASES[case]
    surroundings = around(tmp_path, rows)
    steps = {"max_steps": 300} if case == "several labels" else {}
    plan = plan_for(task, hyperparameters=steps)
    if task == "question-answering":
        # As planned where precisions are left out: which kind of model it is, is not known then.
        plan = plan_for(task, artifact={"onnx": ["fp32", "int4"], "onnx_encoder": ["fp32", "int8"]})
    ended = surroundings.run(plan)
    assert ended.code == 0, ended.output + ended.errors
    assert ended.message
    published = ended.message.published
    assert published
    assert published.metrics_tuned[metric] > max(0.9, published.metrics_base[metric] + 0.2)
    assert [proof.passed for proof in published.proofs] == [True, True]
    version = surroundings.registry / "tuned" / "1"
    assert verify(version) == []
    config = json.loads((version / "onnx" / "config.json").read_text())
    if task == "text-classification":
        assert list(config["id2label"].values()) == sorted(COLOURS)
    tokenizer = AutoTokenizer.from_pretrained(version / "onnx")
    session = onnxruntime.InferenceSession(version / "onnx" / "model.onnx")
    texts = ["the green dog", "the red fox is here and runs", "a"]
    found = tokenizer(texts, padding=True, return_tensors="np")
    names = {entry.name for entry in session.get_inputs()}
    assert set(found) == names
    got = session.run(outputs, dict(found))
    assert all(np.isfinite(part).all() and part.shape[0] == 3 for part in got)
    if case == "text-classification":
        assert [config["id2label"][str(best)] for best in got[0].argmax(-1)][:2] == ["green", "red"]


@pytest.mark.parametrize("method", ["full", "dora"])
def test_other_methods(tmp_path: Path, method: str) -> None:
    surroundings = around(tmp_path, classified, "distilbert")
    rate = {"learning_rate": 1e-3, "precision": "bf16"} if method == "full" else {}
    ended = surroundings.run(
        plan_for(
            "text-classification",
            method={"type": method, "lora": None if method == "full" else LORA},
            hyperparameters=rate,
        )
    )
    assert ended.code == 0, ended.output + ended.errors
    assert ended.message
    assert ended.message.published
    assert ended.message.published.metrics_tuned["accuracy"] > 0.9
    assert (surroundings.registry / "tuned" / "1" / "adapter").is_dir() == (method == "dora")


@pytest.mark.parametrize(
    ("case", "method", "architecture", "precision"),
    [
        ("text-classification", "qlora", "bert", "fp32"),
        ("token-classification", "qlora", "distilbert", "bf16"),
        ("question-answering", "qlora", "modernbert", "fp32"),
        ("text-classification", "ia3", "roberta", "fp32"),
        ("token-classification", "ia3", "bert", "bf16"),
        ("question-answering", "ia3", "modernbert", "fp32"),
        # Whose rows have token_type_ids, which PEFT's model for questions does not hand on.
        ("question-answering", "ia3", "bert", "fp32"),
    ],
)
def test_an_adapter_on_four_bits_or_of_few_numbers_is_learnt_beside_a_whole_head(
    tmp_path: Path, case: str, method: str, architecture: str, precision: str
) -> None:
    task, rows, metric, _ = CASES[case]
    # Weights large enough that tokens tell on one another: (IA)3 makes no ways of its own between them.
    surroundings = around(tmp_path, rows, architecture, initializer_range=0.3)
    ended = surroundings.run(
        plan_for(
            task,
            method={"type": method, "lora": LORA if method == "qlora" else None},
            hyperparameters={"precision": precision, "learning_rate": 3e-2 if method == "ia3" else 1e-2},
            artifact={"onnx": ["fp32"]},
            # A head for labels generates nothing: its metrics can be bounded all the same.
            evaluation={"minimum": {metric: 0.01}, "generate_rows": 0},
        )
    )
    assert ended.code == 0, ended.output + ended.errors
    assert ended.message
    published = ended.message.published
    assert published
    before, after = published.metrics_base, published.metrics_tuned
    assert after["eval_loss"] < 0.8 * before["eval_loss"]
    assert after[metric] > before[metric]
    assert [proof.passed for proof in published.proofs] == [True]
    version = surroundings.registry / "tuned" / "1"
    assert verify(version) == []
    adapter = load_file(version / "adapter" / "adapter_model.safetensors")
    assert any(".classifier." in name or ".qa_outputs." in name for name in adapter)
    assert any(("lora_A" if method == "qlora" else "ia3_l") in name for name in adapter)
    assert all(tensor.dtype == torch.float32 for tensor in adapter.values())
    if method == "qlora":
        assert after["eval_loss_merged"] < 0.9 * before["eval_loss"]
        assert "merged into the base model as it is: eval_loss " in ended.output
        assert f"{metric}_merged" in after
    else:
        # In fp32 what was trained in the precision of the job.
        assert after["eval_loss_merged"] == pytest.approx(after["eval_loss"], rel=1e-4 if precision == "fp32" else 0.1)
        assert f"{metric}_merged" not in after
    proof = json.loads((version / "proof.json").read_text())
    assert proof["merged"]["logitDifference"] < 1e-4
    assert (proof["adapter"] is None) == (method == "qlora")


def test_what_was_learnt_on_four_bits_is_measured_on_the_whole_model_though_nothing_is_exported(tmp_path: Path) -> None:
    surroundings = around(tmp_path, classified, "distilbert")
    ended = surroundings.run(
        plan_for("text-classification", method={"type": "qlora", "lora": LORA}, artifact={"onnx": [], "merged": False})
    )
    assert ended.code == 0, ended.output + ended.errors
    assert ended.message
    assert ended.message.published
    assert ended.message.published.metrics_tuned["eval_loss_merged"] < 1.0
    assert {path.name for path in (surroundings.registry / "tuned" / "1").iterdir() if path.is_dir()} == {"adapter"}


def test_a_merged_model_that_misses_a_gate_is_not_published() -> None:
    plan = plan_for("text-classification", evaluation={"minimum": {"accuracy": 0.8}})
    run: Any = SimpleNamespace(plan=plan, metrics_tuned={"eval_loss": 0.2, "accuracy": 0.9})
    hold_merged(run, {"eval_loss": 0.25, "accuracy": 0.8}, moved=False)
    assert run.metrics_tuned == {"eval_loss": 0.2, "accuracy": 0.9, "eval_loss_merged": 0.25}
    with pytest.raises(TrainerError) as missed:
        hold_merged(run, {"eval_loss": 0.5, "accuracy": 0.7}, moved=True)
    assert missed.value.exit_code == ExitCode.PROOF_FAILED
    assert "accuracy: found 0.7, expected at least 0.8" in missed.value.message
    assert run.metrics_tuned["eval_loss_merged"] == 0.5
    assert run.metrics_tuned["accuracy_merged"] == 0.7


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "modernbert", "deberta-v2", "electra"])
def test_head_and_new_pooler_are_never_quantized(tmp_path: Path, architecture: str) -> None:
    folder = tiny_encoder(tmp_path / "base", architecture)
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    found = load_with_head(
        folder,
        "AutoModelForSequenceClassification",
        Labels(COLOURS),
        seed=0,
        bf16=True,
        pad_id=0,
        quantized_on="cpu",
    )
    quantized = {name for name, module in found.model.named_modules() if isinstance(module, Linear4bit)}
    prefix = f"{found.model.base_model_prefix}."
    whole = {name for name, module in found.model.named_modules() if type(module) is torch.nn.Linear}
    assert ("bert.pooler.dense" in found.new) == (architecture == "bert")
    assert "classifier" in found.new
    assert whole == {name for name in whole | quantized if name.startswith(found.new)}
    assert quantized
    assert all(name.startswith(prefix) for name in quantized)
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32, torch.uint8}


@pytest.mark.parametrize(
    ("architecture", "scaled"),
    [
        ("bert", {"attention.self.key", "attention.self.value", "output.dense"}),
        ("roberta", {"attention.self.key", "attention.self.value", "output.dense"}),
        ("electra", {"attention.self.key", "attention.self.value", "output.dense"}),
        ("distilbert", {"attention.k_lin", "attention.v_lin", "ffn.lin2"}),
        ("modernbert", {"attn.Wqkv", "mlp.Wo"}),
        ("deberta", {"attention.self.in_proj", "output.dense"}),
        ("deberta-v2", {"attention.self.key_proj", "attention.self.value_proj", "output.dense"}),
        ("mpnet", {"attention.attn.k", "attention.attn.v", "output.dense"}),
        pytest.param(
            "gpt2",
            {"attn.c_attn", "mlp.c_proj"},
            marks=pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False but the target module is `Conv1D`"),
        ),
    ],
)
def test_ia3_scales_keys_values_and_what_the_mlp_has_computed_alone(architecture: str, scaled: set[str]) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    sizes = {"distilbert": {"n_layers": 2}, "gpt2": {"n_layer": 2}}.get(architecture, sizes)
    with torch.device("meta"):
        base = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(architecture, **sizes))
    heads = [name for name, _ in base.named_children() if name != base.base_model_prefix]
    model = get_peft_model(base, ia3_config(base, "SEQ_CLS", heads))
    layers = {name: module for name, module in model.named_modules() if isinstance(module, IA3Layer)}
    found = {re.split(r"\.\d+\.", name)[-1]: module.is_feedforward for name, module in layers.items()}
    assert set(found) == scaled
    assert len(layers) == 2 * len(scaled)
    inner = {name for name, feed_forward in found.items() if feed_forward}
    assert inner == {name for name in scaled if not name.startswith(("attention", "attn"))}


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning", "p-tuning"])
def test_an_encoder_is_refused_tokens_in_front_of_a_row(tmp_path: Path, method: str) -> None:
    tiny_encoder(tmp_path / "bert")
    model = check_model_folder(tmp_path / "bert", "pvc://models/bert", chat=False)
    plan = plan_for("question-answering", method={"type": method, "virtual_tokens": 4}, artifact={"onnx": []})
    with pytest.raises(TrainerError) as refused:
        check_model(plan.training, ExtractiveQaTask(), model)
    assert refused.value.exit_code == ExitCode.BAD_CONFIGURATION
    assert refused.value.message == (
        f"method.type: found {method}, allowed for question-answering with a head for labels: lora, qlora, dora, ia3, "
        "full; tokens in front of a row are for models that answer in words"
    )


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    tiny_encoder(tmp_path / "base", "distilbert")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        next(iter(model.parameters()))[0, 0] = float("nan")
    loaded = SimpleNamespace(has_adapter=False, model=model, tokenizer=AutoTokenizer.from_pretrained(tmp_path / "base"))
    run: Any = SimpleNamespace(
        plan=plan_for("text-classification", method={"type": "full", "lora": None}),
        loaded=loaded,
        model=SimpleNamespace(path=tmp_path / "base"),
        artifact=lambda name: tmp_path / name,
        held_out=[],
    )
    with pytest.raises(ValueError, match="found 1 tensors with what is not a number"):
        EncoderHead(TextClassificationTask()).export(run)
    assert not (tmp_path / "merged").exists()


def test_a_language_model_classifies(tmp_path: Path) -> None:
    surroundings = around(tmp_path, classified, "llama")
    ended = surroundings.run(plan_for("text-classification", hyperparameters={"precision": "bf16"}))
    assert ended.code == 0, ended.output + ended.errors
    assert ended.message
    assert ended.message.published
    assert ended.message.published.metrics_tuned["accuracy"] > 0.9


def test_an_encoder_that_is_asked_is_refused_a_gate_or_precision_that_it_cannot_have(tmp_path: Path) -> None:
    tiny_encoder(tmp_path / "bert")
    model = check_model_folder(tmp_path / "bert", "pvc://models/bert", chat=False)

    def refusal(**changes: Any) -> str:
        plan = plan_for("question-answering", **changes)
        with pytest.raises(TrainerError) as refused:
            check_model(plan.training, ExtractiveQaTask(), model)
        return refused.value.message

    assert refusal(evaluation={"maximum": {"perplexity": 9.0}}) == (
        "evaluation.maximum.perplexity: not measured where an encoder marks its answer in the text, "
        "allowed: eval_loss, exact_match, f1"
    )
    assert "output.onnx.precisions: found int4, allowed" in refusal(artifact={"onnx": ["int4"]})


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"hyperparameters": {"max_length": 256}}, ExitCode.BAD_CONFIGURATION, "found 256, allowed: up to 128"),
        (
            {"evaluation": {"minimum": {"f1_micro": 0.5}}},
            ExitCode.BAD_CONFIGURATION,
            "evaluation.minimum.f1_micro: not measured of these labels, allowed: eval_loss, accuracy, f1, mcc",
        ),
        ({"evaluation": {"minimum": {"accuracy": 1.1}}}, ExitCode.PROOF_FAILED, "accuracy: found"),
    ],
)
def test_what_cannot_be_published_is_told(tmp_path: Path, changes: Any, code: ExitCode, words: str) -> None:
    surroundings = around(tmp_path, classified)
    steps = {"max_steps": 4, **changes.get("hyperparameters", {})}
    ended = surroundings.run(plan_for("text-classification", **{**changes, "hyperparameters": steps}))
    assert ended.code == code, ended.output + ended.errors
    assert ended.message
    assert words in ended.message.message
