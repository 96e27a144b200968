"""Strop's trainer up to the end of its train stage, for the training-speed benchmark.

Its environment is the trainer's (STROP_PLAN, …). Prints one JSON object as its last line.
"""

from __future__ import annotations

import json
import os
import resource

from strop_trainer import __main__ as trainer
from strop_trainer import stages
from strop_trainer.context import Clock, StopRequest


def main() -> None:
    """Entry point."""
    run = trainer.start(os.environ, StopRequest(), Clock())
    for stage in (stages.check, stages.fetch, stages.prepare, stages.train):
        stage(run)
    totals = run.result.totals
    print(
        json.dumps(
            {
                "seconds": totals.seconds,
                "tokens": totals.tokens,
                "loss": totals.loss_sum / totals.targets,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


main()
