"""Values of task preference: direct preference optimisation (DPO, Rafailov et al. 2023) goes in small steps."""

from __future__ import annotations

from typing import Final

from strop.api.finetunejob import FineTuneJobSpec
from strop.planning.methods import learning_rate_of
from strop.planning.presets import ModelFacts
from strop_trainer.plan import Task

BETA: Final = (0.1, "as DPO's authors (Rafailov et al. 2023, appendix B)")
EPOCHS: Final = (1.0, "one pass: the pairs are soon learnt by heart (Lambert et al. 2024, Tülu 3; Zephyr's recipe)")
WARMUP: Final = (0.1, "as Zephyr's recipe and Tülu 3")
_FACTOR: Final = 50


def sequences_of(task: Task) -> int:
    """Return how many sequences a row is: a pair is both answers, each with the prompt in front."""
    return 2 if task == "preference" else 1


def preference_learning_rate(spec: FineTuneJobSpec, facts: ModelFacts) -> tuple[float, str]:
    """Return the peak learning rate and why.

    That of fine-tuning on answers, divided by 50: at 7 to 8B it comes to 6e-7 for all weights and 6e-6 for LoRA, where
    Zephyr (Tunstall et al. 2023) and Tülu 3 (Lambert et al. 2024) have 5e-7 and Zephyr's recipe with LoRA 5e-6 (the
    alignment handbook's zephyr-7b-beta/dpo). At 135M it is 2e-6 for all weights; SmolLM2's recipe for 135M and 360M
    (smollm2/dpo/config_smol) has 1e-6, with a beta of 0.5 that holds the model nearer.
    """
    rate, why = learning_rate_of(spec, facts)
    return float(f"{rate / _FACTOR:.0e}"), (
        f"{rate:g} / {_FACTOR} for DPO, which at 7 to 8B makes about the 5e-7 of Zephyr (Tunstall et al. 2023) and "
        f"Tülu 3 (Lambert et al. 2024) for all weights, and the 5e-6 of Zephyr's recipe for LoRA; {rate:g}: {why}"
    )
