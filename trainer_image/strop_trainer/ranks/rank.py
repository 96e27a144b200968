"""One rank: `python -m strop_trainer.ranks.rank`, in torchrun's environment."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import nullcontext

from strop_trainer import stages
from strop_trainer.context import Clock, StopRequest, muted
from strop_trainer.ending import conclude
from strop_trainer.progress import URL
from strop_trainer.ranks.launch import RankReport, report_path
from strop_trainer.run import Run
from strop_trainer.termination import TerminationMessage
from strop_trainer.way import carry_out, start

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Train with the other ranks; the first one goes on to the end. Leaves a last word for who started it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # where that one is killed, nobody else would stop this
    rank = int(os.environ["RANK"])
    stop, clock = StopRequest(), Clock()
    runs: list[Run] = []

    def go() -> TerminationMessage:
        with muted("told by who started the ranks"):
            run = start(os.environ, stop, clock)
            runs.append(run)
            stages.fetch(run)
        if rank:
            return carry_out(run, (stages.prepare, stages.train))
        return carry_out(run, stages.STAGES[stages.STAGES.index(stages.prepare) :])

    if rank:
        os.environ.pop(URL, None)
    with stop.deferred():
        stop.install()
        with muted("told by rank 0") if rank else nullcontext():
            message, code = conclude(go, clock, stop)
        at = time.time()
        message = message.model_copy(update={"stage_seconds": clock.seconds})
        for run in runs:
            path = report_path(run.settings.work, rank)
            report = RankReport(rank=rank, at=at, code=code, message=message)
            path.with_suffix(".part").write_text(report.model_dump_json(by_alias=True), encoding="utf-8")
            path.with_suffix(".part").rename(path)
            run.progress.close()
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
