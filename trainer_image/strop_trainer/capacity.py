"""Whether a low-rank adapter has parameters for what its rows tell. No torch here.

A network can keep about two bits a parameter (Allen-Zhu & Li 2024, Physics of Language Models 3.3), and a token of a
usual set of rows tells about one (Schulman et al. 2025, LoRA Without Regret): so many tokens go into a parameter. An
adapter that has too few learns more slowly, rather than not at all. Passes over the same rows add nothing.
"""

from __future__ import annotations

from typing import Final

from strop_trainer.plan import LABEL_TASKS, Task, TrainingPlan

TOKENS_A_PARAMETER: Final = 2
FEW_BITS_A_ROW: Final[tuple[Task, ...]] = (*LABEL_TASKS, "preference")
"""Tasks whose rows tell a label or which of two answers is better: a few bits, however long they are."""


def capacity_note(training: TrainingPlan, parameters: int, tokens: int) -> str | None:
    """Return a sentence where an adapter is too small for what it learns, None where it is not.

    Args:
        training: what is computed.
        parameters: that are trained.
        tokens: that are learnt in one pass over the rows.
    """
    lora = training.method.lora
    if lora is None or training.task in FEW_BITS_A_ROW or tokens <= TOKENS_A_PARAMETER * parameters:
        return None
    return (
        f"{tokens:,} learnt tokens are more than an adapter of {parameters:,} parameters holds (about "
        f"{TOKENS_A_PARAMETER} a parameter: LoRA Without Regret): a method.lora.rank above {lora.rank}, or method "
        "full, may learn more"
    )
