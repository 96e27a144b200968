"""What the training loop reports of how far it is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from strop_trainer.context import StopRequest
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


def test_the_percentage_is_that_of_the_steps_to_the_last_one(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    training = make_plan(hyperparameters={"max_steps": 8}).training
    reports = Reports()
    trainer = Trainer(
        optimise=lambda schedule: Optimisation(
            {"weight": weight}, lambda _batch: weight.square().sum(), training.hyperparameters, schedule, {}
        ),
        plan=training.hyperparameters,
        checkpoint=training.checkpoint,
        examples=[Example([1, 2], [True, True])] * 4,
        make_batch=lambda rows: SimpleNamespace(targets=len(rows), tokens=len(rows), predicted=len(rows)),  # type: ignore[arg-type,return-value]
        packed=False,
        pass_tokens=None,
        checkpoints=tmp_path / "checkpoints",
        metrics_file=tmp_path / "metrics.jsonl",
        identity={"plan": "this"},
        stop=StopRequest(),
        progress=reports,  # type: ignore[arg-type]
    )
    trainer.run()
    assert reports.steps == [(1, 12), (2, 25), (3, 37), (4, 50), (5, 62), (6, 75), (7, 87), (8, 100)]
