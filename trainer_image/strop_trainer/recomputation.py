"""Whether activations are recomputed where the plan says auto: as its placement says, by what memory there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strop_trainer.context import say
from strop_trainer.device import CPU
from strop_trainer.plan import PlacementPlan, with_hyperparameters
from strop_trainer.precision import fp32_lacks

if TYPE_CHECKING:
    from strop_trainer.run import Run


def settle_checkpointing(run: Run) -> None:
    """Put on or off in the place of the plan's auto, when the precision is settled.

    All ranks read the same plan. Another attempt may be placed elsewhere and decide otherwise: what is computed is the
    same, and a checkpoint is of the plan that was given.
    """
    if run.plan.training.hyperparameters.gradient_checkpointing != "auto":
        return
    given = (run.given or run.plan).training.hyperparameters.precision
    fp32 = given == "auto" and run.plan.training.hyperparameters.precision == "fp32"
    on, why = choose_checkpointing(run.plan.placement, run.device, fp32=fp32)
    run.settle(with_hyperparameters(run.plan.training, gradient_checkpointing=on))
    say(f"  gradient checkpointing: {'on' if on else 'off'} ({why})")


def choose_checkpointing(placement: PlacementPlan, device: str, *, fp32: bool) -> tuple[bool, str]:
    """Return whether activations are recomputed, and why in words.

    Args:
        placement: with the planner's estimate, which is for bf16 where the precision is left open.
        device: torch's name.
        fp32: whether the precision was left open, and is fp32 here.
    """
    if placement.gradient_checkpointing is None:
        return True, "the plan does not say whether all activations fit"
    if placement.gradient_checkpointing:
        return True, "as planned: not all activations are known to fit, or what they would take is needed for fp32"
    if fp32 and (device != CPU or fp32_lacks(placement) > 0):
        return True, "all activations fit by the planner's estimate, which is for bf16 and not for fp32"
    return False, "all activations fit, by the planner's estimate"
