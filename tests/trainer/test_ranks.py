"""Several ranks of one pod: the same training as one, one last word, one checkpoint."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from strop_trainer.checkpoints import load_newest
from strop_trainer.documents import TrainingDocument
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import DistributedPlan, Plan
from strop_trainer.ranks.launch import RankReport, blame, reached
from strop_trainer.ranks.team import Team, deal
from strop_trainer.termination import TerminationMessage
from tests.support.data import write_jsonl
from tests.support.models import tiny_encoder, tiny_llama
from tests.support.ranks import run_warm_ranks, shared_plan
from tests.support.training import Ended, Surroundings, make_plan

pytestmark = pytest.mark.trainer

LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 1e-3}
"""Of the loss on held-out rows, nats: what sums in another order may make of it; 5e-7 and 1.2e-4 seen."""
WEIGHT_TOLERANCE = 1e-3
"""Of the norm of what is trained."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny")


def lay_out(path: Path, model: Path) -> Surroundings:
    around = Surroundings(path)
    around.write_rows(train=14)
    shutil.copytree(model, around.volumes / "models" / "tiny")
    return around


def trained(around: Surroundings) -> dict[str, Any]:
    """Return what was trained, by name, from the last checkpoint."""
    found = load_newest(around.work / "checkpoints", {})
    assert found is not None
    assert found.step == 6
    return {name: tensor for name, tensor in found.tensors.items() if name.startswith("parameter.")}


def difference(one: dict[str, Any], two: dict[str, Any]) -> float:
    assert one.keys() == two.keys()
    change = sum(float((one[name] - two[name]).square().sum()) for name in one) ** 0.5
    return change / sum(float(tensor.square().sum()) for tensor in one.values()) ** 0.5


LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
FULL = {"method": {"type": "full", "lora": None}, "artifact": {"onnx": [], "merged": True}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    # The masks of LoRA's dropout are those of the forward pass, whichever rank makes it.
    "ddp lora": ("ddp", {"method": {"lora": {**LORA, "dropout": 0.1}}, "evaluation": {"every_steps": 3}}),
    "ddp full padded": (
        "ddp",
        {**FULL, "hyperparameters": {"packing": False, "gradient_checkpointing": True, "learning_rate": 1e-3}},
    ),
    "zero-1 dora": ("zero-1", {"method": {"type": "dora", "lora": LORA}}),
    "zero-2 full": ("zero-2", FULL),
    "zero-1 offload": ("zero-1", {**FULL, "distributed": {"offload": "optimizer"}}),
    "zero-3 lora": ("zero-3", {"method": {"lora": LORA}, "evaluation": {"every_steps": 3}}),
    "zero-3 full bf16": (
        "zero-3",
        {**FULL, "hyperparameters": {"precision": "bf16", "learning_rate": 1e-3, "gradient_checkpointing": True}},
    ),
}


def check_as_one(alone: Surroundings, shared: Surroundings, strategy: str, **changes: Any) -> None:
    """Train in one process and in two ranks: the same within tolerance, and each rank's memory is told."""
    precision = changes.get("hyperparameters", {}).get("precision", "fp32")
    one = alone.run(make_plan(**{**changes, "distributed": {}}))
    assert one.message is not None
    assert one.message.published is not None, one.output + one.errors
    reports = run_warm_ranks(shared, shared_plan(strategy, 2, **changes))
    errors = (shared.root / "stderr-0").read_text() + (shared.root / "stderr-1").read_text()
    assert {rank: report.code for rank, report in reports.items()} == {0: ExitCode.OK, 1: ExitCode.OK}, errors
    assert "Warning" not in errors
    published = reports[0].message.published
    assert published is not None
    for name, expected in one.message.published.metrics_tuned.items():
        tolerance = LOSS_TOLERANCE[precision]
        if name == "perplexity":  # the loss's exponential
            close = pytest.approx(expected, rel=tolerance, abs=0)
        else:
            close = pytest.approx(expected, rel=0, abs=tolerance if name == "eval_loss" else 0.1)
        assert published.metrics_tuned[name] == close
    assert difference(trained(alone), trained(shared)) < WEIGHT_TOLERANCE
    document = TrainingDocument.model_validate_json((shared.registry / "tuned" / "1" / "training.json").read_bytes())
    assert [memory.rank for memory in document.ranks] == [0, 1]
    assert all(memory.peak_bytes > 50_000_000 for memory in document.ranks)


RESUMED = ("zero-2 full", "zero-3 full bf16")
RESUMED_TOLERANCE = 1e-6
"""Of the norm of what is trained: nothing but what is computed again may differ."""


