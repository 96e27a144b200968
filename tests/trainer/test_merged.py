"""What is published merged is what was trained: compared, measured, and held to the job's gates."""

import json
from pathlib import Path
from typing import Any

import peft.tuners.ia3.layer
import peft.tuners.lora.variants
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from strop_trainer import __main__ as trainer
from strop_trainer import evaluation, stages
from strop_trainer.context import Clock, StopRequest
from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.methods import load_tokenizer
from strop_trainer.run import Run
from tests.support.data import COLOURS, THINGS, write_jsonl
from tests.support.models import tiny_encoder, tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora", "lora": LORA},
    "dora": {"type": "dora", "lora": LORA},
    "ia3": {"type": "ia3", "lora": None},
    "qlora": {"type": "qlora", "lora": LORA},
    "pissa": {"type": "lora", "lora": {**LORA, "alpha": 4, "initialization": "pissa"}},
}
RATES = {"ia3": 3e-2, "pissa": 3e-3}
SHAPES = ("answers", "labels")
GATES = ("eval_loss", "perplexity", "token_accuracy", "exact_match")


def evaluated(path: Path, method: str, shape: str, **changes: Any) -> Run:
    """Go on to where the model is exported, in this process."""
    around = Surroundings(path)
    folder = around.volumes / "models" / "tiny"
    if shape == "answers":
        around.write_rows()
        tiny_llama(folder)
    else:
        rows = [{"text": f"the {COLOURS[n % 3]} {THINGS[n % 4]} {n}", "label": COLOURS[n % 3]} for n in range(90)]
        write_jsonl(around.volumes / "data" / "train.jsonl", rows[:60])
        write_jsonl(around.volumes / "data" / "held.jsonl", rows[60:])
        tiny_encoder(folder, initializer_range=0.3)
    if changes.pop("halved", False):
        weights = load_file(folder / "model.safetensors")
        halved = {name: value.bfloat16() for name, value in weights.items()}
        save_file(halved, folder / "model.safetensors", {"format": "pt"})
    hyperparameters = {
        "max_steps": 8,
        "learning_rate": RATES.get(method, 1e-2),
        "packing": shape == "answers",
        **changes.pop("hyperparameters", {}),
    }
    plan = make_plan(
        task="chat" if shape == "answers" else "text-classification",
        method=METHODS[method],
        hyperparameters=hyperparameters,
        artifact={"onnx": [], "merged": True, **changes.pop("artifact", {})},
        **changes,
    )
    run = trainer.start(around.variables(plan), StopRequest(), Clock())
    for stage in (stages.check, stages.fetch, stages.prepare, stages.train, stages.evaluate):
        stage(run)
    return run


def within(difference: float | None) -> bool:
    """Tell whether a difference was measured, and is far within what is allowed."""
    return difference is not None and difference < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["lora", "dora", "ia3"])
def test_the_merged_model_is_what_was_trained_and_its_loss_is_reported(tmp_path: Path, method: str, shape: str) -> None:
    run = evaluated(tmp_path, method, shape)
    before = dict(run.metrics_tuned)
    stages.export(run)
    assert set(run.metrics_tuned) - set(before) == {"eval_loss_merged"}
    assert run.metrics_tuned["eval_loss_merged"] == pytest.approx(before["eval_loss"], rel=1e-4)
    assert abs(before["eval_loss"] - run.metrics_base["eval_loss"]) > 1e-2
    assert run.merged
    assert run.merged.passed
    assert within(run.merged.logit_difference)
    assert within(run.merged.trained_difference)
    assert run.merged.limit == run.merged.trained_limit == 1e-3
    assert run.reloaded


def no_magnitude(module: Any, active_adapter: str, orig_weight: Any) -> Any:
    """Merge a DoRA adapter as if it were LoRA."""
    return orig_weight + module.get_delta_weight(active_adapter)


