"""The steps of a run, all derived from the plan and the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from strop_trainer.batches import steps_per_epoch
from strop_trainer.plan import Hyperparameters

LOG_LINES = 100
"""About so many log lines in a run."""
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
"""Of the learning rate: ours → transformers' name."""


@dataclass(frozen=True)
class Schedule:
    """Steps of a run, all derived from the plan and the rows."""

    rows: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    log_every: int

    @classmethod
    def of(cls, plan: Hyperparameters, rows: int) -> Schedule:
        """Derive the steps: `max_steps`, else the epochs rounded up to whole steps.

        A warm-up begins at a rate of 0. The last step is never one of it: a run of one step would learn nothing.
        """
        per_epoch = steps_per_epoch(rows, plan.effective_batch_size)
        total = plan.max_steps or max(1, math.ceil(plan.epochs * per_epoch - 1e-9))
        warmup = min(math.ceil(plan.warmup_ratio * total), total - 1)
        return cls(rows, per_epoch, total, warmup, max(1, total // LOG_LINES))
