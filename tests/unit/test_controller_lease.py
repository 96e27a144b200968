import asyncio
from typing import Any

import pytest

from strop.cluster.client import ApiError
from strop.controller.lease import Lease, LeaseLostError


class Store:
    """An API server that holds one Lease, with the optimistic locking of server-side apply."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.down = False
        self.silent = False

    async def get(self, *_: Any) -> dict[str, Any] | None:
        if self.silent:
            await asyncio.sleep(3600)
        if self.down:
            raise ApiError(500, "InternalError", "down")
        return self.lease

    async def apply(self, manifest: dict[str, Any], *, manager: str, force: bool) -> None:
        if self.down:
            raise ApiError(500, "InternalError", "down")
        found = self.lease["metadata"]["resourceVersion"] if self.lease else None
        if manifest["metadata"].get("resourceVersion") != found:
            raise ApiError(409, "Conflict", "changed")
        self.version += 1
        metadata = {**manifest["metadata"], "resourceVersion": str(self.version)}
        self.lease = {**manifest, "metadata": metadata}

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])


def candidate(store: Store, name: str, seconds: float = 0.3) -> Lease:
    return Lease(store, "ns", "strop", name, seconds)  # type: ignore[arg-type]


async def test_the_first_holds_it_and_the_second_waits() -> None:
    store = Store()
    first, second = candidate(store, "a"), candidate(store, "b")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(1.0)
    assert store.holder == "a"
    assert not waiting.done()
    for task in (holding, waiting):
        task.cancel()


async def test_a_lease_that_is_given_back_is_free_at_once() -> None:
    store = Store()
    first, second = candidate(store, "a", 3.0), candidate(store, "b", 3.0)
    await first.acquire()
    await first.release()
    assert not first.held
    await asyncio.wait_for(second.acquire(), 0.5)
    assert store.holder == "b"
    assert store.lease is not None
    assert store.lease["spec"]["leaseTransitions"] == 2
    await first.release()
    assert store.holder == "b"


async def test_a_lease_whose_holder_died_is_taken_after_its_time() -> None:
    store = Store()
    await candidate(store, "a").acquire()
    assert store.lease is not None
    store.lease["spec"]["leaseDurationSeconds"] = 0.3
    second = candidate(store, "b")
    begin = asyncio.get_running_loop().time()
    await asyncio.wait_for(second.acquire(), 5)
    assert asyncio.get_running_loop().time() - begin > 0.3
    assert store.holder == "b"


async def test_a_restarted_holder_goes_on() -> None:
    store = Store()
    await candidate(store, "a").acquire()
    await asyncio.wait_for(candidate(store, "a").acquire(), 0.1)


async def test_a_lease_that_cannot_be_renewed_is_lost() -> None:
    store = Store()
    lease = candidate(store, "a")
    await lease.acquire()
    store.down = True
    with pytest.raises(LeaseLostError, match="could not be renewed"):
        await asyncio.wait_for(lease.hold(), 2)
    assert not lease.held


async def test_a_server_that_never_answers_does_not_make_a_leader_of_two() -> None:
    store = Store()
    lease = candidate(store, "a", 0.6)
    await lease.acquire()
    store.silent = True
    begin = asyncio.get_running_loop().time()
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(lease.hold(), 2)
    assert asyncio.get_running_loop().time() - begin < 0.6, "before anyone else may take it"


async def test_a_lease_that_was_taken_is_lost_at_once() -> None:
    store = Store()
    lease = candidate(store, "a")
    await lease.acquire()
    assert store.lease is not None
    store.lease["spec"]["holderIdentity"] = "b"
    with pytest.raises(LeaseLostError, match="held by b"):
        await asyncio.wait_for(lease.hold(), 2)


async def test_a_short_outage_is_ridden_out() -> None:
    store = Store()
    lease = candidate(store, "a", 0.9)
    await lease.acquire()
    holding = asyncio.create_task(lease.hold())
    store.down = True
    await asyncio.sleep(0.35)
    store.down = False
    await asyncio.sleep(0.8)
    assert not holding.done()
    assert lease.held
    holding.cancel()


async def test_a_release_during_an_outage_is_left_to_time() -> None:
    store = Store()
    lease = candidate(store, "a")
    await lease.acquire()
    store.down = True
    await lease.release()
    assert store.holder == "a"