def check_resumed(shared: Surroundings, strategy: str, **changes: Any) -> None:
    """Take the last steps of a job once more, as after a pod that was lost in step 5: they end at the same weights."""
    expected = trained(shared)
    shutil.rmtree(shared.registry / "tuned")
    shutil.rmtree(shared.work / "checkpoints" / "step-000000006")
    reports = run_warm_ranks(shared, shared_plan(strategy, 2, **changes))
    assert reports[0].code is ExitCode.OK, (shared.root / "stderr-0").read_text()
    assert "goes on after step 4" in (shared.root / "stdout-0").read_text()
    assert difference(expected, trained(shared)) < RESUMED_TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_train_what_one_does(tmp_path: Path, model: Path, case: str) -> None:
    strategy, changes = CASES[case]
    shared = lay_out(tmp_path / "shared", model)
    check_as_one(lay_out(tmp_path / "alone", model), shared, strategy, **changes)
    if case in RESUMED:
        check_resumed(shared, strategy, **changes)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("strategy", ["ddp", "zero-2", "zero-3"])
def test_two_ranks_train_modules_in_full_beside_an_adapter(tmp_path: Path, strategy: str, precision: str) -> None:
    model = tiny_llama(tmp_path / "model", tie_word_embeddings=False)
    changes: dict[str, Any] = {
        "method": {"lora": {**LORA, "modules_to_save": ["lm_head", "embed_tokens"]}},
        "hyperparameters": {"precision": precision, "learning_rate": 1e-3},
    }
    shared = lay_out(tmp_path / "shared", model)
    check_as_one(lay_out(tmp_path / "alone", model), shared, strategy, **changes)


def test_zero_of_one_rank_trains_what_one_process_does(tmp_path: Path, model: Path) -> None:
    alone, zero = lay_out(tmp_path / "alone", model), lay_out(tmp_path / "zero", model)
    changes: dict[str, Any] = {"method": {"lora": LORA}}
    assert alone.run(make_plan(**changes)).code == ExitCode.OK
    ended = zero.run(shared_plan("zero-3", 1, **changes, distributed={"offload": "all"}))
    assert ended.code == ExitCode.OK, ended.output + ended.errors
    assert difference(trained(alone), trained(zero)) < WEIGHT_TOLERANCE


@pytest.mark.parametrize(
    ("strategy", "method", "precision"),
    [("ddp", FULL, "fp32"), ("zero-3", {"method": {"lora": LORA}}, "bf16")],
    ids=["ddp", "zero-3"],
)
def test_two_ranks_train_an_encoder_as_one_does(
    tmp_path: Path, strategy: str, method: dict[str, Any], precision: str
) -> None:
    alone, shared = Surroundings(tmp_path / "alone"), Surroundings(tmp_path / "shared")
    rows = [
        {"text": f"the {colour} fox {number}", "label": colour} for number in range(6) for colour in ("red", "blue")
    ]
    for around in (alone, shared):
        write_jsonl(around.volumes / "data" / "train.jsonl", rows)
        write_jsonl(around.volumes / "data" / "held.jsonl", rows[:4])
        tiny_encoder(around.volumes / "models" / "tiny", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    numbers = {"packing": False, "learning_rate": 1e-3, "precision": precision}
    check_as_one(alone, shared, strategy, task="text-classification", **{**method, "hyperparameters": numbers})


def test_two_ranks_train_an_adapter_of_which_a_part_is_never_read(tmp_path: Path) -> None:
    alone, shared = Surroundings(tmp_path / "alone"), Surroundings(tmp_path / "shared")
    rows = [{"tokens": ["the", colour, str(number)], "tags": ["O", "C", "O"]} for number, colour in enumerate("ab" * 6)]
    for around in (alone, shared):
        write_jsonl(around.volumes / "data" / "train.jsonl", rows)
        write_jsonl(around.volumes / "data" / "held.jsonl", rows[:4])
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        own = {"attention_type": "original_full", "sep_token_id": 3}
        tiny_encoder(around.volumes / "models" / "tiny", "big_bird", **own, **dropout)
    changes: dict[str, Any] = {
        "task": "token-classification",
        "method": {"lora": LORA},
        "hyperparameters": {"packing": False, "learning_rate": 1e-3},
    }
    check_as_one(alone, shared, "ddp", **changes)
    check_resumed(shared, "ddp", **changes)


def test_two_ranks_train_a_language_model_of_which_a_part_is_never_read(tmp_path: Path) -> None:
    own = {"attention_type": "original_full", "is_decoder": True, "sep_token_id": 3}  # the pooler is of no use to it
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = tiny_llama(tmp_path / "model", architecture="big_bird", **own, **none)
    changes: dict[str, Any] = {**FULL, "hyperparameters": {"packing": False, "learning_rate": 1e-3}}
    shared = lay_out(tmp_path / "shared", model)
    check_as_one(lay_out(tmp_path / "alone", model), shared, "ddp", **changes)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, those of the ranks, in their order."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sorted(
        int(child) for child in found if b"strop_trainer.ranks.rank" in Path(f"/proc/{child}/cmdline").read_bytes()
    )


def start_and_wait(around: Surroundings, plan: Plan) -> tuple[subprocess.Popen[str], str]:
    """Start the trainer, and return it with what it has said when the first steps are done."""
    process = around.start(plan)
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "| loss" in line:
            return process, "".join(seen)
    raise AssertionError("".join(seen) + (process.stderr.read() if process.stderr else ""))


