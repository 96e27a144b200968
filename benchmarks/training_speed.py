"""Training speed, peak memory and held-out loss of LoRA and QLoRA on a CPU, against the trainers that people use."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import peers
from benchmarks.contest import WORKERS, Turn, in_step_order, last_json, peer_turn, strop_turn, task_of
from benchmarks.quickstart import ROOT, lay_out, quickstart_plan, run_python
from benchmarks.results import Goal, Result, table
from tests.support.models import smollm2

COMMAND = "python -m benchmarks training"
STEPS = {"lora": 8, "qlora": 4}
"""4 bits are slow to compute with on a CPU: their share of the time is as large with fewer."""
MICRO = 8
"""Rows of a peer's forward pass, the default of all of them; accumulation makes up the effective batch."""
MAX_LENGTH = 128
OURS, DEFAULTS, BEST = "Strop", "TRL SFTTrainer, its defaults", "TRL, without gradient checkpointing"
CPU = {"CUDA_VISIBLE_DEVICES": ""}
LOSS_LIMIT = 1.05
THREADS = int(os.environ.get("STROP_THREADS") or os.cpu_count() or 1)
"""Of all: where other work has a share of the machine, fewer than it has cores, since threads wait for each other."""

METHOD = """SmolLM2-135M-Instruct, adapters on all linear layers, the quickstart's rows, steps of 16 rows ({steps}), \
bf16, {threads}, each in a process of its own, each run once.

- All take the same rows in the same steps, the longest of a step first so that little is padded, with the same rank,
  learning rate and schedule. Peers take 8 rows a forward pass, their default. LLaMA-Factory and axolotl do without
  gradient checkpointing, which is faster here, by PyTorch's attention. None of the peers packs: their packing changes
  which rows a step has, and their batches without padding ask for a GPU's attention.
- Tokens are the rows' own, padding not counted; seconds are of the whole of training by the clock, loading not counted.
- Memory is the most of the whole process, loading and quantizing counted.
- The held-out loss is of the saved adapters on the quickstart's validation rows: PEFT, the unquantized base in fp32,
  the assistant's tokens; {base:.3f} before training.
- Of peak: the operations of the model's matrix products (4 a frozen weight and token, 6 a trained one) over those of
  one large product in bf16, {peak} GFLOP/s here."""


@dataclass
class Contest:
    """What came out of one method."""

    method: str
    tokens: int = 0
    """Of the rows that each has seen, padding not counted."""
    turns: dict[str, Turn] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    """Held out; "base" is the model before training."""

    def speed(self, name: str) -> float:
        """Return tokens a second."""
        return self.tokens / self.turns[name].seconds

    def share(self, turn: Turn) -> float:
        """Return the share of the measured peak; all do the work that is counted for ours."""
        ours = self.turns[OURS]
        return ours.flops / turn.seconds / ours.peak_rate if ours.peak_rate else 0.0

    @property
    def peers(self) -> list[str]:
        """Those that ran, but for ours."""
        return [name for name in self.turns if name != OURS]

    def goals(self) -> list[Goal]:
        """Return ours against the best of the peers, figure by figure."""
        title = {"lora": "LoRA", "qlora": "QLoRA"}[self.method]
        fastest = max(self.speed(name) for name in self.peers)
        leanest = min(self.turns[name].peak_bytes for name in self.peers)
        lowest = min(self.losses[name] for name in self.peers)
        return [
            Goal(f"{title}: tokens/s over the fastest peer's", self.speed(OURS) / fastest, 1.0, "x", at_most=False),
            Goal(f"{title}: peak memory over the leanest peer's", self.turns[OURS].peak_bytes / leanest, 1.0, "x"),
            Goal(f"{title}: held-out loss over the lowest peer's", self.losses[OURS] / lowest, LOSS_LIMIT, "x"),
        ]

    def rows(self) -> list[list[str]]:
        """Return a row of the table for each."""
        done = [
            [
                f"{self.method}: {name}",
                f"{self.speed(name):.0f}",
                f"{self.share(turn):.0%}",
                f"{turn.peak_bytes / 2**30:.2f}",
                f"{self.losses[name]:.3f}",
                turn.stack,
            ]
            for name, turn in self.turns.items()
        ]
        return done + [
            [f"{self.method}: {name}", "did not run", "", "", "", why] for name, why in self.failures.items()
        ]


