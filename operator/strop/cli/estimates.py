"""Memory estimates of jobs for both kinds of pool, whatever pools there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from strop.api.finetunejob import ResourcesSpec
from strop.cli.errors import bad_configuration
from strop.cli.notes import size_missing
from strop.cli.planned import jobs_in
from strop.planning.chooser import Chooser
from strop.planning.inputs import Job, PlanError
from strop.planning.presets import model_facts
from strop.planning.resolve import needs_of, resolve_training
from strop_trainer.plan import MemoryEstimate, TrainingPlan, with_hyperparameters


@dataclass(frozen=True)
class Estimated:
    """What a rank of a job, and its pod, need on CPUs and on accelerators."""

    job: Job
    training: TrainingPlan
    cpu: MemoryEstimate
    accelerator: MemoryEstimate
    pod: int
    """Bytes of the memory of a pod without accelerators."""
    host: int
    """Bytes of the pod's memory beside the accelerators."""
    all_kept: tuple[MemoryEstimate, MemoryEstimate] | None = None
    """`cpu` and `accelerator` without gradient checkpointing, where the pool decides on it; these are then with it."""


def estimate_files(files: Sequence[str], namespace: str | None, only: str | None) -> list[Estimated]:
    """Return the estimates of the jobs in files.

    Raises:
        CliError: as `manifests.load`; or nothing tells the size of a model (78).
    """
    _, jobs = jobs_in(files, namespace, only)
    return [_estimated(job) for job in jobs]


def _estimated(job: Job) -> Estimated:
    facts = model_facts(job.spec.model)
    try:
        training = resolve_training(job.spec, facts, Chooser())
    except PlanError as error:
        raise bad_configuration(f"{job.namespace}/{job.name}: {error.message}") from None
    needs = needs_of(ResourcesSpec(), facts, training)
    if needs.cpu_estimate is None or needs.accelerator_estimate is None or needs.pod is None or needs.host is None:
        raise bad_configuration(size_missing(job))
    kept = None
    if training.hyperparameters.gradient_checkpointing == "auto" and facts.architecture is not None:
        without = needs_of(ResourcesSpec(), facts, with_hyperparameters(training, gradient_checkpointing=False))
        if without.cpu_estimate is not None and without.accelerator_estimate is not None:
            kept = without.cpu_estimate, without.accelerator_estimate
    return Estimated(job, training, needs.cpu_estimate, needs.accelerator_estimate, needs.pod, needs.host, kept)
