"""Models of encoder and decoder: rows as their tokens, trained, exported as two graphs, proven and published."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from strop_trainer import __main__ as trainer
from strop_trainer import checkpoints, stages
from strop_trainer.context import Clock, StopRequest
from strop_trainer.errors import Preempted, TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import Plan
from strop_trainer.registry import verify
from strop_trainer.run import Run
from strop_trainer.sources.model_folder import check_model_folder
from strop_trainer.tasks import task_named
from strop_trainer.tasks.by_model import task_for
from strop_trainer.tasks.encoder_decoder import EncoderDecoderTask, marian_source, t5_source
from tests.support.card import run_card
from tests.support.data import write_jsonl
from tests.support.models import CHAT_TEMPLATE, tiny_encoder_decoder
from tests.support.training import Surroundings, make_plan

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Recommended")]

COLOURS = {"red": "one", "green": "two", "blue": "three"}
THINGS = ("fox", "dog", "blade", "answer")


def rows(count: int) -> list[dict[str, Any]]:
    """Return pairs that a tiny model can learn: a colour's number, and the thing."""
    pairs = [(list(COLOURS)[n % 3], THINGS[n % 4], n) for n in range(count)]
    return [
        {
            "source": f"the {colour} {thing} {n}",
            "target": f"{COLOURS[colour]} {thing}",
            "source_language": "en",
            "target_language": "de",
        }
        for colour, thing, n in pairs
    ]


def around(path: Path, architecture: str = "t5", **configuration: Any) -> Surroundings:
    found = Surroundings(path)
    write_jsonl(found.volumes / "data" / "train.jsonl", rows(48))
    write_jsonl(found.volumes / "data" / "held.jsonl", rows(60)[48:])
    tiny_encoder_decoder(found.volumes / "models" / "tiny", architecture, **configuration)
    return found


def plan_of(**changes: Any) -> Plan:
    hyperparameters = {"max_steps": 40, "effective_batch_size": 16, "micro_batch_size": 8}
    return make_plan(
        task=changes.pop("task", "translation"),
        hyperparameters={**hyperparameters, **changes.pop("hyperparameters", {})},
        checkpoint={"every_steps": 20},
        evaluation={"generate_rows": 4, "max_new_tokens": 8, **changes.pop("evaluation", {})},
        **changes,
    )


def prepared(surroundings: Surroundings, plan: Plan) -> Run:
    """Go on to where training begins, in this process."""
    run = trainer.start(surroundings.variables(plan), StopRequest(), Clock())
    run.threads = 1
    for stage in (stages.check, stages.fetch, stages.prepare):
        stage(run)
    return run


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "t5": {"untied": True, "feed_forward_proj": "gated-gelu"},  # as Flan-T5's
    "marian": {"init_std": 0.2},  # of the usual 0.02, a tiny one learns nothing
    "mt5": {"untied": True},
    "pegasus": {"init_std": 0.2},
    "nllb": {"init_std": 0.2},
    "m2m_100": {"init_std": 0.2},
    "mbart-50": {"init_std": 0.2},
    "mbart": {"init_std": 0.2},
}
BEGINNINGS = dict.fromkeys(("t5", "mt5"), "translate English to German: the ") | {"marian": ">>de<< the "}


