"""Where a job runs: which pools it fits, and which of those is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from strop.api import names
from strop.api.finetunejob import ResourcesSpec
from strop.api.quantities import GIB, format_bytes, memory_quantity, parse_quantity
from strop.planning.inputs import Job, PlanError, Pool
from strop_trainer.plan import MemoryEstimate, ResourcesPlacement

AUTO = "auto"
_MISSING_CPU = Fraction(1, 4)
"""What a whole CPU may lack, as the trainer counts threads."""
_IN_FP32 = " in fp32, which is chosen where the CPU is faster in it,"
HEADROOM = 1.1
"""Limit of a pod over its estimate: a pod at 88 % of a limit that was the bare estimate was seen, and a killed one has
wasted its time."""


@dataclass(frozen=True)
class Needs:
    """What one trainer pod needs, before a pool is known."""

    cpu_estimate: MemoryEstimate | None
    """Training on CPUs, of one rank; None where nothing tells the size of the model."""
    accelerator_estimate: MemoryEstimate | None
    """Training on an accelerator, of one rank: its memory."""
    pod: int | None
    """Bytes of the memory of a pod that trains on CPUs."""
    host: int | None
    """Bytes of a pod's memory beside accelerators."""
    given: ResourcesSpec
    nodes: int
    ranks: int
    """Of a pod."""
    unexported: int | None = None
    """`host` where nothing is exported or merged; None where that is no less, or cannot be asked for."""
    pod_fp32: int | None = None
    """`pod` in fp32, where the trainer chooses the precision; else None."""


@dataclass(frozen=True)
class Fit:
    """What a job would take from a pool; `obstacles` is empty where it fits."""

    pool: Pool
    resources: ResourcesPlacement
    estimate: MemoryEstimate | None
    obstacles: tuple[str, ...]
    estimated: bool = False
    """An obstacle is the estimate, not a number that the job gives."""
    fp32_memory: int | None = None
    """Bytes of a pod in fp32, where the trainer may choose it."""
    checkpointing: bool | None = None
    """Whether activations are recomputed, where the job leaves it to what the pool has room for; None: it does not."""
    sized_by_fp32: bool = False
    """The pod's memory is what it needs in fp32, not by `estimate`."""


def fit(pool: Pool, needs: Needs) -> Fit:
    """Return what a pod would take from a node of a pool, and what stands against it, with the numbers."""
    spec, given = pool.spec, needs.given
    obstacles: list[str] = []
    estimated = False
    accelerators = _accelerators(pool, needs)
    on_accelerator = accelerators > 0
    estimate = needs.accelerator_estimate if on_accelerator else needs.cpu_estimate
    host = needs.host if on_accelerator else needs.pod
    memory = given.memory or (spec.memory_per_node if host is None else _limit(host, spec.memory_per_node))
    cpu = given.cpu or spec.cpu_per_node

    if accelerators and spec.accelerator is None:
        obstacles.append(f"needs {accelerators} accelerator(s), has none")
    elif spec.accelerator is not None and on_accelerator:
        if accelerators > spec.accelerator.per_node:
            obstacles.append(f"needs {accelerators} accelerators, a node has {spec.accelerator.per_node}")
        if estimate is not None and estimate.total > parse_quantity(spec.accelerator.memory):
            obstacles.append(
                f"needs {format_bytes(estimate.total)} of accelerator memory, one has {spec.accelerator.memory}"
            )
            estimated = True
    if parse_quantity(memory) > parse_quantity(spec.memory_per_node):
        obstacles.append(_too_little(memory, spec.memory_per_node, needs, host if on_accelerator else None))
        estimated |= given.memory is None
    if parse_quantity(cpu) > parse_quantity(spec.cpu_per_node):
        obstacles.append(f"needs {cpu} CPUs, a node has {spec.cpu_per_node}")
    elif parse_quantity(cpu) + _MISSING_CPU < needs.ranks > 1:
        obstacles.append(f"needs {needs.ranks} CPUs, one a rank, has {cpu}")
    if needs.nodes > spec.max_nodes:
        obstacles.append(f"needs {needs.nodes} nodes, a job may use {spec.max_nodes}")
    return Fit(
        pool=pool,
        resources=ResourcesPlacement(
            cpu=cpu,
            memory=memory,
            accelerator=spec.accelerator.resource_name if spec.accelerator and on_accelerator else None,
            accelerators=accelerators,
            shared_memory=shared_memory(needs.ranks),
        ),
        estimate=estimate,
        obstacles=tuple(obstacles),
        estimated=estimated,
        fp32_memory=None if on_accelerator else needs.pod_fp32,
    )


