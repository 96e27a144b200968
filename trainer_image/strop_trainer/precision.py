"""In which precision a job is computed where its plan says auto: what this machine has, and multiplies faster in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from strop_trainer.context import say
from strop_trainer.device import CPU, has_bf16, release
from strop_trainer.plan import PlacementPlan, Plan, Precision, with_hyperparameters
from strop_trainer.roofline import matmul_rate

if TYPE_CHECKING:
    from strop_trainer.run import Run

CHOICES: Final[tuple[Precision, ...]] = ("bf16", "fp32")
"""In the order of preference: half the memory comes first."""
GAIN: Final = 1.2
"""How much faster fp32 must be: a product that is as fast in bf16 moves half the bytes."""
FILE: Final = "precision.json"
UNITS: Final = {
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
}
"""Suffixes of a quantity of memory, as far as plans have them."""


def choose_precision(rates: Mapping[Precision, float], missing: int) -> tuple[Precision, str]:
    """Return the precision, and why in words.

    Args:
        rates: operations a second of a matrix product in bf16 and in fp32.
        missing: bytes that fp32 would need beyond the memory of the pod; 0 or less where it has room.
    """
    bf16, fp32 = (rates[name] / 1e9 for name in CHOICES)
    found = f"a matrix product reaches {bf16:,.0f} GFLOP/s in bf16 and {fp32:,.0f} in fp32 here"
    if fp32 < GAIN * bf16:
        return "bf16", found
    if missing > 0:
        return "bf16", (
            f"{found}, but fp32 needs {missing / 1e9:.1f} GB more than compute.resources.memory has; "
            "with training.precision: fp32 it is planned for"
        )
    return "fp32", found


def choose_on_accelerator(device: str) -> tuple[Precision, str]:
    """Return the precision on an accelerator, and why in words: bf16 where it has that itself.

    Args:
        device: torch's name.
    """
    if has_bf16(device):
        return "bf16", f"the {device} device has bf16"
    return "fp32", (
        f"the {device} device has no bf16; the estimate of its memory is for bf16, with training.precision: fp32 "
        "it is planned for"
    )


def fp32_lacks(placement: PlacementPlan) -> int:
    """Return the bytes that fp32 needs beyond a pod's memory, by the planner's estimate; 0 or less where it has room.

    Where nothing told the planner the size of the model, the pod has the whole node, and room is taken to be there.
    """
    return 0 if placement.fp32_memory is None else placement.fp32_memory - bytes_of(placement.resources.memory)


def bytes_of(quantity: str) -> int:
    """Return the bytes of a quantity of memory, such as 2816Mi."""
    digits = quantity.rstrip("".join(UNITS))
    return round(float(digits) * UNITS.get(quantity.removeprefix(digits), 1))


def settle_precision(run: Run) -> None:
    """Put a precision in the place of the plan's auto, and note how fast this machine multiplies in it.

    Attempts of one job are computed alike, wherever they run: the first one's choice lies in the work folder. So are
    ranks: all go by what they measure together.
    """
    given = run.plan.training.hyperparameters.precision
    if given != "auto":
        run.peak_rate = _rate(run, given)
        return
    rates = {name: _rate(run, name) for name in CHOICES} if run.device == CPU else {}
    precision, why = _choose(run, rates)
    run.peak_rate = rates[precision] if rates else _rate(run, precision)
    run.settle(with_hyperparameters(run.plan.training, precision=precision))
    say(f"  precision: {precision} ({why})")


def _rate(run: Run, precision: Precision) -> float:
    """Return the operations a second of all ranks together."""
    (rate,) = run.team.sum(matmul_rate(precision, run.device))
    release(run.device)
    return rate


def _choose(run: Run, rates: Mapping[Precision, float]) -> tuple[Precision, str]:
    """Return the precision of this job, and why in words; the first attempt notes it.

    Args:
        run: the job.
        rates: of each precision, as measured; of an accelerator none are.
    """
    note = run.settings.work / FILE
    (kept,) = run.team.gather(_kept(note, run.plan))[0]
    if kept >= 0:
        return CHOICES[int(kept)], "as this job began"
    if rates:
        precision, why = choose_precision(rates, fp32_lacks(run.plan.placement))
    else:
        precision, why = choose_on_accelerator(run.device)
    if run.team.leads:
        note.write_text(json.dumps({"plan": run.plan.digest, "precision": precision}), encoding="utf-8")
    return precision, why


def _kept(note: Path, plan: Plan) -> int:
    """Return the choice of an earlier attempt, by its place in CHOICES; -1 where there is none of this plan."""
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        return CHOICES.index(found["precision"]) if found["plan"] == plan.digest else -1
    except (OSError, ValueError, KeyError, TypeError):
        return -1