@pytest.mark.parametrize(
    ("architecture", "precisions"),
    [
        ("t5", ["fp32", "int8"]),
        ("marian", ["fp32"]),
        ("mt5", ["fp32"]),
        ("pegasus", ["fp32"]),
        ("nllb", ["fp32", "int8"]),
        ("m2m_100", ["fp32"]),
        ("mbart-50", ["fp32"]),
        ("mbart", ["fp32"]),
    ],
)
def test_a_translation_is_learnt_proven_and_published(tmp_path: Path, architecture: str, precisions: list[str]) -> None:
    surroundings = around(tmp_path, architecture, **CONFIGURATIONS[architecture])
    # As planned where precisions are left out: which kind of model it is, is not known then.
    plan = plan_of(artifact={"onnx": ["fp32", "int4"], "onnx_encoder": precisions, "proof": {"rows": 12}})
    ended = surroundings.run(plan)
    assert ended.code == 0, ended.output + ended.errors
    assert ended.message
    published = ended.message.published
    assert published
    measured = {"eval_loss", "perplexity", "token_accuracy", "bleu", "chrf"}
    assert set(published.metrics_tuned) == measured | {"eval_loss_merged"}
    assert published.metrics_tuned["eval_loss"] < 0.8 * published.metrics_base["eval_loss"]
    assert [proof.passed for proof in published.proofs] == [True] * len(precisions)
    version = surroundings.registry / "tuned" / "1"
    assert verify(version) == []
    proof = json.loads((version / "proof.json").read_text())
    assert proof["adapter"]["passed"]
    assert proof["results"][0]["greedyAgreement"] == 1
    # What is exported, read from the merged folder, is what was trained.
    assert proof["results"][0]["perplexityPytorch"] == pytest.approx(published.metrics_tuned["perplexity"], rel=1e-4)
    folders = {path.name for path in version.iterdir() if path.is_dir()}
    assert folders == {"adapter", "onnx", *(f"onnx-{precision}" for precision in precisions[1:])}
    sample = json.loads((version / "training.json").read_text())["samples"][0]
    asked = sample["messages"][0]["content"]
    assert asked.startswith(BEGINNINGS.get(architecture, "the "))
    assert run_card(version, asked) == sample["tuned"]


@pytest.mark.parametrize(
    ("architecture", "method", "precision"), [("bart", "full", "bf16"), ("t5", "ia3", "bf16"), ("bart", "dora", "fp32")]
)
def test_other_methods_learn(tmp_path: Path, architecture: str, method: str, precision: str) -> None:
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
    surroundings = around(tmp_path, architecture)
    plan = plan_of(
        method={"type": method, "lora": lora if method == "dora" else None},
        hyperparameters={"max_steps": 12, "precision": precision, "gradient_checkpointing": method == "full"},
        artifact={"onnx": [], "merged": True},
    )
    run = prepared(surroundings, plan)
    for stage in (stages.train, stages.evaluate, stages.export):
        stage(run)
    assert run.metrics_tuned["eval_loss"] < run.metrics_base["eval_loss"]
    assert (run.artifact("merged") / "model.safetensors").is_file()
    assert (run.reloaded is not None) == (run.merged is not None) == (method != "full")


def test_the_loss_is_transformers_own_of_the_target(tmp_path: Path) -> None:
    run = prepared(around(tmp_path, dropout_rate=0.0), plan_of())
    part = run.encoded.examples[:3]
    ours = run.head.loss(run)(run.head.make_batch(run, part))
    tokenizer, theirs, count = run.loaded.tokenizer, 0.0, 0
    for row in map(json.loads, run.dataset.train[:3]):
        words = row["messages"][0]["content"].removeprefix("Translate from English to German:\n\n")
        batch = tokenizer(
            f"translate English to German: {words}", text_target=row["messages"][1]["content"], return_tensors="pt"
        )
        with torch.no_grad():
            theirs += float(run.loaded.model(**batch).loss) * batch["labels"].numel()
        count += batch["labels"].numel()
    assert float(ours.detach()) == pytest.approx(theirs, rel=1e-5)
    assert run.head.make_batch(run, part).targets == count


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    sizes = {"max_steps": 6, "effective_batch_size": 8, "micro_batch_size": 4}
    surroundings, plan = around(tmp_path), plan_of(hyperparameters=sizes)

    def state(run: Run) -> dict[str, Any]:
        found = checkpoints.load_newest(run.settings.checkpoints, {})
        assert found is not None
        return found.tensors

    run = prepared(surroundings, plan)
    stages.train(run)
    expected = state(run)
    surroundings.environment["STROP_WORK"] = str(tmp_path / "again")
    stopped = prepared(surroundings, plan)
    original = stopped.set_pass

    def set_pass(step: int, micro: int) -> None:
        stopped.stop.requested = stopped.stop.requested or (step, micro) == (3, 1)
        original(step, micro)

    stopped.set_pass = set_pass
    with pytest.raises(Preempted):
        stages.train(stopped)
    resumed = prepared(surroundings, plan)
    stages.train(resumed)
    assert resumed.result.resumed_from == 3
    found = state(resumed)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": {"type": "prompt-tuning", "lora": None, "virtual_tokens": 4}}, "method.type: found prompt-tuning"),
        (
            {"method": {"type": "qlora"}},
            "allowed for T5ForConditionalGeneration, which reads",
        ),
        ({"artifact": {"onnx": ["int4"]}}, "output.onnx.precisions: found int4, allowed"),
        ({"artifact": {"onnx": ["fp32"], "onnx_form": "adapter"}}, "output.onnx.form: found adapter, allowed"),
        ({"task": "chat"}, "task: found chat, allowed for T5ForConditionalGeneration, which reads one text and writes"),
        ({"task": "text-generation"}, "task: found text-generation, allowed"),
        ({"model": {"chat_template": CHAT_TEMPLATE}}, "model.chatTemplate: found one"),
    ],
)
def test_what_it_does_not_do_is_told_before_weights_are_loaded(tmp_path: Path, changes: Any, words: str) -> None:
    surroundings = around(tmp_path)
    hyperparameters = {"packing": False, **changes.pop("hyperparameters", {})}
    run = trainer.start(
        surroundings.variables(plan_of(hyperparameters=hyperparameters, **changes)), StopRequest(), Clock()
    )
    (surroundings.volumes / "models" / "tiny" / "model.safetensors").write_bytes(b"never read")
    if changes.get("task"):
        with pytest.raises(TrainerError) as refused:
            stages.fetch_model(run)
    else:
        with pytest.raises(TrainerError) as refused:
            stages.check(run)
    assert refused.value.exit_code == ExitCode.BAD_CONFIGURATION
    assert words in refused.value.message


