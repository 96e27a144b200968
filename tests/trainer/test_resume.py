"""A run that was killed at any moment ends as one that was not, bit for bit."""

import hashlib
import json
import os
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from strop_trainer import __main__ as trainer
from strop_trainer import checkpoints, stages, training
from strop_trainer.context import Clock, StopRequest
from strop_trainer.errors import Preempted
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import Plan
from tests.support.data import preference_rows, write_jsonl
from tests.support.models import tiny_encoder, tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = pytest.mark.trainer

STEPS = 6
Hook = Callable[[int, int], None]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that drops attention, so that torch's random state matters."""
    import peft  # noqa: F401, PLC0415 - once here, not in each child

    folder = tiny_llama(tmp_path_factory.mktemp("model") / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.1}))
    return folder


def lay_out(path: Path, model: Path) -> Surroundings:
    around = Surroundings(path)
    around.write_rows()
    shutil.copytree(model, around.volumes / "models" / "tiny")
    return around


def nothing(_step: int, _micro: int) -> None:
    return


def train(around: Surroundings, plan: Plan, hook: Hook = nothing) -> None:
    """Go from check to the end of training; `hook` is called before each forward pass."""
    stop = StopRequest()
    stop.install()
    run = trainer.start(around.variables(plan), stop, Clock())
    for stage in (stages.check, stages.fetch, stages.prepare):
        stage(run)
    original = run.set_pass

    def set_pass(step: int, micro: int) -> None:
        hook(step, micro)
        original(step, micro)

    run.set_pass = set_pass
    stages.train(run)


