"""The way of a job: check → fetch → prepare → train ⇄ checkpoint → evaluate → export → prove → publish."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from strop_trainer import registry, threads
from strop_trainer.context import Clock, Settings, StopRequest, say
from strop_trainer.errors import Preempted, bad_configuration, explain
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import load_plan
from strop_trainer.progress import Progress
from strop_trainer.run import Run
from strop_trainer.stages import STAGES
from strop_trainer.tasks import task_named
from strop_trainer.termination import TerminationMessage


def carry_out(run: Run) -> TerminationMessage:
    """Go the way of a job, stage by stage.

    Raises:
        TrainerError: it cannot go on.
        Preempted: a stop was requested.
    """
    for stage in STAGES:
        name = stage.__name__
        run.progress.report({"stage": name}, urgent=True)
        with run.clock.time(name):
            stage(run)
    say(f"\n{run.clock.table()}")
    found = " ".join(f"{name} {value:.4g}" for name, value in run.metrics_tuned.items())
    return TerminationMessage(
        stage="publish",
        reason="Published",
        message=f"published {run.published.path if run.published else 'nothing'}: {found}",
        stage_seconds=run.clock.seconds,
        published=run.published,
    )


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


def main() -> int:
    """Carry out the plan that the environment names; write the termination message, however it ends."""
    stop, clock = StopRequest(), Clock()
    stop.install()
    run: Run | None = None
    try:
        run = start(os.environ, stop, clock)
        message, code = carry_out(run), ExitCode.OK
    except Preempted:
        saved = "; it goes on from its newest checkpoint" if clock.stage != "check" else ""
        message = TerminationMessage(stage=clock.stage, reason="Preempted", message=f"stopped in {clock.stage}{saved}")
        code = ExitCode.PREEMPTED
    except Exception as unexpected:  # noqa: BLE001 - the last word must be said, whatever happens
        error = explain(unexpected)
        if error.exit_code is ExitCode.INTERNAL:
            traceback.print_exc()
        message = TerminationMessage(stage=error.stage or clock.stage, reason=error.reason, message=error.message)
        code = error.exit_code
    with stop.deferred():
        message = message.model_copy(update={"stage_seconds": clock.seconds})
        if run is not None and code is not ExitCode.OK:
            registry.clean_staging(run.settings.registry, run.output, run.settings.job_uid)
        if run is not None:
            run.progress.close()
        say(
            f"\n{message.reason}: {message.message}"
            if code is ExitCode.OK
            else f"\n{message.reason} in {message.stage}: {message.message}"
        )
        if log := os.environ.get("STROP_TERMINATION_LOG"):
            Path(log).write_text(message.dump(), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
