"""One training task that several trainers carry out in turn, each in a process of its own."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import PeerError
from benchmarks.quickstart import run_python
from strop_trainer.batches import step_rows
from strop_trainer.plan import Plan
from strop_trainer.schedule import SCHEDULES

OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "AXOLOTL_DO_NOT_TRACK": "1", "WANDB_DISABLED": "true"}
WORKERS = "benchmarks.workers"
PATIENCE = 600.0
"""Seconds that a peer may take; several times what the slowest did."""


@dataclass(frozen=True)
class Task:
    """What a peer is told, beside the rows in the order of the steps: the same numbers as the plan's."""

    method: str
    model: str
    rows: str
    """JSONL; the rows of each step follow each other, the longest first."""
    out: str
    """Folder for the adapter."""
    steps: int
    micro: int
    """Rows of a forward pass."""
    accumulation: int
    """Forward passes of a step."""
    rank: int
    alpha: float
    learning_rate: float
    warmup_steps: int
    scheduler: str
    max_length: int
    options: dict[str, Any] = field(default_factory=dict)
    """Of the peer's own."""


@dataclass(frozen=True)
class Turn:
    """What one trainer has come to."""

    seconds: float
    """Of the whole of training, as the clock goes; not of loading."""
    peak_bytes: int
    """Of the whole process, loading and quantizing as well."""
    stack: str = ""
    """Versions of its libraries."""
    device_peak_bytes: int = 0
    tokens: int = 0
    flops: int = 0
    """Of the matrix products of all steps, as the trainer counts them."""
    peak_rate: float = 0.0
    """Operations a second of one large matrix product, as measured before training."""


def in_step_order(rows: Sequence[bytes], batch: int, seed: int) -> list[bytes]:
    """Return the rows of one epoch in the order in which Strop takes them, the longest of a step first.

    A peer that takes them as they come then learns from the same rows in each step, and rows of like length, whose
    padding is short, share a forward pass.
    """
    ordered: list[bytes] = []
    for step in range(math.ceil(len(rows) / batch)):
        ordered += sorted((rows[at] for at in step_rows(step, len(rows), batch, seed)), key=len, reverse=True)
    return ordered


def task_of(
    plan: Plan, *, model: Path, rows: Path, out: Path, micro: int, options: Mapping[str, Any] | None = None
) -> Task:
    """Return the plan's numbers as a peer is told them."""
    numbers, lora = plan.training.hyperparameters, plan.training.method.lora
    assert lora
    assert numbers.max_steps
    return Task(
        method=plan.training.method.type,
        model=str(model),
        rows=str(rows),
        out=str(out),
        steps=numbers.max_steps,
        micro=micro,
        accumulation=numbers.effective_batch_size // micro,
        rank=lora.rank,
        alpha=lora.alpha,
        learning_rate=numbers.learning_rate,
        warmup_steps=math.ceil(numbers.warmup_ratio * numbers.max_steps),
        scheduler=SCHEDULES[numbers.scheduler],
        max_length=numbers.max_length,
        options=dict(options or {}),
    )


def last_json(output: str) -> dict[str, Any]:
    """Return the JSON object in the last line."""
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return found


def peer_turn(
    worker: str, task: Task, python: Callable[[], Path] | None = None, environment: Mapping[str, str] | None = None
) -> Turn:
    """Let a peer carry out a task.

    Args:
        worker: module of `benchmarks.workers`.
        task: to be done.
        python: makes the interpreter of its environment; None for this process's.
        environment: of the process.

    Raises:
        PeerError: it cannot be installed, or did not train.
    """
    interpreter = python() if python else None
    try:
        output = run_python(
            "-m",
            f"{WORKERS}.{worker}",
            environment={**OFFLINE, **(environment or {})},
            text=json.dumps(asdict(task)),
            python=interpreter,
            timeout=PATIENCE,
        )
    except RuntimeError as error:
        raise PeerError(_reason(str(error))) from error
    except subprocess.TimeoutExpired:
        raise PeerError(f"it took longer than {PATIENCE:.0f} s") from None
    return Turn(**last_json(output))


def _reason(output: str) -> str:
    """Return the line of a failed process that tells why: the last that names an error, else the last."""
    lines = output.strip().splitlines()
    told = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (told or lines)[-1][:300].replace("|", "/")


def strop_turn(environment: Mapping[str, str], adapter: Path) -> Turn:
    """Let Strop's trainer carry out the plan that its environment names, up to the end of training."""
    output = run_python(
        "-m", f"{WORKERS}.strop_train", environment={**OFFLINE, **environment, "BENCHMARK_ADAPTER": str(adapter)}
    )
    return Turn(**last_json(output))
