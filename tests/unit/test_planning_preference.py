"""What is chosen for a job that learns from preferences, and why; a pair takes the place of two rows."""

import pytest

from strop.planning.chooser import Chooser
from strop.planning.memory import pass_tokens
from strop.planning.presets import model_facts
from strop.planning.resolve import resolve_training
from strop_trainer.plan import TrainingPlan
from tests.support.planning import job_of


def reasoned(task: str = "preference", **fields: object) -> tuple[TrainingPlan, dict[str, str]]:
    spec = job_of(task=task, **fields).spec
    chooser = Chooser()
    training = resolve_training(spec, model_facts(spec.model), chooser)
    return training, {resolution.field: resolution.reason for resolution in chooser.resolved}


@pytest.mark.parametrize(
    ("source", "method", "rate"),
    [
        ("hf://meta-llama/Llama-3.1-8B-Instruct", "full", 6e-7),
        ("hf://meta-llama/Llama-3.1-8B-Instruct", "lora", 6e-6),
        ("hf://HuggingFaceTB/SmolLM2-135M-Instruct", "lora", 2e-5),
        ("pvc://models/unknown", "full", 4e-7),
    ],
)
def test_steps_are_small(source: str, method: str, rate: float) -> None:
    training, reasons = reasoned(model__source=source, method__type=method)
    assert training.hyperparameters.learning_rate == rate
    assert "/ 50 for DPO" in reasons["training.learningRate"]
    assert "Zephyr (Tunstall et al. 2023)" in reasons["training.learningRate"]


def test_one_pass_with_a_longer_warm_up_at_the_authors_beta() -> None:
    training, reasons = reasoned()
    chosen = training.hyperparameters
    assert (chosen.epochs, chosen.warmup_ratio, chosen.preference_beta) == (1.0, 0.1, 0.1)
    assert "Rafailov" in reasons["training.preferenceBeta"]
    assert "one pass" in reasons["training.epochs"]


def test_the_users_word_counts() -> None:
    given = {"preferenceBeta": 0.3, "epochs": 2, "warmupRatio": 0.05, "learningRate": 1e-4}
    training, reasons = reasoned(training=given)
    chosen = training.hyperparameters
    assert (chosen.preference_beta, chosen.epochs, chosen.warmup_ratio, chosen.learning_rate) == (0.3, 2, 0.05, 1e-4)
    assert not [name for name in given if f"training.{name}" in reasons]


def test_other_tasks_have_no_beta() -> None:
    training, reasons = reasoned("chat")
    assert training.hyperparameters.preference_beta is None
    assert "training.preferenceBeta" not in reasons


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("packing", [False, True])
def test_a_forward_pass_is_planned_for_both_answers(packing: bool, accelerator: bool) -> None:
    shape = {"maxLength": 1024, "microBatchSize": 1, "packing": packing}
    pairs, rows = (reasoned(task, training=shape)[0] for task in ("preference", "chat"))
    assert pass_tokens(pairs, accelerator=accelerator) == 2 * 1024
    assert pass_tokens(rows, accelerator=accelerator) == 1024


def test_fewer_pairs_than_rows_share_a_forward_pass() -> None:
    pairs, rows = (reasoned(task, training__maxLength=256)[0].hyperparameters for task in ("preference", "chat"))
    assert (pairs.micro_batch_size, rows.micro_batch_size) == (4, 8)