def end(around: Surroundings, process: subprocess.Popen[str], seen: str) -> Ended:
    try:
        output, errors = process.communicate(timeout=90)
    finally:
        process.kill()
    return around.ended(process.returncode, seen + output, errors)


def test_a_stop_reaches_every_rank_and_the_job_goes_on_from_its_checkpoint(tmp_path: Path, model: Path) -> None:
    around = lay_out(tmp_path, model)
    plan = shared_plan("ddp", 2, hyperparameters={"max_steps": 300}, checkpoint={"every_steps": 300})
    process, seen = start_and_wait(around, plan)
    ranks = children(process.pid)
    assert len(ranks) == 2
    process.send_signal(signal.SIGTERM)
    ended = end(around, process, seen)
    assert ended.code == ExitCode.PREEMPTED, ended.output + ended.errors
    assert ended.message is not None
    assert (ended.message.stage, ended.message.reason) == ("train", "Preempted")
    assert "Traceback" not in ended.errors
    (checkpoint,) = (around.work / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    assert 0 < step < 300
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    again = around.run(plan)
    assert again.code == ExitCode.OK, again.output + again.errors
    assert f"goes on after step {step}" in again.output
    assert again.output.count("== train") == 1  # one rank has the word
    assert "rank 1: at most" in again.output
    assert again.message is not None
    assert again.message.published is not None
    assert list(again.message.stage_seconds)[-1] == "publish"
    assert {"check", "fetch", "prepare", "train", "evaluate"} <= again.message.stage_seconds.keys()


def test_a_rank_that_is_killed_ends_the_job_and_is_named(tmp_path: Path, model: Path) -> None:
    around = lay_out(tmp_path, model)
    process, seen = start_and_wait(around, shared_plan("ddp", 2, hyperparameters={"max_steps": 3_000}))
    _, last = children(process.pid)
    os.kill(last, signal.SIGKILL)
    ended = end(around, process, seen)
    assert ended.code == ExitCode.INTERNAL, ended.output + ended.errors
    assert ended.message is not None
    assert ended.message.stage == "train"
    assert ended.message.message == "rank 1 of 2 was ended by SIGKILL; where nobody sent it, memory ran out"
    assert ended.message.message in ended.output


def report(rank: int, code: ExitCode, at: float, message: str = "") -> RankReport:
    said = TerminationMessage(stage="train", reason="x", message=message)
    return RankReport(rank=rank, at=at, code=code, message=said)


def test_the_rank_that_failed_first_is_blamed_not_those_that_lost_it() -> None:
    lost = report(0, ExitCode.INTERNAL, 5.2, "unexpected RuntimeError: Connection closed by peer")
    full = report(1, ExitCode.BAD_CONFIGURATION, 5.1, "the work volume is full")
    found = blame({0: (70, 5), 1: (78, 5)}, {0: lost, 1: full}, 2)
    assert found is not None
    assert (found.exit_code, found.message) == (ExitCode.BAD_CONFIGURATION, "rank 1 of 2: the work volume is full")
    # The agent's own SIGKILL, long after, is no news.
    found = blame({0: (-9, 60), 1: (78, 5)}, {1: full}, 2)
    assert found is not None
    assert found.message.startswith("rank 1 of 2: the work")
    found = blame({0: (70, 5), 1: (-11, 5)}, {0: lost}, 2)
    assert found is not None
    assert found.message == "rank 1 of 2 was ended by SIGSEGV"
    found = blame({1: (3, 5)}, {}, 2)
    assert found is not None
    assert found.message == "rank 1 of 2 ended with exit code 3 before it could say why"
    # A stop that was asked for, in which ranks lose each other.
    assert blame(None, {0: lost, 1: report(1, ExitCode.PREEMPTED, 5.0)}, 2) is None
    found = blame(None, {0: full.model_copy(update={"rank": 0})}, 2)
    assert found is not None
    assert found.message == "rank 0 of 2: the work volume is full"


def test_the_stage_is_known_though_the_first_rank_was_killed() -> None:
    lost = report(1, ExitCode.INTERNAL, 5.0)
    assert reached({1: lost}) == "train"
    found = blame({0: (-9, 5), 1: (70, 5)}, {1: lost}, 2)
    assert found is not None
    assert (found.stage, found.message.split(";")[0]) == ("train", "rank 0 of 2 was ended by SIGKILL")
    assert reached({0: report(0, ExitCode.INTERNAL, 5.0)}) == "train"
    assert reached({1: report(1, ExitCode.OK, 5.0)}) == "evaluate"
    assert reached({}) == "prepare"


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_each_pass_is_made_by_one_rank_and_all_make_as_many(parts: int, size: int) -> None:
    plan = DistributedPlan(strategy="ddp", world_size=size)
    shares = [deal(list(range(parts)), Team(plan, rank)) for rank in range(size)]
    assert sorted(part for share in shares for _, part, counts in share if counts) == list(range(parts))
    assert len({len(share) for share in shares}) == 1
    assert all(number == part for share in shares for number, part, counts in share if counts)