def in_child(action: Callable[[], None]) -> int:
    """Run an action in a copy of this process; return its exit code, or minus the signal that ended it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on, forking beside threads
        child = os.fork()
    if child == 0:
        try:
            action()
            code = 0
        except Preempted:
            code = int(ExitCode.PREEMPTED)
        except BaseException:  # noqa: BLE001 - the child must never go on as the test
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


def kill_at(step: int, micro: int, number: int = signal.SIGKILL) -> Hook:
    def hook(at_step: int, at_micro: int) -> None:
        if (at_step, at_micro) == (step, micro):
            kill(number)

    return hook


def final_state(around: Surroundings) -> dict[str, str]:
    """Hash every tensor of the last checkpoint: weights, moments, random state; and the metrics without timings."""
    found = checkpoints.load_newest(around.work / "checkpoints", {})
    assert found is not None
    assert found.step == STEPS
    hashes = {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in found.tensors.items()}
    timings = ("tokens_per_second", "rss_bytes", "peak_bytes")
    lines = [{name: line[name] for name in line if name not in timings} for line in around.metrics()]
    return hashes | {"metrics": json.dumps(lines)}


@pytest.fixture(scope="module")
def uninterrupted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    around = lay_out(tmp_path_factory.mktemp("straight"), model)
    assert in_child(lambda: train(around, make_plan())) == 0
    return final_state(around)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    tmp_path: Path, model: Path, uninterrupted: dict[str, str]
) -> None:
    again, other = lay_out(tmp_path / "again", model), lay_out(tmp_path / "other", model)
    assert in_child(lambda: train(again, make_plan())) == 0
    assert final_state(again) == uninterrupted
    assert in_child(lambda: train(other, make_plan(hyperparameters={"seed": 8}))) == 0
    differing = [name for name, value in final_state(other).items() if value != uninterrupted[name]]
    assert any("lora_A" in name for name in differing)


@pytest.mark.parametrize(("step", "micro"), [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0), (5, 1)])
def test_killed_in_a_step(tmp_path: Path, model: Path, uninterrupted: dict[str, str], step: int, micro: int) -> None:
    around = lay_out(tmp_path, model)
    assert in_child(lambda: train(around, make_plan(), kill_at(step, micro))) == -signal.SIGKILL
    assert in_child(lambda: train(around, make_plan())) == 0
    assert final_state(around) == uninterrupted


def test_killed_again_and_again(tmp_path: Path, model: Path, uninterrupted: dict[str, str]) -> None:
    around = lay_out(tmp_path, model)
    for step in (1, 3, 3, 5):
        assert in_child(lambda: train(around, make_plan(), kill_at(step, 0))) == -signal.SIGKILL  # noqa: B023
    assert in_child(lambda: train(around, make_plan())) == 0
    assert final_state(around) == uninterrupted


@pytest.mark.parametrize("part", ["tensors.safetensors", "state.json", "manifest.json", ".step-000000004.part"])
def test_killed_while_a_checkpoint_is_written(
    tmp_path: Path, model: Path, uninterrupted: dict[str, str], part: str
) -> None:
    around = lay_out(tmp_path, model)
    flush = checkpoints._flush

    def flush_or_die(path: Path) -> None:
        if path.name == part and "step-000000004" in str(path):
            kill()
        flush(path)

    def action() -> None:
        with mock.patch.object(checkpoints, "_flush", flush_or_die):
            train(around, make_plan())

    assert in_child(action) == -signal.SIGKILL
    assert in_child(lambda: train(around, make_plan())) == 0
    assert final_state(around) == uninterrupted


@pytest.mark.parametrize(("step", "micro"), [(0, 0), (2, 1), (3, 0), (5, 1)])
def test_sigterm_saves_the_step_before_and_exits_75(
    tmp_path: Path, model: Path, uninterrupted: dict[str, str], step: int, micro: int
) -> None:
    around = lay_out(tmp_path, model)
    stopped = in_child(lambda: train(around, make_plan(), kill_at(step, micro, signal.SIGTERM)))
    assert stopped == ExitCode.PREEMPTED
    found = checkpoints.load_newest(around.work / "checkpoints", {})
    assert found is not None
    assert found.step == step
    assert in_child(lambda: train(around, make_plan())) == 0
    assert final_state(around) == uninterrupted


def test_sigterm_while_the_last_checkpoint_is_written(
    tmp_path: Path, model: Path, uninterrupted: dict[str, str]
) -> None:
    around = lay_out(tmp_path, model)
    save = training.save_checkpoint

    def save_and_be_told(*arguments: object, **more: object) -> object:
        if arguments[1] == STEPS:
            kill(signal.SIGTERM)
        return save(*arguments, **more)  # type: ignore[arg-type]

    def action() -> None:
        with mock.patch.object(training, "save_checkpoint", save_and_be_told):
            train(around, make_plan())

    assert in_child(action) == ExitCode.PREEMPTED
    assert final_state(around) == uninterrupted
    assert in_child(lambda: train(around, make_plan())) == 0
    assert final_state(around) == uninterrupted


def test_a_changed_dataset_starts_anew(tmp_path: Path, model: Path, uninterrupted: dict[str, str]) -> None:
    around = lay_out(tmp_path, model)
    around.write_rows(train=11)
    assert in_child(lambda: train(around, make_plan())) == 0
    assert final_state(around) != uninterrupted
    around.write_rows()
    assert in_child(lambda: train(around, make_plan())) == 0
    assert final_state(around) == uninterrupted


@pytest.mark.parametrize(
    "change", [{"packing": False}, {"gradient_checkpointing": True}, {"precision": "bf16"}, {"micro_batch_size": 4}]
)
def test_other_ways_to_compute_resume_to_the_same_bits(tmp_path: Path, model: Path, change: dict[str, object]) -> None:
    straight, killed = lay_out(tmp_path / "straight", model), lay_out(tmp_path / "killed", model)
    plan = make_plan(hyperparameters=change)
    assert in_child(lambda: train(straight, plan)) == 0
    assert in_child(lambda: train(killed, plan, kill_at(3, 0))) == -signal.SIGKILL
    assert in_child(lambda: train(killed, plan)) == 0
    assert final_state(killed) == final_state(straight)


def test_an_attempt_that_is_placed_where_activations_do_not_fit_goes_on_to_the_same_bits(
    tmp_path: Path, model: Path, uninterrupted: dict[str, str]
) -> None:
    killed = lay_out(tmp_path, model)
    plan = make_plan(hyperparameters={"gradient_checkpointing": "auto"})
    roomy, tight = (
        plan.model_copy(update={"placement": plan.placement.model_copy(update={"gradient_checkpointing": value})})
        for value in (False, True)
    )
    assert in_child(lambda: train(killed, roomy, kill_at(3, 0))) == -signal.SIGKILL
    assert in_child(lambda: train(killed, tight, kill_at(1, 0))) == 0, "it does not begin anew"
    assert final_state(killed) == uninterrupted


LORA = {"rank": 4, "alpha": 8, "dropout": 0.1, "target_modules": "all-linear"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "method",
    [
        {"type": "full", "lora": None},
        {"type": "dora", "lora": LORA},
        {"type": "qlora", "lora": LORA},
        {"type": "lora", "lora": {**LORA, "initialization": "pissa", "plus_ratio": 4.0}},
        {"type": "ia3", "lora": None},
        {"type": "prompt-tuning", "lora": None, "virtual_tokens": 5},
        {"type": "prefix-tuning", "lora": None, "virtual_tokens": 5},
        {"type": "p-tuning", "lora": None, "virtual_tokens": 5},
    ],
    ids=lambda method: method["type"],
)
def test_every_method_resumes_to_the_same_bits(tmp_path: Path, model: Path, method: dict, precision: str) -> None:
    straight, killed = lay_out(tmp_path / "straight", model), lay_out(tmp_path / "killed", model)
    hyperparameters = {"precision": precision, "packing": "virtual_tokens" not in method}
    plan = make_plan(
        method=method, hyperparameters=hyperparameters, artifact={"onnx": [], "merged": method["type"] == "full"}
    )
    assert in_child(lambda: train(straight, plan)) == 0
    assert in_child(lambda: train(killed, plan, kill_at(3, 1))) == -signal.SIGKILL
    assert in_child(lambda: train(killed, plan)) == 0
    assert final_state(killed) == final_state(straight)


@pytest.mark.parametrize(
    "method", [{"type": "full", "lora": None}, {"type": "lora", "lora": LORA}], ids=["full", "lora"]
)
def test_a_model_of_which_a_part_is_never_read_resumes_to_the_same_bits(tmp_path: Path, method: dict) -> None:
    straight, killed = Surroundings(tmp_path / "straight"), Surroundings(tmp_path / "killed")
    rows = [{"tokens": ["the", colour, str(number)], "tags": ["O", "C", "O"]} for number, colour in enumerate("ab" * 6)]
    for around in (straight, killed):
        write_jsonl(around.volumes / "data" / "train.jsonl", rows)
        write_jsonl(around.volumes / "data" / "held.jsonl", rows[:4])
        # BigBird has a pooler, which tags do not come by: it gets no gradient, and AdamW keeps nothing of it.
        tiny_encoder(around.volumes / "models" / "tiny", "big_bird", attention_type="original_full", sep_token_id=3)
    plan = make_plan(
        task="token-classification",
        method=method,
        hyperparameters={"packing": False},
        artifact={"merged": method["type"] == "full"},
    )
    assert in_child(lambda: train(straight, plan)) == 0
    assert in_child(lambda: train(killed, plan, kill_at(3, 1))) == -signal.SIGKILL
    assert in_child(lambda: train(killed, plan)) == 0
    assert final_state(killed) == final_state(straight)


def test_preferences_resume_to_the_same_bits(tmp_path: Path, model: Path) -> None:
    straight, killed = lay_out(tmp_path / "straight", model), lay_out(tmp_path / "killed", model)
    for around in (straight, killed):
        write_jsonl(around.volumes / "data" / "train.jsonl", preference_rows(12))
        write_jsonl(around.volumes / "data" / "held.jsonl", preference_rows(16)[12:])
    plan = make_plan(
        task="preference",
        hyperparameters={"preference_beta": 0.1, "precision": "bf16"},
        evaluation={"every_steps": 3},
    )
    assert in_child(lambda: train(straight, plan)) == 0
    assert in_child(lambda: train(killed, plan, kill_at(1, 1))) == -signal.SIGKILL
    assert in_child(lambda: train(killed, plan, kill_at(3, 1))) == -signal.SIGKILL
    # What the model said before training has been kept until here; lost, it is computed again.
    shutil.rmtree(killed.work / "reference")
    assert in_child(lambda: train(killed, plan)) == 0
    assert final_state(killed) == final_state(straight)
