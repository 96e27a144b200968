"""Reading all that matters to one job, fresh from the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, NamedTuple

from strop.api import names
from strop.api.computepool import ComputePoolSpec
from strop.api.finetunejob import FineTuneJobSpec
from strop.cluster.client import Client
from strop.cluster.key import Key
from strop.cluster.resources import (
    BATCH_JOBS,
    CLAIMS,
    CONFIG_MAPS,
    EVENTS,
    JOBS,
    PODS,
    POLICIES,
    POOLS,
    SERVICES,
    VERSIONS,
    Resource,
)
from strop.decide import pods as reading
from strop.decide.ending import version_names
from strop.decide.observed import Observed
from strop.desired.metadata import Manifest, plan_name, policy_name, service_name, work_name
from strop.planning.inputs import Job, PlanError, PlanSettings, Pool
from strop.planning.resolve import resolve
from strop_trainer.plan import Plan, load_plan

OF_POOLS: Final = frozenset(
    {names.Reason.POOL_NOT_FOUND, names.Reason.NO_POOL_FITS, names.Reason.NAMESPACE_NOT_ALLOWED}
)
"""Reasons for which there is no Plan that another pool would mend."""


class Planned(NamedTuple):
    """What a job's spec stands for: a Plan and its pool, or the reason why there is none."""

    spec: FineTuneJobSpec | None = None
    plan: Plan | None = None
    pool: ComputePoolSpec | None = None
    refusal: PlanError | None = None


async def observe(client: Client, key: Key, plan_settings: PlanSettings, workloads: Resource | None) -> Observed | None:
    """Return what there is about a job; None where there is no such job.

    Args:
        client: The API server.
        key: The job.
        plan_settings: What the installation decides for all Plans.
        workloads: Kueue's Workloads, where the cluster has them.
    """
    job = await client.get(JOBS, key.name, key.namespace)
    if job is None:
        return None
    if _has_ended(job):
        claim = await client.get(CLAIMS, work_name(key.name), key.namespace)
        return Observed(job, children={"PersistentVolumeClaim": claim} if claim else {})
    children, pods, pools = await asyncio.gather(
        _children(client, key),
        client.list(PODS, key.namespace, labels=f"{names.LABEL_JOB}={key.name}"),
        client.list(POOLS),
    )
    child = children.get("Job")
    planned = _plan(job, pools, plan_settings, children.get("ConfigMap") if child else None)
    config_maps = {} if child else await _config_maps(client, key.namespace, planned.plan)
    claims, workload, versions, warning, refused = await asyncio.gather(
        _claims(client, key.namespace, planned.plan),
        _workload(client, workloads, child),
        _versions(client, job, pods),
        _warning(client, pods),
        _refused_pods(client, child, pods),
    )
    return Observed(
        job=job,
        spec=planned.spec,
        plan=planned.plan,
        refusal=planned.refusal,
        pool=planned.pool,
        children=children,
        pods=tuple(pods),
        claims=claims,
        config_maps=config_maps,
        kueue=workloads is not None,
        workload=workload,
        versions=versions,
        warning=warning,
        refused_pods=refused,
    )


def _has_ended(job: Manifest) -> bool:
    """A job that has ended, and is not being deleted, has nothing left to look at but its work claim."""
    conditions = (job.get("status") or {}).get("conditions", [])
    ended = any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)
    return ended and "deletionTimestamp" not in job["metadata"]


async def _children(client: Client, key: Key) -> dict[str, Manifest]:
    places = (
        (BATCH_JOBS, key.name),
        (CONFIG_MAPS, plan_name(key.name)),
        (SERVICES, service_name(key.name)),
        (POLICIES, policy_name(key.name)),
        (CLAIMS, work_name(key.name)),
    )
    found = await asyncio.gather(*(client.get(resource, name, key.namespace) for resource, name in places))
    return {child["kind"]: child for child in found if child is not None}


def _plan(job: Manifest, pools: Iterable[Manifest], settings: PlanSettings, config_map: Manifest | None) -> Planned:
    """A child Job keeps the Plan that it was made from, whatever a new one would be."""
    recorded = _recorded_plan(config_map)
    plan: Plan | None = recorded
    refusal: PlanError | None = None
    spec: FineTuneJobSpec | None = None
    readable, unread = _read_pools(pools)
    try:
        request = Job.from_resource(job)
        spec = request.spec
        plan = recorded or resolve(request, tuple(readable.values()), settings)
    except PlanError as error:
        refusal = None if recorded else _with_unread(error, unread)
    pool = readable.get(plan.placement.pool) if plan else None
    return Planned(spec, plan, pool.spec if pool else None, refusal)