def choose_checkpointing(chosen: Fit, without: Needs, *, known: bool) -> tuple[Fit, str]:
    """Return what a job takes from its pool, with all activations kept where they fit in it, and why in words.

    A tenth must stay free: a job that ran out of memory for it has wasted more time than it saves. Nor may a pod on
    CPUs lose its room for fp32, which gains more where a CPU has no bf16.

    Args:
        chosen: the pool, and what is taken from it with gradient checkpointing.
        without: what the same pod needs without it.
        known: whether the model's shape is known, and not that of a typical model of its size.
    """
    if not known or chosen.estimate is None or without.pod is None or without.accelerator_estimate is None:
        return replace(chosen, checkpointing=True), (
            "on: the model has no preset, and so it is not known whether all activations would fit"
        )
    pool, given = chosen.pool, without.given.memory
    here, on_accelerator = f"in pool {pool.name}", chosen.resources.accelerators > 0
    bf16 = without.accelerator_estimate.total if on_accelerator else without.pod
    # A pod that had room for fp32 keeps it.
    fp32 = 0 if on_accelerator or _lacks_fp32(chosen) else without.pod_fp32 or 0
    needed = max(bf16, fp32)
    if on_accelerator and pool.spec.accelerator is not None:
        room, whose = pool.spec.accelerator.memory, "the accelerator's"
    elif given is not None:
        room, whose = given, "compute.resources.memory's"
    else:
        room, whose = pool.spec.memory_per_node, "a node's"
    off = f"{format_bytes(needed)}{_IN_FP32 if needed > bf16 else ''} and a tenth more"
    on = "" if without.ranks > 1 and not on_accelerator else f" is {format_bytes(chosen.estimate.total)}"
    if needed * HEADROOM > parse_quantity(room):
        return replace(chosen, checkpointing=True), (
            f"on {here}, where it{on or ' fits'}: off, it is {off}, which {whose} {room} do not have"
        )
    kept = fit(pool, without if on_accelerator else replace(without, pod=needed))
    return replace(kept, checkpointing=False, sized_by_fp32=given is None and needed > bf16), (
        f"off {here}, where all activations fit: {off} of {whose} {room}; on, it{f'{on} and' if on else ' takes'} "
        "about a third more time (Chen et al. 2016)"
    )


def _lacks_fp32(found: Fit) -> bool:
    """Whether a pod on CPUs could not be computed in fp32 by the estimate; False where that is not chosen anyway."""
    return found.fp32_memory is not None and found.fp32_memory > parse_quantity(found.resources.memory)


def _too_little(memory: str, node: str, needs: Needs, beside: int | None) -> str:
    """Return why a pod's memory is more than a node has, and what helps.

    Args:
        memory: of the pod.
        node: memory that a node has.
        needs: of the pod.
        beside: bytes of the estimate, where it is for what is done beside an accelerator.
    """
    if needs.given.memory is not None:
        return f"compute.resources.memory asks for {memory}, a node has {node}: give no more, or leave it out"
    if beside is None:
        return f"needs {memory} of memory, a node has {node}"
    what = "to merge the adapter and export it in fp32" if needs.unexported else "to load, merge and export"
    help_ = ""
    if needs.unexported and needs.unexported <= parse_quantity(node):
        help_ = f"; without export (output.onnx.enabled: false) and merged model {memory_quantity(needs.unexported)} do"
    return f"needs {memory} of the node's own memory, beside the accelerator's, {what}; a node has {node}{help_}"