def contest(method: str, folder: Path) -> Contest:
    """Let all train with a method, one after another."""
    steps = STEPS[method]
    given = {"maxSteps": steps, "maxLength": MAX_LENGTH, "effectiveBatchSize": 16, "precision": "bf16", "seed": 42}
    plan = quickstart_plan(training=given, method={"type": method})
    numbers = plan.training.hyperparameters
    count = steps * numbers.effective_batch_size
    rows = (ROOT / "examples" / "data" / "train.jsonl").read_bytes().splitlines(keepends=True)[:count]
    ordered = folder / "rows.jsonl"
    ordered.write_bytes(b"".join(in_step_order(rows, numbers.effective_batch_size, numbers.seed)))
    found = Contest(method)

    def peer(name: str, worker: str, environment: str | None = None, **options: object) -> Callable[[], Turn]:
        out = folder / name / "adapter"
        task = task_of(plan, model=smollm2(), rows=ordered, out=out, micro=MICRO, options=options)
        python = partial(peers.python_of, environment) if environment else None
        return lambda: peer_turn(worker, task, python, CPU | {"OMP_NUM_THREADS": str(THREADS)})

    def ours() -> Turn:
        return strop_turn(lay_out(folder / "run", plan, b"".join(rows)), folder / OURS / "adapter")

    contestants = {
        OURS: ours,
        DEFAULTS: peer(DEFAULTS, "trl_sft", use_cpu=True),
        BEST: peer(BEST, "trl_sft", use_cpu=True, gradient_checkpointing=False),
        "LLaMA-Factory": peer("LLaMA-Factory", "llamafactory_sft", "llamafactory"),
        "axolotl": peer("axolotl", "axolotl_sft", "axolotl"),
    }
    for name, train in contestants.items():
        begin = time.perf_counter()
        try:
            found.turns[name] = train()
            end = f"{found.turns[name].seconds:.1f} s of training"
        except peers.PeerError as error:
            found.failures[name] = end = str(error)
        print(f"  {method}: {name}: {end}, {time.perf_counter() - begin:.0f} s in all", flush=True)
    found.tokens = found.turns[OURS].tokens
    asked = {
        "model": str(smollm2()),
        "rows": str(ROOT / "examples" / "data" / "validation.jsonl"),
        "max_length": MAX_LENGTH,
        "adapters": {name: str(folder / name / "adapter") for name in found.turns},
    }
    found.losses = last_json(run_python("-m", f"{WORKERS}.held_out", environment=CPU, text=json.dumps(asked)))
    print(f"  {method}: held-out loss: {found.losses}", flush=True)
    return found


def measure() -> Result:
    """Run it."""
    contests = []
    for method in STEPS:
        with tempfile.TemporaryDirectory() as folder:
            contests.append(contest(method, Path(folder)))
    steps = " and ".join(f"{count} of {method}" for method, count in STEPS.items())
    return Result(
        title="Training speed",
        command=COMMAND,
        method=METHOD.format(
            steps=steps,
            threads=f"{THREADS} thread{'s' * (THREADS > 1)}",
            base=contests[0].losses["base"],
            peak=f"{contests[0].turns[OURS].peak_rate / 1e9:,.0f}",
        ),
        goals=[goal for found in contests for goal in found.goals()],
        tables=[
            table(
                ["", "tokens/s", "of peak", "peak GiB", "held-out loss", "libraries"],
                [row for c in contests for row in c.rows()],
            )
        ],
    )
