"""Training speed and peak memory against TRL's SFTTrainer with its defaults."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.quickstart import ROOT, lay_out, quickstart_plan, run_python
from benchmarks.results import Goal, Result, table
from strop_trainer.plan import Plan
from strop_trainer.schedule import SCHEDULES
from tests.support.models import smollm2

COMMAND = "python -m benchmarks training"
STEPS = 8
ROUNDS = 3
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


def last_json(output: str) -> dict[str, Any]:
    """Return the JSON object in the last line."""
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return found


def strop(plan: Plan) -> dict[str, Any]:
    """Train with Strop; return seconds, tokens, loss, peak bytes."""
    with tempfile.TemporaryDirectory() as folder:
        environment = lay_out(Path(folder) / "run", plan)
        return last_json(run_python("-m", "benchmarks.workers.strop_train", environment=environment))


def trl(plan: Plan, **options: Any) -> dict[str, Any]:
    """Train with TRL on the same rows, model, dtype, effective batch and adapter."""
    numbers, lora = plan.training.hyperparameters, plan.training.method.lora
    assert lora
    task = {
        "model": str(smollm2()),
        "rows": str(ROOT / "examples" / "data" / "train.jsonl"),
        "steps": numbers.max_steps,
        "rank": lora.rank,
        "alpha": lora.alpha,
        "learning_rate": numbers.learning_rate,
        "max_length": numbers.max_length,
        # The same schedule: then the losses can be compared, too.
        "options": {
            "warmup_steps": math.ceil(numbers.warmup_ratio * STEPS),
            "lr_scheduler_type": SCHEDULES[numbers.scheduler],
            "model_init_kwargs": {"dtype": DTYPES[numbers.precision]},
            **options,
        },
    }
    return last_json(run_python("-m", "benchmarks.workers.trl_sft", environment={}, text=json.dumps(task)))


def measure() -> Result:
    """Run it: the contestants take turns, and medians are compared."""
    plan = quickstart_plan(training={"maxSteps": STEPS, "maxLength": 128})
    batch = plan.training.hyperparameters.effective_batch_size
    micro = min(8, batch)  # TRL's default rows a forward pass; accumulation makes up the effective batch
    shared = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": batch // micro}
    ours, peer = "Strop", "TRL SFTTrainer, its defaults"
    contestants = {
        ours: lambda: strop(plan),
        peer: lambda: trl(plan, **shared),
        "TRL, no gradient checkpointing": lambda: trl(plan, **shared, gradient_checkpointing=False),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, train in contestants.items():
            runs[name].append(train())

    def middle(name: str, key: str) -> float:
        return statistics.median(run[key] for run in runs[name])

    speed = {name: statistics.median(run["tokens"] / run["seconds"] for run in found) for name, found in runs.items()}
    rows = [
        [name, f"{speed[name]:.0f}", f"{middle(name, 'peak_bytes') / 2**30:.2f}", f"{middle(name, 'loss'):.3f}"]
        for name in contestants
    ]
    return Result(
        title="Training speed",
        command=COMMAND,
        method=(
            f"SmolLM2-135M-Instruct, LoRA on all linear layers, the quickstart's rows, {STEPS} steps of {batch} rows, "
            f"{plan.training.hyperparameters.precision}, two threads; each in a process of its own, in turns, "
            f"median of {ROUNDS}. Tokens are the rows' own, padding not counted."
        ),
        goals=[
            Goal("tokens/s over TRL's defaults", speed[ours] / speed[peer], 1.0, "x", at_most=False),
            Goal("peak memory over TRL's defaults", middle(ours, "peak_bytes") / middle(peer, "peak_bytes"), 1.0, "x"),
        ],
        tables=[table(["", "tokens/s", "peak GiB", "mean loss"], rows)],
    )