def _read_pools(pools: Iterable[Manifest]) -> tuple[dict[str, Pool], list[str]]:
    """Return the pools by name, and what is wrong with those of another version: one of them must not stop all jobs."""
    readable: dict[str, Pool] = {}
    unread: list[str] = []
    for found in pools:
        try:
            pool = Pool.from_resource(found)
        except PlanError as error:
            unread.append(error.message)
        else:
            readable[pool.name] = pool
    return readable, unread


def _with_unread(error: PlanError, unread: list[str]) -> PlanError:
    """Return a refusal for want of a pool with the pools that were not asked, as one of them may be meant."""
    if not unread or error.reason not in OF_POOLS:
        return error
    return PlanError(error.reason, f"{error.message}. Left out, as this version cannot read it: {'; '.join(unread)}")


def _recorded_plan(config_map: Manifest | None) -> Plan | None:
    try:
        return load_plan((config_map or {}).get("data", {}).get(names.PLAN_KEY, ""))
    except ValueError:
        return None


async def _claims(client: Client, namespace: str, plan: Plan | None) -> dict[str, Manifest]:
    wanted = sorted({*plan.placement.claims, plan.placement.output.claim}) if plan else []
    found = await asyncio.gather(*(client.get(CLAIMS, name, namespace) for name in wanted))
    return {name: claim for name, claim in zip(wanted, found, strict=True) if claim is not None}


async def _config_maps(client: Client, namespace: str, plan: Plan | None) -> dict[str, frozenset[str]]:
    wanted = sorted(set(plan.placement.config_maps)) if plan else []
    found = await asyncio.gather(*(client.get(CONFIG_MAPS, name, namespace) for name in wanted))
    return {
        name: frozenset({**(each.get("data") or {}), **(each.get("binaryData") or {})})
        for name, each in zip(wanted, found, strict=True)
        if each is not None
    }


async def _workload(client: Client, workloads: Resource | None, child: Manifest | None) -> Manifest | None:
    if workloads is None or child is None or names.LABEL_QUEUE not in child["metadata"].get("labels", {}):
        return None
    label = f"kueue.x-k8s.io/job-uid={child['metadata']['uid']}"
    found = await client.list(workloads, child["metadata"]["namespace"], labels=label)
    return found[0] if found else None


async def _versions(client: Client, job: Manifest, pods: Iterable[Manifest]) -> dict[str, Manifest]:
    """The ModelVersions under the names that a published version may get."""
    words = [word for pod in pods if (word := reading.last_word(pod)) and word.published]
    if not words or words[-1].published is None:
        return {}
    wanted = version_names(job["metadata"]["uid"], words[-1].published)
    found = await asyncio.gather(*(client.get(VERSIONS, name, job["metadata"]["namespace"]) for name in wanted))
    return {name: version for name, version in zip(wanted, found, strict=True) if version is not None}


async def _warning(client: Client, pods: Iterable[Manifest]) -> str:
    """What a node says only in Events: that a volume cannot be mounted, or that the pod gets no address.

    The last Event counts, as mounting often fails at first and the image is pulled then.
    """
    made = next(filter(reading.is_being_made, pods), None)
    if made is None:
        return ""
    about = f"regarding.uid={made['metadata']['uid']}"
    last = max(await client.list(EVENTS, made["metadata"]["namespace"], fields=about), key=_last_seen, default={})
    return (last.get("note") or "") if last.get("type") == "Warning" else ""


async def _refused_pods(client: Client, child: Manifest | None, pods: Iterable[Manifest]) -> tuple[str, ...]:
    """What the Job controller says only in Events: asked for only where a Job should have a pod and has none."""
    if child is None or child["spec"].get("suspend"):
        return ()
    conditions = child.get("status", {}).get("conditions", [])
    ends = any(each["status"] == "True" for each in conditions)
    if ends or any(reading.phase(pod) not in ("Succeeded", "Failed") for pod in pods):
        return ()
    fields = f"regarding.uid={child['metadata']['uid']},reason=FailedCreate"
    found = await client.list(EVENTS, child["metadata"]["namespace"], fields=fields)
    found.sort(key=_last_seen)
    # Events stay for an hour: one from before the Job was resumed, or before its latest pod, is of the past. Whole
    # seconds are compared, as more is not known of the others.
    resumed = max((_second(each.get("lastTransitionTime")) for each in conditions), default="")
    made = max((_second(pod["metadata"].get("creationTimestamp")) for pod in pods), default="")
    recent = (event for event in found if made < _second(_last_seen(event)) >= resumed)
    return tuple(event.get("note") or "" for event in recent)


def _second(timestamp: str | None) -> str:
    return (timestamp or "")[:19]


def _last_seen(event: Manifest) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("deprecatedLastTimestamp"), event.get("eventTime"))
    return next(filter(None, times), "")
