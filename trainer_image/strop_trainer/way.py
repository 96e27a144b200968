"""A run from its plan to its last word."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from strop_trainer import threads
from strop_trainer.context import Clock, Settings, StopRequest, say
from strop_trainer.errors import bad_configuration
from strop_trainer.plan import load_plan
from strop_trainer.progress import Progress
from strop_trainer.run import Run
from strop_trainer.tasks import task_named
from strop_trainer.termination import TerminationMessage


def start(environment: Mapping[str, str], stop: StopRequest, clock: Clock) -> Run:
    """Read plan and surroundings, and set the threads before a library is loaded that counts the cores itself."""
    settings = Settings.from_environment(environment)
    try:
        plan = load_plan(settings.plan.read_bytes())
    except (OSError, ValueError) as error:
        raise bad_configuration(f"plan {settings.plan}: {error}") from None
    count, why = threads.set_threads(os.environ, plan.placement.processes_per_node)
    reused = threads.keep_freed_memory()
    say(f"Strop trainer: job {plan.placement.namespace}/{plan.placement.job}, plan {plan.digest}")
    say(f"  {count} threads ({why}); {'freed memory is reused' if reused else 'the default allocator'}")
    return Run(settings, plan, task_named(plan.training.task), count, stop, clock, Progress(environment))


def pass_through(run: Run, stages: Sequence[Callable[[Run], None]]) -> None:
    """Do one stage after the other, reported and timed by its name."""
    for stage in stages:
        name = stage.__name__
        run.progress.report({"stage": name}, urgent=True)
        with run.clock.time(name):
            stage(run)


def carry_out(run: Run, stages: Sequence[Callable[[Run], None]]) -> TerminationMessage:
    """Go the way of a job, stage by stage.

    Raises:
        TrainerError: it cannot go on.
        Preempted: a stop was requested.
    """
    pass_through(run, stages)
    say(f"\n{run.clock.table()}")
    found = " ".join(f"{name} {value:.4g}" for name, value in run.metrics_tuned.items())
    return TerminationMessage(
        stage="publish",
        reason="Published",
        message=f"published {run.published.path if run.published else 'nothing'}: {found}",
        stage_seconds=run.clock.seconds,
        published=run.published,
    )
