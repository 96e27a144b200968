"""Which way the ranks of a run share the model's state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strop_trainer.optimisation import DataParallel, Optimisation

if TYPE_CHECKING:
    from strop_trainer.run import Run
    from strop_trainer.schedule import Schedule


def optimisation_of(run: Run, schedule: Schedule) -> Optimisation:
    """Return what changes in a step of a run, shared as the plan says."""
    loaded, plan = run.loaded, run.plan.training
    arguments = (loaded.trainable, run.head.loss(run), plan.hyperparameters, schedule, loaded.rates)
    if plan.distributed.is_zero:
        from strop_trainer.ranks.zero import ZeroOptimisation  # noqa: PLC0415 - torch

        return ZeroOptimisation(
            *arguments, model=loaded.model, plan=plan.hyperparameters, team=run.team, device=run.device
        )
    if run.team.size == 1:
        return Optimisation(*arguments)
    return DataParallel(*arguments, model=loaded.model, size=run.team.size)
