"""The way of a job: check → fetch → prepare → train ⇄ checkpoint → evaluate → export → prove → publish."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from strop_trainer import registry
from strop_trainer.context import Clock, StopRequest
from strop_trainer.ending import conclude, out_of_memory, say_last, write_last
from strop_trainer.exit_codes import ExitCode
from strop_trainer.ranks.launch import lead
from strop_trainer.run import Run
from strop_trainer.stages import STAGES
from strop_trainer.standstill import Watch, end_ranks, memory_group
from strop_trainer.termination import TerminationMessage
from strop_trainer.threads import cgroup_quota
from strop_trainer.way import carry_out, start


def main() -> int:
    """Carry out the plan that the environment names; write the termination message, however it ends."""
    stop, clock = StopRequest(), Clock()
    runs: list[Run] = []
    log = os.environ.get("STROP_TERMINATION_LOG")

    def give_up(limit: int) -> NoReturn:
        # Nothing else moves: what would clean up would not come to its end either.
        message = out_of_memory(clock.stage, limit)
        try:
            write_last(message, log)
            say_last(message, ExitCode.BAD_CONFIGURATION)
            end_ranks()
        finally:
            os._exit(ExitCode.BAD_CONFIGURATION)

    group = memory_group()
    watch = Watch(group, cgroup_quota() or 1.0, give_up) if group else None

    def go() -> TerminationMessage:
        run = start(os.environ, stop, clock)
        runs.append(run)
        return lead(run) if run.plan.training.distributed.world_size > 1 else carry_out(run, STAGES)

    with stop.deferred():
        stop.install()
        message, code = conclude(go, clock, stop)
        message = message.model_copy(update={"stage_seconds": clock.seconds})
        if watch:
            watch.close()
        for run in runs:
            if code is not ExitCode.OK:
                registry.clean_staging(run.settings.registry, run.output, run.settings.job_uid)
            run.progress.close()
        say_last(message, code)
        write_last(message, log)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
