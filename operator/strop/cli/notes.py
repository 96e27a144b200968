"""What is said of a job beside its Plan: it can be planned, and will probably not do what its author expects."""

from __future__ import annotations

from typing import Final

from strop.api.finetunejob import ResourcesSpec
from strop.api.quantities import format_bytes, memory_quantity, parse_quantity
from strop.planning.chooser import Chooser
from strop.planning.inputs import Job, PlanError
from strop.planning.presets import model_facts
from strop.planning.resolve import needs_of, resolve_training

_SURELY_TOO_LITTLE: Final = 0.5
"""Of the estimate, which leans towards too much, but not by so much."""


def size_missing(job: Job) -> str:
    """Return what to give where nothing tells the size of the model."""
    return (
        f"{job.namespace}/{job.name}: spec.model.parameters: missing: there is no preset for "
        f"{job.spec.model.source}, so its size must be given, such as 135M or 8B"
    )


def size_note(job: Job) -> str | None:
    """Return what a plan goes without where nothing tells the size of the model."""
    if model_facts(job.spec.model).parameters is not None:
        return None
    return f"{size_missing(job)}; without it there is no memory estimate, and the job takes all of a node"


def memory_note(job: Job, *, accelerators: int | None) -> str | None:
    """Return the numbers where a job gives its pod less memory than it is estimated to need.

    Args:
        job: the job.
        accelerators: of the pod; None where no pool is known: the job may then run with or without one, and both count.
    """
    given = job.spec.compute.resources or ResourcesSpec()
    if given.memory is None:
        return None
    facts = model_facts(job.spec.model)
    try:
        needs = needs_of(given, facts, resolve_training(job.spec, facts, Chooser()))
    except PlanError:
        return None
    if needs.pod is None or needs.host is None:
        return None
    count = given.accelerators if accelerators is None else accelerators
    kinds = {"on CPUs": needs.pod, "beside an accelerator": needs.host}
    if count is not None:
        kinds = {"": needs.host if count else needs.pod}
    found = parse_quantity(given.memory)
    short = {kind: needed for kind, needed in kinds.items() if found < needed}
    if not short:
        return None
    told = [f"{format_bytes(needed)} {kind}".rstrip() for kind, needed in short.items()]
    enough = [f"; it is enough {kind} ({format_bytes(kinds[kind])})" for kind in kinds if kind not in short]
    largest = max(short.values())
    killed = "will be" if found < min(short.values()) * _SURELY_TOO_LITTLE else "would probably be"
    return (
        f"{job.namespace}/{job.name}: spec.compute.resources.memory: found {given.memory}, but the estimate is "
        f"{', '.join(told)} (by {facts.basis}): the pod {killed} killed for want of memory"
        f"{' there' if enough else ''}; give {memory_quantity(largest)} or leave it out{''.join(enough)}"
    )
