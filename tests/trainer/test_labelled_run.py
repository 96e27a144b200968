"""Tasks of labels from rows to a published version, with tiny random models."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.heads.encoder import EncoderHead
from strop_trainer.registry import verify
from strop_trainer.sources.model_folder import check_model_folder
from strop_trainer.tasks.extractive_qa import ExtractiveQaTask
from strop_trainer.tasks.text_classification import TextClassificationTask
from tests.support.data import write_jsonl
from tests.support.models import tiny_encoder, tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]

COLOURS = ("red", "green", "blue")
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


def around(tmp_path: Path, rows: Any, architecture: str = "bert") -> Surroundings:
    found = Surroundings(tmp_path)
    write_jsonl(found.volumes / "data" / "train.jsonl", rows(60))
    write_jsonl(found.volumes / "data" / "held.jsonl", rows(90)[60:])
    folder = found.volumes / "models" / "tiny"
    if architecture == "llama":
        tiny_llama(folder)
    else:
        tiny_encoder(folder, architecture)
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
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
    rate = {"learning_rate": 1e-3, "precision": "bf16"} if method == "full" else {}
    ended = surroundings.run(
        plan_for(
            "text-classification",
            method={"type": method, "lora": None if method == "full" else lora},
            hyperparameters=rate,
        )
    )
    assert ended.code == 0, ended.output + ended.errors
    assert ended.message
    assert ended.message.published
    assert ended.message.published.metrics_tuned["accuracy"] > 0.9
    assert (surroundings.registry / "tuned" / "1" / "adapter").is_dir() == (method == "dora")


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
        run: Any = SimpleNamespace(plan=plan_for("question-answering", **changes))
        with pytest.raises(TrainerError) as refused:
            EncoderHead(ExtractiveQaTask()).check_model(run, model)
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