def choose_pool(job: Job, pools: Sequence[Pool], needs: Needs) -> Fit:
    """Return the pool that the job names, or for `auto` the cheapest that fits and admits its namespace.

    Pools of equal cost are taken by name, so that the choice does not depend on their order.

    Raises:
        PlanError: there is no such pool, it does not admit the namespace, or the job does not fit.
    """
    wanted = job.spec.compute.pool
    if wanted != AUTO:
        return _named_pool(job, pools, needs, wanted)
    if not pools:
        raise PlanError(
            names.Reason.POOL_NOT_FOUND,
            "spec.compute.pool: found auto, but there is no ComputePool in this cluster: create one "
            "(kubectl apply -f examples/pools.yaml shows how)",
        )
    admitting = [pool for pool in pools if admits(pool, job.namespace)]
    if not admitting:
        raise PlanError(
            names.Reason.NAMESPACE_NOT_ALLOWED,
            f"spec.compute.pool: found auto, but no ComputePool admits namespace {job.namespace} "
            f"({', '.join(sorted(pool.name for pool in pools))}): add it to spec.namespaces of one",
        )
    fits = [fit(pool, needs) for pool in sorted(admitting, key=lambda pool: (pool.spec.cost, pool.name))]
    chosen = next((candidate for candidate in fits if not candidate.obstacles), None)
    if chosen is None:
        raise _no_pool_fits(fits, needs)
    return chosen


def admits(pool: Pool, namespace: str) -> bool:
    """Return whether jobs of a namespace may use a pool."""
    return not pool.spec.namespaces or namespace in pool.spec.namespaces


def _named_pool(job: Job, pools: Sequence[Pool], needs: Needs, wanted: str) -> Fit:
    pool = next((pool for pool in pools if pool.name == wanted), None)
    if pool is None:
        there = ", ".join(sorted(pool.name for pool in pools)) or "none: create one (see examples/pools.yaml)"
        raise PlanError(names.Reason.POOL_NOT_FOUND, f"spec.compute.pool: found {wanted}, there is {there}")
    if not admits(pool, job.namespace):
        raise PlanError(
            names.Reason.NAMESPACE_NOT_ALLOWED,
            f"spec.compute.pool: pool {wanted} does not admit namespace {job.namespace}, allowed: "
            f"{', '.join(pool.spec.namespaces)}",
        )
    result = fit(pool, needs)
    if result.obstacles:
        raise _no_pool_fits([result], needs)
    return result


def _no_pool_fits(fits: Sequence[Fit], needs: Needs) -> PlanError:
    against = "; ".join(f"{candidate.pool.name}: {', '.join(candidate.obstacles)}" for candidate in fits)
    estimate = needs.cpu_estimate
    basis = f" (estimate by {estimate.basis})" if estimate else ""
    help_ = ""
    too_large = any(candidate.estimated for candidate in fits)
    if (
        too_large
        and estimate is not None
        and estimate.activations > max(estimate.weights + estimate.gradients + estimate.optimizer, estimate.overhead)
    ):
        help_ = ". The largest part is activations: a smaller training.maxLength or microBatchSize needs less"
    return PlanError(names.Reason.NO_POOL_FITS, f"the job fits no pool{basis}: {against}{help_}")


def _limit(estimate: int, node: str) -> str:
    """Return the memory for an estimate: a tenth more than it, or all that the node has where that is enough."""
    roomy = memory_quantity(round(estimate * HEADROOM))
    if parse_quantity(roomy) <= parse_quantity(node):
        return roomy
    return node if estimate <= parse_quantity(node) else memory_quantity(estimate)


def shared_memory(ranks: int) -> str:
    """Return the most that a pod may have in /dev/shm, through which ranks and what feeds them talk: 1 GiB a rank.

    It is memory of the pod as far as it is used.
    """
    return memory_quantity(ranks * GIB)


def _accelerators(pool: Pool, needs: Needs) -> int:
    if needs.given.accelerators is not None:
        return needs.given.accelerators
    return needs.ranks if pool.spec.accelerator is not None else 0
