"""What a job costs beside training: the whole trainer on the quickstart, stage by stage."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from benchmarks.quickstart import lay_out, quickstart_plan, run_python
from benchmarks.results import Goal, Result, table
from strop_trainer.termination import TerminationMessage

COMMAND = "python -m benchmarks trainer"
LIMIT_SECONDS = 60.0


def measure() -> Result:
    """Run it: the quickstart with an fp32 export, no cluster, one process."""
    plan = quickstart_plan(output={"onnx": {"precisions": ["fp32"]}})
    with tempfile.TemporaryDirectory() as folder:
        environment = lay_out(Path(folder) / "run", plan)
        begin = time.perf_counter()
        run_python("-m", "strop_trainer", environment=environment)
        wall = time.perf_counter() - begin
        word = Path(environment["STROP_TERMINATION_LOG"]).read_text(encoding="utf-8")
    message = TerminationMessage.model_validate(json.loads(word))
    stages = message.stage_seconds
    start = wall - sum(stages.values())
    # Evaluation generates as many answers as the job asks for: work of its own, shown beside the overhead.
    overhead = wall - stages["train"] - stages["evaluate"]
    rows = [["start and imports", f"{start:.1f}"], *([name, f"{seconds:.1f}"] for name, seconds in stages.items())]
    return Result(
        title="The trainer, beside training",
        command=COMMAND,
        method=(
            "The quickstart (SmolLM2-135M-Instruct, LoRA) from the start of the process to its end, fp32 export; "
            "not training or evaluation: start, imports, load, merge, export, proof, publish."
        ),
        goals=[
            Goal("overhead without evaluation", overhead, LIMIT_SECONDS, "s"),
            Goal("overhead with evaluation", overhead + stages["evaluate"], LIMIT_SECONDS, "s"),
        ],
        tables=[table(["stage", "seconds"], [*rows, ["whole process", f"{wall:.1f}"]])],
    )
