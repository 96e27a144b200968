"""Learning from preferences: the loss is TRL's, held-out pairs are judged better for it, and the result is proven."""

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from strop_trainer import __main__ as trainer
from strop_trainer import stages
from strop_trainer.context import Clock, StopRequest
from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.heads.preference import measured
from strop_trainer.plan import Plan
from strop_trainer.registry import verify
from strop_trainer.run import Run
from tests.support.data import preference_rows, write_jsonl
from tests.support.models import CHAT_TEMPLATE, tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]

BETA = 0.25
TEMPLATE = CHAT_TEMPLATE.replace("<|im_end|>\n'", "<|im_end|>'")
"""Without the line end behind a turn: Strop learns no white space there, and TRL would."""
LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_llama(tmp_path_factory.mktemp("model") / "tiny")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def around(path: Path, model: Path, train: int = 60, held: int = 30) -> Surroundings:
    found = Surroundings(path)
    rows = preference_rows(train + held)
    write_jsonl(found.volumes / "data" / "train.jsonl", rows[:train])
    write_jsonl(found.volumes / "data" / "held.jsonl", rows[train:])
    shutil.copytree(model, found.volumes / "models" / "tiny")
    return found


def plan_of(method: dict[str, Any] | None = None, **changes: Any) -> Plan:
    hyperparameters = {
        "preference_beta": BETA,
        "effective_batch_size": 8,
        "micro_batch_size": 4,
        "deterministic": False,
        **changes.pop("hyperparameters", {}),
    }
    method = method or {"type": "lora", "lora": LORA}
    artifact = {"onnx": [], "merged": method["type"] == "full"}
    return make_plan(
        task="preference",
        method={"lora": None, **method},
        hyperparameters=hyperparameters,
        **{"artifact": artifact, **changes},
    )


def prepared(surroundings: Surroundings, plan: Plan) -> Run:
    """Go on to where training begins, in this process."""
    run = trainer.start(surroundings.variables(plan), StopRequest(), Clock())
    for stage in (stages.check, stages.fetch, stages.prepare):
        stage(run)
    run.head.before_training(run, {})
    return run


def disturb(model: Any) -> None:
    """Change what is trained, as some steps would have: at the start, most gradients are zero."""
    chance = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, parameter in sorted((n, p) for n, p in model.named_parameters() if p.requires_grad):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=chance))


def gradients(model: Any, loss: Any) -> dict[str, Any]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def by_trl(model: Any, folder: Path, out: Path, rows: list[dict[str, Any]], change: Callable[[Any], None]) -> Any:
    """Return TRL's loss of all rows in one batch, by a model that was changed after its reference was kept."""
    from datasets import Dataset  # noqa: PLC0415 - seconds
    from transformers import AutoTokenizer  # noqa: PLC0415
    from trl import DPOConfig, DPOTrainer  # noqa: PLC0415

    chat = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            **{name: [{"role": "assistant", "content": row[name]}] for name in ("chosen", "rejected")},
        }
        for row in rows
    ]
    arguments = DPOConfig(
        output_dir=str(out),
        beta=BETA,
        per_device_train_batch_size=len(rows),
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    found = DPOTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(chat),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    change(found.model)
    (batch,) = found.get_train_dataloader()
    return found.model, found.compute_loss(found.model, batch)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_loss_and_gradients_are_those_of_trl(tmp_path: Path, model: Path, kind: str) -> None:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    method = {"type": "lora", "lora": LORA} if kind == "lora" else {"type": "full"}
    runs = [
        prepared(around(tmp_path / name, model, 8), plan_of(method, hyperparameters={"packing": name == "packed"}))
        for name in ("packed", "padded")
    ]
    assert [run.packed for run in runs] == [True, False]
    base = AutoModelForCausalLM.from_pretrained(model)
    if kind == "lora":
        from peft import LoraConfig, get_peft_model  # noqa: PLC0415

        base = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
        base.load_state_dict(runs[0].loaded.model.state_dict())
    theirs, expected = by_trl(base, model, tmp_path / "trl", preference_rows(8), disturb)
    wanted = gradients(theirs, expected)
    assert abs(expected.item() - math.log(2)) > 1e-3
    for run in runs:
        batch = run.head.make_batch(run, run.encoded.examples)
        loss = run.head.loss(run)
        ours = run.loaded.model.train()
        assert loss(batch).item() / batch.targets == pytest.approx(math.log(2), abs=1e-6)
        disturb(ours)
        found = loss(batch) / batch.targets
        assert found.item() == pytest.approx(expected.item(), abs=1e-5)
        for name, gradient in gradients(ours, found).items():
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-5)


def test_the_work_goes_by_the_tokens_of_the_answers_not_by_the_pairs(tmp_path: Path, model: Path) -> None:
    run = prepared(around(tmp_path, model, 8, 4), plan_of({"type": "full"}, hyperparameters={"max_steps": 1}))
    answered = sum(side.target_count for pair in run.encoded.examples for side in pair.sides)  # type: ignore[attr-defined]
    stages.train(run)
    done = run.result.attempt
    assert (done.targets, done.predicted) == (8, answered)
    assert run.work is not None
    assert run.roofline is not None
    assert run.roofline.flops_per_second == run.work.of(done.tokens, answered) / done.seconds


