"""Carrying a decision out: actions in order, then the status if it changed, then Events."""

from __future__ import annotations

from typing import assert_never

from strop.api.names import API_VERSION, FINALIZER
from strop.cluster.client import Client
from strop.controller.events import EventRecorder
from strop.decide.decision import Action, Apply, Create, Decision, Delete, Patch, SetFinalizer
from strop.decide.status import status_document
from strop.desired.metadata import Manifest


async def act(client: Client, events: EventRecorder, job: Manifest, decision: Decision) -> None:
    """Carry a decision about a job out; the first step that fails ends it, and the next look decides anew.

    Raises:
        ApiError: the API server refused a step; 409 where something changed since it was read.
    """
    for action in decision.actions:
        await _carry_out(client, job, action)
    if decision.status is not None:
        await _write_status(client, job, status_document(decision.status))
    await events.record(job, decision.events)


async def _carry_out(client: Client, job: Manifest, action: Action) -> None:
    match action:
        case SetFinalizer(present=True):
            await client.apply(_partial(job, {"finalizers": [FINALIZER]}))
        case SetFinalizer():
            others = [name for name in job["metadata"].get("finalizers", []) if name != FINALIZER]
            await client.patch(job, {"metadata": {"finalizers": others}})
        case Apply(manifest):
            await client.apply(manifest)
        case Create(manifest):
            await client.create(manifest)
        case Patch(target, body):
            await client.patch(target, body)
        case Delete(target, propagation):
            await client.delete(target, propagation)
        case _:
            assert_never(action)


async def _write_status(client: Client, job: Manifest, wanted: Manifest) -> None:
    if status_differs(wanted, job.get("status") or {}):
        await client.apply({**_partial(job, {}), "status": wanted}, subresource="status")


def status_differs(wanted: Manifest, found: Manifest) -> bool:
    """Return whether a status must be written; the progress is another writer's, but for what `wanted` has of it."""
    ours = wanted.get("progress", {})
    theirs = found.get("progress") or {}
    if any(theirs.get(name) != value for name, value in ours.items()):
        return True
    return _without_progress(wanted) != _without_progress(found)


def _without_progress(status: Manifest) -> Manifest:
    return {name: value for name, value in status.items() if name != "progress"}


def _partial(job: Manifest, metadata: Manifest) -> Manifest:
    """The uid makes sure that no other job of this name is meant, and that none is made."""
    found = job["metadata"]
    identity = {"name": found["name"], "namespace": found["namespace"], "uid": found["uid"]}
    return {"apiVersion": API_VERSION, "kind": "FineTuneJob", "metadata": {**identity, **metadata}}