def other_side(self: Any, safe_merge: bool = False, adapter_names: Any = None) -> None:
    """Leave out the vectors of the MLP."""
    del safe_merge, adapter_names
    if not self.is_feedforward:
        self.get_base_layer().weight.data *= self.ia3_l["default"].data


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["dora", "ia3"])
def test_a_model_that_is_merged_wrong_is_not_published(
    tmp_path: Path, method: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peft.tuners.lora.variants.DoraLinearVariant, "merge_safe", staticmethod(no_magnitude))
    monkeypatch.setattr(peft.tuners.ia3.layer.Linear, "merge", other_side)
    run = evaluated(tmp_path, method, shape, artifact={"merged": False, "onnx": ["fp32"]})
    with pytest.raises(
        TrainerError, match="not published, the merged model is not what was trained: logits"
    ) as refused:
        stages.export(run)
    assert refused.value.exit_code is ExitCode.PROOF_FAILED


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("halved", [True, False], ids=["as stored", "rounded for training"])
def test_weights_that_training_rounds_are_told_from_a_wrong_merge(tmp_path: Path, shape: str, *, halved: bool) -> None:
    run = evaluated(tmp_path, "dora", shape, halved=halved, hyperparameters={"precision": "bf16"})
    stages.export(run)
    assert run.merged
    assert within(run.merged.logit_difference)
    assert (run.merged.trained_difference is None) == (not halved)
    assert run.reloaded
    assert within(run.reloaded.logit_difference)
    assert run.metrics_tuned["eval_loss_merged"] == pytest.approx(run.metrics_tuned["eval_loss"], abs=0.05)


@pytest.mark.parametrize("method", ["qlora", "pissa"])
def test_what_was_trained_on_another_base_answers_again_merged(tmp_path: Path, method: str) -> None:
    run = evaluated(tmp_path, method, "answers", evaluation={"generate_rows": 3, "max_new_tokens": 4})
    stages.export(run)
    assert {name for name in run.metrics_tuned if name.endswith("_merged")} == {f"{name}_merged" for name in GATES}
    merged = AutoModelForCausalLM.from_pretrained(run.artifact("merged"), dtype=torch.float32)
    answers = evaluation.answer(merged, load_tokenizer(run.model.path), run.questions[:3], 4)
    assert [sample.merged for sample in run.samples] == answers
    assert run.merged
    assert within(run.merged.logit_difference)
    assert run.merged.trained_difference is None
    assert run.reloaded is None


def test_labels_that_were_learnt_on_four_bits_are_given_again_merged(tmp_path: Path) -> None:
    run = evaluated(tmp_path, "qlora", "labels")
    before = set(run.metrics_tuned)
    stages.export(run)
    assert set(run.metrics_tuned) == before | {f"{name}_merged" for name in before}
    assert {sample.merged for sample in run.samples} <= set(COLOURS)


def test_gates_hold_for_the_answers_of_the_merged_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter([["no"] * 2, None])  # of the base, and of the model as it was trained

    def answer(_model: Any, _tokenizer: Any, questions: Any, _length: int) -> list[str]:
        return next(given, ["no"] * 2) or [question.reference for question in questions]

    monkeypatch.setattr(evaluation, "answer", answer)
    run = evaluated(tmp_path, "qlora", "answers", evaluation={"minimum": {"exact_match": 0.5}})
    assert run.metrics_tuned["exact_match"] == 1.0
    with pytest.raises(TrainerError, match=r"the merged model misses a metric gate .* exact_match: found 0") as missed:
        stages.export(run)
    assert missed.value.exit_code is ExitCode.PROOF_FAILED
    assert missed.value.reason == "MetricGateMissed"


def test_the_documents_of_a_version_show_the_merged_model_beside_the_trained_one(tmp_path: Path) -> None:
    run = evaluated(tmp_path, "qlora", "answers")
    for stage in (stages.export, stages.prove, stages.publish):
        stage(run)
    version = tmp_path / "registry" / "team" / "tuned" / "1"
    loss = f"{run.metrics_tuned['eval_loss_merged']:.4g}"
    card, page = (version / "README.md").read_text(), (version / "report.html").read_text()
    assert "| metric | base | tuned | merged |" in card
    assert f"| {loss} |\n" in card
    assert "eval_loss_merged |" not in card
    assert f'<td class="n">{loss}</td>' in page
    assert "<tr><th>merged</th>" in page
    for text in (card, page):
        assert "in four bits" in text
    proof = json.loads((version / "proof.json").read_text())
    assert proof["merged"]["passed"]
    sample = json.loads((version / "training.json").read_text())["samples"][0]
    assert sample["merged"] == run.samples[0].merged
    assert run.published
    assert "exact_match_merged" in run.published.metrics_tuned
