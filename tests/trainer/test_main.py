"""The trainer as a process: each way to end, with its exit code and its last word."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from strop_trainer import ending
from strop_trainer.context import Clock, StopRequest
from strop_trainer.errors import Preempted, TrainerError, explain
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import Plan
from strop_trainer.termination import TerminationMessage
from tests.support.data import write_jsonl
from tests.support.models import tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = pytest.mark.trainer


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    found = Surroundings(tmp_path)
    found.write_rows()
    return found


def stand_in(around: Surroundings) -> Path:
    """A model folder that is right by its files."""
    folder = around.volumes / "models" / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (folder / "model.safetensors").write_bytes(b"\0" * 8)
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    return folder


def torch_free(around: Surroundings) -> None:
    """Make the import of torch fail, to show that it was not needed."""
    (around.root / "no-torch" / "torch").mkdir(parents=True)
    (around.root / "no-torch" / "torch" / "__init__.py").write_text("raise RuntimeError('torch was imported')")
    around.environment["PYTHONPATH"] = str(around.root / "no-torch")


PAIRS = [{"prompt": f"ask {number}", "chosen": "yes", "rejected": "no"} for number in range(4)]

WRONG: dict[str, tuple[Any, Plan, ExitCode, str]] = {
    "bad row": (
        lambda a: (a.volumes / "data" / "train.jsonl").write_text('{"messages": []}\n{"messages": [\n'),
        make_plan(),
        ExitCode.BAD_DATA,
        "pvc://data/train.jsonl line 2: broken JSON",
    ),
    "missing file": (
        lambda a: (a.volumes / "data" / "train.jsonl").unlink(),
        make_plan(),
        ExitCode.MISSING_INPUT,
        "claim data has no 'train.jsonl'",
    ),
    "missing claim": (
        lambda _: None,
        make_plan(model={"source": "pvc://nowhere/m"}),
        ExitCode.MISSING_INPUT,
        "claim nowhere is not mounted",
    ),
    "unknown metric": (
        lambda _: None,
        make_plan(evaluation={"minimum": {"bleu": 1.0}}),
        ExitCode.BAD_CONFIGURATION,
        "evaluation.minimum.bleu: unknown metric, allowed for chat: eval_loss, perplexity, token_accuracy, exact_match",
    ),
    "metric that needs answers": (
        lambda _: None,
        make_plan(evaluation={"minimum": {"exact_match": 1.0}, "generate_rows": 0}),
        ExitCode.BAD_CONFIGURATION,
        "needs evaluation.generateRows of at least 1",
    ),
    "metric that needs answers of a model that generates them": (
        lambda a: (
            tiny_llama(a.volumes / "models" / "tiny"),
            (a.volumes / "data" / "train.jsonl").write_text('{"question": "why?", "answer": "so"}\n' * 8),
        ),
        make_plan(task="question-answering", evaluation={"minimum": {"f1": 1.0}, "generate_rows": 0}),
        ExitCode.BAD_CONFIGURATION,
        "needs evaluation.generateRows of at least 1",
    ),
    "nothing to publish": (
        lambda _: None,
        make_plan(method={"type": "full"}),
        ExitCode.BAD_CONFIGURATION,
        "artifact.merged: found false without ONNX; method full has no adapter to publish",
    ),
    "packed prompts": (
        lambda _: None,
        make_plan(method={"type": "p-tuning", "virtual_tokens": 4}),
        ExitCode.BAD_CONFIGURATION,
        "training.packing: found true; p-tuning puts tokens in front of each row",
    ),
    "prompts for ONNX": (
        lambda _: None,
        make_plan(
            method={"type": "prompt-tuning", "virtual_tokens": 4},
            hyperparameters={"packing": False},
            artifact={"onnx": ["fp32"]},
        ),
        ExitCode.BAD_CONFIGURATION,
        "the tokens of prompt-tuning cannot be folded into the weights",
    ),
    "recomputed prefix": (
        lambda _: None,
        make_plan(
            method={"type": "prefix-tuning", "virtual_tokens": 4},
            hyperparameters={"packing": False, "gradient_checkpointing": True},
        ),
        ExitCode.BAD_CONFIGURATION,
        "training.gradientCheckpointing: found true",
    ),
    "prefix that the pool decides on": (
        lambda _: None,
        make_plan(
            method={"type": "prefix-tuning", "virtual_tokens": 4},
            hyperparameters={"packing": False, "gradient_checkpointing": "auto"},
        ),
        ExitCode.BAD_CONFIGURATION,
        "training.gradientCheckpointing: found auto",
    ),
    "initialization": (
        lambda _: None,
        make_plan(
            method={
                "lora": {
                    "rank": 4,
                    "alpha": 8,
                    "dropout": 0.1,
                    "target_modules": "all-linear",
                    "initialization": "loftq",
                }
            }
        ),
        ExitCode.BAD_CONFIGURATION,
        "method.lora.initialization: found loftq, allowed for lora: default, pissa, olora",
    ),
    "precision": (
        lambda _: None,
        make_plan(hyperparameters={"precision": "fp16"}),
        ExitCode.BAD_CONFIGURATION,
        "training.precision: fp16 is not supported, allowed: auto, bf16, fp32",
    ),
    "ranks": (
        lambda _: None,
        make_plan(distributed={"strategy": "ddp", "world_size": 2}),
        ExitCode.BAD_CONFIGURATION,
        "placement: found 1 nodes of 1 ranks for a training of 2",
    ),
    "strategy": (
        lambda _: None,
        make_plan(distributed={"world_size": 2}),
        ExitCode.BAD_CONFIGURATION,
        "distributed.strategy: found none for 2 ranks",
    ),
    "rank without a row": (
        lambda _: None,
        make_plan(distributed={"strategy": "ddp", "world_size": 5}),
        ExitCode.BAD_CONFIGURATION,
        "training.effectiveBatchSize: found 4 for 5 ranks",
    ),
    "offload": (
        lambda _: None,
        make_plan(distributed={"strategy": "zero-2", "offload": "all"}),
        ExitCode.BAD_CONFIGURATION,
        "distributed.offload: found all with strategy zero-2, allowed: optimizer with zero-1, zero-2 and zero-3, all",
    ),
    "task of several ranks": (
        lambda _: None,
        make_plan(task="preference", distributed={"strategy": "ddp", "world_size": 2}),
        ExitCode.BAD_CONFIGURATION,
        "distributed.strategy: found ddp for task preference, allowed: none",
    ),
    "method of several ranks": (
        lambda _: None,
        make_plan(method={"type": "ia3"}, distributed={"strategy": "ddp", "world_size": 2}),
        ExitCode.BAD_CONFIGURATION,
        "distributed.strategy: found ddp for method ia3, allowed: none",
    ),
    "preference without beta": (
        lambda a: (stand_in(a), write_jsonl(a.volumes / "data" / "train.jsonl", PAIRS)),
        make_plan(task="preference", dataset={"validation": []}),
        ExitCode.BAD_CONFIGURATION,
        "training.preferenceBeta: missing for task preference",
    ),
    "no tokenizer": (
        lambda a: (stand_in(a) / "tokenizer_config.json").unlink(),
        make_plan(),
        ExitCode.MISSING_INPUT,
        "model folder pvc://models/tiny has no tokenizer",
    ),
    "pickle only": (
        lambda a: (stand_in(a) / "model.safetensors").rename(a.volumes / "models" / "tiny" / "pytorch_model.bin"),
        make_plan(),
        ExitCode.BAD_CONFIGURATION,
        "has its weights as pytorch_model.bin only",
    ),
    "registry is a file": (
        lambda a: (a.registry.rmdir(), a.registry.write_text("")),
        make_plan(),
        ExitCode.CANNOT_PUBLISH,
        "registry",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_before_torch_is_imported(around: Surroundings, case: str) -> None:
    break_it, plan, code, words = WRONG[case]
    break_it(around)
    torch_free(around)
    ended = around.run(plan)
    assert ended.code == code, ended.errors
    assert ended.message is not None
    assert words in ended.message.message
    assert ended.message.stage in {"check", "fetch"}
    assert "Traceback" not in ended.errors
    assert ended.message.message.splitlines()[0] in ended.output


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ({"model_type": "nonesuch"}, "nonesuch"),
    ],
)
def test_an_unsupported_architecture_is_told_before_weights_are_loaded(
    around: Surroundings, config: dict[str, Any], named: str
) -> None:
    # The stand-in's weights and tokenizer cannot be loaded: this is told before that is tried.
    (stand_in(around) / "config.json").write_text(json.dumps(config))
    ended = around.run(make_plan())
    assert ended.code == ExitCode.BAD_CONFIGURATION
    assert ended.message is not None
    assert f"unsupported architecture {named}" in ended.message.message


def test_a_plan_that_was_edited_or_is_missing(around: Surroundings) -> None:
    plan = make_plan()
    ended = around.run(plan.model_copy(update={"digest": "sha256:0"}))
    assert ended.code == ExitCode.BAD_CONFIGURATION
    assert "the plan was edited" in ended.output
    around.environment["STROP_PLAN"] = str(around.root / "nowhere.json")
    ended = around.run(plan)
    assert ended.code == ExitCode.BAD_CONFIGURATION
    assert ended.message is not None


def test_a_missing_variable_is_named() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STROP_")}
    ended = subprocess.run(
        [sys.executable, "-m", "strop_trainer"], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == ExitCode.BAD_CONFIGURATION
    assert "environment: missing STROP_PLAN" in ended.stdout


def test_from_rows_to_a_published_adapter(around: Surroundings) -> None:
    tiny_llama(around.volumes / "models" / "tiny")
    plan = make_plan(evaluation={"every_steps": 2, "generate_rows": 2, "max_new_tokens": 4})
    ended = around.run(plan, warm=False)
    assert ended.code == 0, ended.errors
    assert ended.message is not None
    published = ended.message.published
    assert published is not None
    assert (published.path, published.version) == ("team/tuned/1", 1)
    assert (published.train_rows, published.validation_rows) == (12, 4)
    assert set(published.metrics_tuned) == {"eval_loss", "perplexity", "token_accuracy", "exact_match"}
    assert published.metrics_tuned["eval_loss"] < published.metrics_base["eval_loss"]
    version = around.registry / "tuned" / "1"
    assert {"adapter", "metrics.jsonl", "manifest.json"} <= {path.name for path in version.iterdir()}
    assert (version / "adapter" / "adapter_model.safetensors").is_file()
    config = json.loads((version / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "pvc://models/tiny"
    lines = around.metrics()
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "eval_loss" in line] == [2, 4]
    assert list(ended.message.stage_seconds) == [
        "check",
        "fetch",
        "prepare",
        "train",
        "evaluate",
        "export",
        "prove",
        "publish",
    ]
    for words in (
        "rows: 12 to train, 4 held out",
        "tokens:",
        "steps: 6 (3 an epoch",
        "trained",
        "of which not training",
    ):
        assert words in ended.output
    assert not list(around.registry.glob("tuned/.*"))
    # The same job again, as after a lost pod: nothing is trained again, and there is no second version.
    again = around.run(plan)
    assert again.code == 0, again.errors
    assert "goes on after step 6" in again.output
    assert again.message is not None
    assert again.message.published == published
    assert not (around.registry / "tuned" / "2").exists()


def test_a_missed_gate_is_not_published(around: Surroundings) -> None:
    tiny_llama(around.volumes / "models" / "tiny")
    plan = make_plan(evaluation={"maximum": {"eval_loss": 0.01}, "minimum": {"token_accuracy": 0.0}})
    ended = around.run(plan)
    assert ended.code == ExitCode.PROOF_FAILED
    assert ended.message is not None
    assert ended.message.reason == "MetricGateMissed"
    assert "eval_loss: found" in ended.message.message
    assert "expected at most 0.01" in ended.message.message
    assert not (around.registry / "tuned" / "1").exists()


def test_sigterm_in_training_is_told_as_preempted(around: Surroundings) -> None:
    tiny_llama(around.volumes / "models" / "tiny")
    process = around.start(make_plan(hyperparameters={"max_steps": 100_000}))
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "| loss" in line:
            process.send_signal(signal.SIGTERM)
            break
    output, errors = process.communicate(timeout=60)
    ended = around.ended(process.returncode, "".join(seen) + output, errors)
    assert ended.code == ExitCode.PREEMPTED, ended.errors
    assert ended.message is not None
    assert (ended.message.stage, ended.message.reason) == ("train", "Preempted")
    assert list((around.work / "checkpoints").glob("step-*"))
    assert "Traceback" not in ended.errors


def test_a_stop_is_raised_at_once_but_not_in_deferred_parts() -> None:
    stop = StopRequest()
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        stop.install()
        with stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested
            with pytest.raises(Preempted), stop.immediate():
                pytest.fail("the stop is let through at the door")
        fresh = StopRequest()
        fresh.install()
        with pytest.raises(Preempted):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # a second one changes nothing
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def test_a_stop_that_comes_while_an_error_is_put_into_words_does_not_cost_the_last_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop, clock = StopRequest(), Clock()
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def go() -> TerminationMessage:
        clock.stage = "train"
        raise TrainerError(ExitCode.BAD_DATA, "row 3")

    def stopped_meanwhile(error: BaseException) -> TrainerError:
        os.kill(os.getpid(), signal.SIGTERM)  # such as from torch's agent, when another rank has failed, too
        return explain(error)

    monkeypatch.setattr(ending, "explain", stopped_meanwhile)
    try:
        with stop.deferred():
            stop.install()
            message, code = ending.conclude(go, clock, stop)
        assert (code, message.stage, message.message) == (ExitCode.BAD_DATA, "train", "row 3")
        fresh = StopRequest()
        with fresh.deferred():
            fresh.install()
            os.kill(os.getpid(), signal.SIGTERM)
            message, code = ending.conclude(go, clock, fresh)
        assert code is ExitCode.PREEMPTED
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def test_unexpected_errors_in_words() -> None:
    assert explain(KeyError("x")).exit_code is ExitCode.INTERNAL
    assert explain(KeyError("x")).message == "unexpected KeyError: 'x'"
    assert explain(MemoryError()).exit_code is ExitCode.BAD_CONFIGURATION
    allocator = RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")
    assert "out of memory" in explain(allocator).message
    assert "training.gradientCheckpointing: true" in explain(allocator).message
    assert "the work volume is full" in explain(OSError(28, "No space left on device", "/work/x")).message
    known = TrainerError(ExitCode.BAD_DATA, "x")
    assert explain(known) is known