def test_a_marian_is_refused_more_tokens_than_it_has_positions_and_languages_it_does_not_write(tmp_path: Path) -> None:
    surroundings = around(tmp_path, "marian")
    with pytest.raises(TrainerError, match=r"training\.maxLength: found 129, allowed: up to 128, the positions"):
        prepared(surroundings, plan_of(hyperparameters={"max_length": 129}))
    wrong = [*rows(8), {"source": "fox", "target": "x", "target_language": "sv"}]
    write_jsonl(surroundings.volumes / "data" / "train.jsonl", wrong)
    with pytest.raises(TrainerError) as refused:
        prepared(surroundings, plan_of())
    assert refused.value.exit_code == ExitCode.BAD_DATA
    assert re.search(r"train.jsonl.*9.*target_language: found sv, expected de, fr", refused.value.message, re.DOTALL)


def test_a_long_source_keeps_its_end_token_and_a_long_target_does_not(tmp_path: Path) -> None:
    folder = check_model_folder(tiny_encoder_decoder(tmp_path / "bart", "bart"), "pvc://models/bart", chat=False)
    task: Any = task_for(task_named("summarization"), folder)
    assert isinstance(task, EncoderDecoderTask)
    from strop_trainer.methods import load_tokenizer  # noqa: PLC0415

    tokenizer = load_tokenizer(folder.path, fast=False)
    row = {
        "messages": [
            {"role": "user", "content": "Summarize:\n\n" + "fox " * 20},
            {"role": "assistant", "content": "dog " * 20},
        ]
    }
    encoded = task.encode([json.dumps(row).encode()], tokenizer, 8)
    (example,) = encoded.examples
    assert len(example.input_ids) == len(example.target_ids) == 8
    assert example.input_ids[-1] == tokenizer.eos_token_id
    # BART's decoder begins with the end token, and is made to say the token of the beginning.
    assert example.given == (tokenizer.eos_token_id, tokenizer.bos_token_id)
    assert tokenizer.eos_token_id not in example.target_ids
    assert encoded.truncated == 1
    assert max(encoded.lengths) > 8


def test_what_stands_in_front_of_a_text() -> None:
    assert t5_source("translation", "Hi", "en", "de") == "translate English to German: Hi"
    assert t5_source("translation", "Hi", None, "de") == "translate to German: Hi"
    assert t5_source("translation", "Hi") == "Hi"
    assert t5_source("summarization", "Long.") == "summarize: Long."
    assert t5_source("question-answering", "Who?") == "Who?"
    assert marian_source("Hi", "de", [">>de<<", ">>fr<<"]) == ">>de<< Hi"
    assert marian_source(">>fr<< Hi", "de", [">>de<<", ">>fr<<"]) == ">>fr<< Hi"
    assert marian_source("Hi", "de", []) == "Hi"