def test_metrics_of_pairs() -> None:
    reference = torch.tensor([[-10.0, -8.0], [-6.0, -7.0], [-5.0, -5.0]])
    same = measured([reference], [reference], 0.1)
    assert same == pytest.approx(
        {"eval_loss": math.log(2), "reward_accuracy": 0.5, "reward_margin": 0.0, "chosen_likelier": 0.5}
    )
    moved = reference + torch.tensor([[1.0, -4.0], [0.0, -1.0], [-2.0, 0.0]])
    found = measured([moved[:2], moved[2:]], [reference[:2], reference[2:]], 0.1)
    margins = [0.5, 0.1, -0.2]
    assert found["eval_loss"] == pytest.approx(sum(math.log1p(math.exp(-m)) for m in margins) / 3)
    assert found["reward_margin"] == pytest.approx(sum(margins) / 3)
    assert found["reward_accuracy"] == pytest.approx(2 / 3)
    assert found["chosen_likelier"] == pytest.approx(2 / 3)


def test_a_pair_that_does_not_fit_is_told_with_its_place_before_weights_are_loaded(tmp_path: Path, model: Path) -> None:
    row = {"prompt": "long " * 20, "chosen": "yes", "rejected": "no"}
    surroundings = around(tmp_path, model, 2)
    write_jsonl(surroundings.volumes / "data" / "train.jsonl", [*preference_rows(2), row])
    (surroundings.volumes / "models" / "tiny" / "model.safetensors").write_bytes(b"\0" * 8)
    with pytest.raises(TrainerError) as refused:
        prepared(surroundings, plan_of())
    assert refused.value.exit_code is ExitCode.BAD_DATA
    assert "pvc://data/train.jsonl line 3: " in refused.value.message
    assert "prompt: found 109 tokens, expected fewer than 64 (training.maxLength)" in refused.value.message


@pytest.mark.parametrize("file", ["train", "held"])
def test_a_pair_that_the_template_refuses_is_told_with_its_place(tmp_path: Path, model: Path, file: str) -> None:
    surroundings = around(tmp_path, model, 2, 5)
    rows = preference_rows(5)
    # Of five pairs that in the middle is evaluated; the others are only asked.
    for row in rows[:2] if file == "train" else [*rows[:2], *rows[3:]]:
        row["prompt"] = f"storm {row['prompt']}"
    write_jsonl(surroundings.volumes / "data" / f"{file}.jsonl", rows)
    storm = "{% if messages[0]['content'].startswith('storm') %}{{ raise_exception('no weather') }}{% endif %}"
    plan = plan_of(model={"chat_template": storm + TEMPLATE}, evaluation={"max_rows": 1, "generate_rows": 5})
    with pytest.raises(TrainerError) as refused:
        prepared(surroundings, plan)
    assert refused.value.exit_code is ExitCode.BAD_DATA
    lines = "[12]" if file == "train" else "[1245]"
    told = rf"pvc://data/{file}.jsonl line {lines}: the model's chat template refuses a row: no weather"
    assert re.search(told, refused.value.message)


def test_pairs_are_learnt_proven_and_published(tmp_path: Path, model: Path) -> None:
    surroundings = around(tmp_path, model)
    ended = surroundings.run(
        plan_of(
            hyperparameters={"max_steps": 40, "deterministic": True},
            evaluation={"generate_rows": 2, "max_new_tokens": 4, "minimum": {"reward_accuracy": 0.9}},
            artifact={"onnx": ["fp32"]},
            checkpoint={"every_steps": 20},
        )
    )
    assert ended.code == 0, ended.output + ended.errors
    assert ended.message
    published = ended.message.published
    assert published
    assert published.metrics_base["reward_accuracy"] == 0.5
    assert published.metrics_base["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert published.metrics_tuned["reward_accuracy"] > 0.9
    assert published.metrics_tuned["reward_margin"] > 0.1
    assert published.metrics_tuned["chosen_likelier"] > published.metrics_base["chosen_likelier"]
    assert [proof.passed for proof in published.proofs] == [True]
    assert verify(surroundings.registry / "tuned" / "1") == []
    assert "before training is computed once\n" in ended.output
    assert "  90 pairs, held-out ones included, in" in ended.output
    # The same job again, as after a lost pod: the answers before training are those that were kept.
    again = surroundings.run(Plan.model_validate_json((surroundings.root / "plan.json").read_text()))
    assert again.code == 0, again.output + again.errors
    assert "before training is computed" not in again.output
    assert again.message
    assert again.message.published == published


def test_a_quantized_base_is_judged_by_the_merged_model(tmp_path: Path, model: Path) -> None:
    plan = plan_of(
        {"type": "qlora", "lora": LORA},
        hyperparameters={"max_steps": 12},
        evaluation={"generate_rows": 0},
    )
    run = prepared(around(tmp_path, model, 16, 8), plan)
    for stage in (stages.train, stages.evaluate, stages.export):
        stage(run)
    assert run.metrics_tuned["eval_loss"] < run.metrics_base["eval_loss"]
    # Rewards are changes against the base: what quantization moved is not among them.
    assert run.metrics_tuned["eval_loss_merged"] == pytest.approx(run.metrics_tuned["eval_loss"], abs=0.05)
    measured = {"eval_loss", "reward_accuracy", "reward_margin", "chosen_likelier"}
    assert {name for name in run.metrics_tuned if name.endswith("_merged")} == {f"{name}_merged" for name in measured}
