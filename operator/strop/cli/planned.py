"""From files to Plans, on this machine or for the pools of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from strop.api.computepool import ComputePool
from strop.api.finetunejob import ComputeSpec
from strop.api.names import Reason
from strop.cli.errors import bad_configuration
from strop.cli.machine import this_machine
from strop.cli.manifests import Bundle, called, load
from strop.planning.inputs import Job, PlanError, PlanSettings, Pool
from strop.planning.pools import AUTO
from strop.planning.resolve import check_job, resolve
from strop_trainer.plan import Plan


@dataclass(frozen=True)
class Planned:
    """A job, its Plan, and whether the pool is this machine."""

    job: Job
    plan: Plan
    embedded: bool
    """No pool was given."""

    @property
    def accelerators(self) -> int | None:
        """What the pod takes of its pool; None where no pool was given."""
        return None if self.embedded else self.plan.placement.resources.accelerators

    @property
    def unheeded(self) -> tuple[str, ...]:
        """What the job says of its place that goes for nothing, as the plan is for this machine; a sentence each."""
        if not self.embedded:
            return ()
        compute, name = self.job.spec.compute, f"{self.job.namespace}/{self.job.name}"
        asked = compute.resources.accelerators if compute.resources else None
        told = []
        if compute.pool != AUTO:
            told.append(
                f"{name}: spec.compute.pool: found {compute.pool}, but no ComputePool was given: planned for this "
                "machine; give the pool with --pools FILE"
            )
        if asked and not self.plan.placement.resources.accelerators:
            told.append(
                f"{name}: spec.compute.resources.accelerators: found {asked}, but no ComputePool was given and this "
                "machine has none: planned for CPUs; give the pool with --pools FILE"
            )
        return tuple(told)


def plan_files(
    files: Sequence[str], pool_files: Sequence[str] = (), namespace: str | None = None, only: str | None = None
) -> tuple[Bundle, list[Planned]]:
    """Return what the files hold, and the Plan of each job (or of the one named `only`).

    Pools are those of `files` and `pool_files`. Where there are none, the pool is this machine, and what a job says
    of its place in a cluster (`spec.compute`, but for the image) does not count: what is computed is the same.

    Raises:
        CliError: as `manifests.load`; there is no job, or no pool in a file that is to hold some; or a job cannot be
            planned (78).
    """
    bundle, jobs = jobs_in([*files, *pool_files], namespace, only)
    for file in pool_files:
        if not bundle.kinds[file][ComputePool.__name__]:
            raise bad_configuration(
                f"--pools {called(file)}: {bundle.found_in([file])}, allowed: a file with ComputePools"
            )
    embedded = not bundle.pools
    pools: Sequence[Pool] = [this_machine()] if embedded else bundle.pools
    planned: list[Planned] = []
    problems: list[str] = []
    for job in jobs:
        placed = at_home(job) if embedded else job
        try:
            planned.append(Planned(job, resolve(placed, pools, PlanSettings()), embedded))
        except PlanError as error:
            problems.append(f"{job.namespace}/{job.name}: {error.message}{_of_pools(job, error) if embedded else ''}")
    if problems:
        raise bad_configuration(*problems)
    return bundle, planned


def refusals(jobs: Sequence[Job]) -> list[str]:
    """Return a line for each job that planning refuses, whatever pools there are."""
    lines = []
    for job in jobs:
        try:
            check_job(job)
        except PlanError as error:
            lines.append(f"{job.namespace}/{job.name}: {error.message}")
    return lines


def _of_pools(job: Job, error: PlanError) -> str:
    """Return what is said where a job does not fit this machine, which may not be where it is to run."""
    if error.reason != Reason.NO_POOL_FITS:
        return ""
    wanted = job.spec.compute.pool
    asks = "" if wanted == AUTO else f"the job asks for pool {wanted}, but "
    return f". This is for this machine: {asks}no ComputePool was given; --pools FILE tells of a cluster's pools"


def jobs_in(files: Sequence[str], namespace: str | None, only: str | None) -> tuple[Bundle, list[Job]]:
    """Return what files hold, and their jobs, or the one named `only`.

    Raises:
        CliError: as `manifests.load`; or there is no such job (78).
    """
    bundle = load(files, namespace)
    jobs = [job for job in bundle.jobs if only in {None, job.name}]
    if not jobs:
        there = ", ".join(job.name for job in bundle.jobs)
        wanted = f"no FineTuneJob named {only}" if only else "no FineTuneJob"
        found = f"there is {there}" if there else bundle.found_in(files)
        raise bad_configuration(f"{', '.join(map(called, files))}: {wanted} in it ({found})")
    return bundle, jobs


def at_home(job: Job) -> Job:
    """Return the job without its place in a cluster."""
    compute = ComputeSpec(image=job.spec.compute.image)
    return replace(job, spec=job.spec.model_copy(update={"compute": compute}))


def plan_json(plan: Plan) -> str:
    """Return the Plan document, as the trainer reads it."""
    return plan.model_dump_json(by_alias=True, exclude_none=True, indent=2)
