import asyncio

import pytest

from strop.cluster.key import Key
from strop.controller.queue import FIRST_DELAY, LAST_DELAY, KeyedQueue

A, B = Key("ns", "a"), Key("ns", "b")


def queue() -> KeyedQueue:
    return KeyedQueue(jitter=lambda: 1.0)


async def taken(keys: KeyedQueue, seconds: float = 0.05) -> Key | None:
    try:
        return await asyncio.wait_for(keys.take(), seconds)
    except TimeoutError:
        return None


async def test_a_key_is_there_once_however_often_it_is_added() -> None:
    keys = queue()
    for key in (A, B, A, A):
        keys.add(key)
    assert keys.depth() == 2
    assert [await taken(keys), await taken(keys), await taken(keys)] == [A, B, None]


async def test_no_two_workers_have_one_key_and_nothing_added_meanwhile_is_lost() -> None:
    keys = queue()
    keys.add(A)
    assert await taken(keys) == A
    keys.add(A)
    keys.add(A)
    assert await taken(keys) is None
    keys.finish(A)
    assert await taken(keys) == A
    keys.finish(A)
    assert await taken(keys) is None


async def test_a_waiting_worker_wakes() -> None:
    keys = queue()
    waiting = asyncio.create_task(keys.take())
    await asyncio.sleep(0)
    keys.add(A)
    assert await asyncio.wait_for(waiting, 1) == A


async def test_several_workers_share_the_keys() -> None:
    keys = queue()
    workers = [asyncio.create_task(keys.take()) for _ in range(2)]
    await asyncio.sleep(0)
    keys.add(A)
    keys.add(B)
    assert set(await asyncio.wait_for(asyncio.gather(*workers), 1)) == {A, B}


async def test_the_earliest_of_several_delays_counts_and_an_event_beats_them() -> None:
    keys = queue()
    keys.add_after(A, 30)
    keys.add_after(A, 0.02)
    keys.add_after(A, 60)
    assert await taken(keys, 1) == A
    keys.finish(A)
    keys.add_after(A, 60)
    keys.add(A)
    assert await taken(keys) == A
    keys.finish(A)
    assert await taken(keys) is None


async def test_a_delay_of_a_ready_key_is_void() -> None:
    keys = queue()
    keys.add(A)
    keys.add_after(A, 0.01)
    assert await taken(keys) == A
    keys.finish(A)
    assert await taken(keys) is None


async def test_failures_are_met_with_patience_that_ends_with_success() -> None:
    keys = queue()
    delays = []
    for _ in range(9):
        keys.add(A)
        await keys.take()
        delays.append(keys.retry(A))
    assert delays == [1, 2, 4, 8, 16, 32, LAST_DELAY, LAST_DELAY, LAST_DELAY]
    keys.add(A)
    await keys.take()
    keys.finish(A)
    keys.add(A)
    await keys.take()
    assert keys.retry(A) == FIRST_DELAY


async def test_jitter_spreads_the_retries_of_many() -> None:
    keys = KeyedQueue(jitter=lambda: 0.0)
    keys.add(A)
    await keys.take()
    assert keys.retry(A) == FIRST_DELAY / 2


async def test_an_event_during_a_failing_look_does_not_cut_the_patience() -> None:
    keys = queue()
    keys.add(A)
    await keys.take()
    keys.add(A)
    keys.retry(A)
    assert await taken(keys) is None


async def test_waits_and_looks_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = queue()
    clock = [100.0]
    monkeypatch.setattr(KeyedQueue, "_time", staticmethod(lambda: clock[0]))
    assert (keys.oldest_wait(), keys.longest_look()) == (0, 0)
    keys.add(A)
    clock[0] = 107.0
    keys.add(B)
    assert keys.oldest_wait() == 7
    await keys.take()
    clock[0] = 110.0
    assert (keys.oldest_wait(), keys.longest_look()) == (3, 3)
