"""The way of a job: check → fetch → prepare → train ⇄ checkpoint → evaluate → export → prove → publish."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from strop_trainer import registry
from strop_trainer.context import Clock, StopRequest
from strop_trainer.ending import conclude, say_last
from strop_trainer.exit_codes import ExitCode
from strop_trainer.ranks.launch import lead
from strop_trainer.run import Run
from strop_trainer.stages import STAGES
from strop_trainer.termination import TerminationMessage
from strop_trainer.way import carry_out, start


def main() -> int:
    """Carry out the plan that the environment names; write the termination message, however it ends."""
    stop, clock = StopRequest(), Clock()
    runs: list[Run] = []

    def go() -> TerminationMessage:
        run = start(os.environ, stop, clock)
        runs.append(run)
        return lead(run) if run.plan.training.distributed.world_size > 1 else carry_out(run, STAGES)

    with stop.deferred():
        stop.install()
        message, code = conclude(go, clock, stop)
        message = message.model_copy(update={"stage_seconds": clock.seconds})
        for run in runs:
            if code is not ExitCode.OK:
                registry.clean_staging(run.settings.registry, run.output, run.settings.job_uid)
            run.progress.close()
        say_last(message, code)
        if log := os.environ.get("STROP_TERMINATION_LOG"):
            Path(log).write_text(message.dump(), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
