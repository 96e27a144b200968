"""What the training loop reports of how far it is, and whether it learns."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from strop_trainer.context import StopRequest
from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.optimisation import Optimisation
from strop_trainer.tasks.base import Example
from strop_trainer.training import Trainer
from tests.support.training import make_plan


class Reports:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int | None]] = []

    def report(self, metrics: dict[str, Any], *, percent: int | None = None, **_others: Any) -> None:
        self.steps.append((metrics["current_step"], percent))


def trainer_of(
    folder: Path, weight: Any, loss: Callable[[], Any], reports: Reports | None = None, **hyperparameters: Any
) -> Trainer:
    """Return a training of one matrix on four rows; a loss is that of a forward pass."""
    training = make_plan(hyperparameters=hyperparameters).training
    return Trainer(
        optimise=lambda schedule: Optimisation(
            {"weight": weight}, lambda _batch: loss(), training.hyperparameters, schedule, {}
        ),
        plan=training.hyperparameters,
        checkpoint=training.checkpoint,
        examples=[Example([1, 2], [True, True])] * 4,
        make_batch=lambda rows: SimpleNamespace(targets=len(rows), tokens=len(rows), predicted=len(rows)),  # type: ignore[arg-type,return-value]
        packed=False,
        pass_tokens=None,
        checkpoints=folder / "checkpoints",
        metrics_file=folder / "metrics.jsonl",
        identity={"plan": "this"},
        stop=StopRequest(),
        progress=reports or Reports(),  # type: ignore[arg-type]
    )


def test_the_percentage_is_that_of_the_steps_to_the_last_one(tmp_path: Path) -> None:
    weight, reports = torch.nn.Parameter(torch.ones(2, 2)), Reports()
    trainer_of(tmp_path, weight, lambda: weight.square().sum(), reports, max_steps=8).run()
    assert reports.steps == [(1, 12), (2, 25), (3, 37), (4, 50), (5, 62), (6, 75), (7, 87), (8, 100)]


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.03, 0.5])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_run_learns(tmp_path: Path, steps: int, warmup_ratio: float, scheduler: str) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    changes = {"max_steps": steps, "warmup_ratio": warmup_ratio, "scheduler": scheduler, "learning_rate": 0.1}
    trainer_of(tmp_path, weight, lambda: weight.square().sum(), **changes).run()
    assert float(weight.detach().max()) < 0.99


@pytest.mark.parametrize(
    ("step", "warmup_ratio", "message"),
    [
        (1, 0.0, "model: the loss of step 1 is nan, and no step before it had a learning rate"),
        (1, 0.5, "model: the loss of step 1 is nan, and no step before it had a learning rate"),
        (2, 0.5, "model: the loss of step 2 is nan, and no step before it had a learning rate"),
        (2, 0.0, "training.learningRate: the loss of step 2 is nan; a lower rate than 0.01 is needed"),
        (3, 0.5, "training.learningRate: the loss of step 3 is nan; a lower rate than 0.01 is needed"),
    ],
)
def test_a_loss_that_is_no_number_is_laid_on_the_rate_only_after_a_step_had_one(
    tmp_path: Path, step: int, warmup_ratio: float, message: str
) -> None:
    weight, passes = torch.nn.Parameter(torch.ones(2, 2)), iter(range(2, 100))

    def loss() -> Any:
        # Two passes a step.
        return weight.square().sum() * (math.nan if next(passes) // 2 == step else 1.0)

    trainer = trainer_of(tmp_path, weight, loss, max_steps=6, warmup_ratio=warmup_ratio)
    with pytest.raises(TrainerError) as raised:
        trainer.run()
    assert raised.value.message.startswith(message)
    assert raised.value.exit_code is ExitCode.BAD_CONFIGURATION
