"""Memory estimates of a job for both kinds of pool, whatever pools there are."""

from __future__ import annotations

from strop.api.finetunejob import FineTuneJobSpec
from strop.planning.memory import estimate_memory, host_bytes
from strop.planning.presets import model_facts
from strop_trainer.plan import MemoryEstimate, TrainingPlan


def estimates_of(spec: FineTuneJobSpec, training: TrainingPlan) -> tuple[dict[str, MemoryEstimate], int] | None:
    """Return estimates by kind and the pod's memory beside an accelerator; None where the model's size is unknown."""
    facts = model_facts(spec.model)
    lora = training.method.lora
    if facts.shape is None or facts.parameters is None or lora is None:
        return None
    estimates = {
        kind: estimate_memory(
            facts.shape, facts.parameters, training, lora, accelerator=kind == "accelerator", basis=facts.basis
        )
        for kind in ("CPU", "accelerator")
    }
    return estimates, host_bytes(facts.parameters)
