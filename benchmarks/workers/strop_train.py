"""Strop's trainer up to the end of its train stage, for the benchmarks of training.

Its environment is the trainer's (STROP_PLAN, …), and BENCHMARK_ADAPTER, the folder that the adapter is left in. Prints
one JSON object as its last line.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from benchmarks.workers.said import peak_bytes, stack
from strop_trainer import stages
from strop_trainer.context import Clock, StopRequest
from strop_trainer.way import start


def main() -> None:
    """Entry point."""
    run = start(os.environ, StopRequest(), Clock())
    for stage in (stages.check, stages.fetch, stages.prepare):
        stage(run)
    begin = time.perf_counter()
    stages.train(run)  # with its checkpoint, which the peers do without
    seconds = time.perf_counter() - begin
    # The trainer begins to count anew when it has loaded; the peers' figure is of the whole process.
    totals, peak = run.result.totals, max(run.loading_peak_bytes, peak_bytes())
    ((_, device_peak, _),) = run.use
    if adapter := os.environ.get("BENCHMARK_ADAPTER"):
        run.loaded.save_adapter(Path(adapter), str(run.model.path))
    print(
        json.dumps(
            {
                "seconds": seconds,
                "stack": stack(),
                "tokens": totals.tokens,
                "peak_bytes": peak,
                "device_peak_bytes": device_peak,
                "flops": run.work.of(totals.tokens, totals.predicted) if run.work else 0,
                "peak_rate": run.peak_rate,
            }
        )
    )


if __name__ == "__main__":
    main()
