"""The queue of keys: one entry a key however often it is added, one worker a key, and patience after failures."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from strop.cluster.key import Key

FIRST_DELAY: Final = 1.0
LAST_DELAY: Final = 60.0


class KeyedQueue:
    """Keys that wait for a look, each at most once.

    A key that is added while a worker has it is looked at once more afterwards. All methods belong to one event loop.
    """

    def __init__(self, *, jitter: Callable[[], float] = random.random) -> None:
        self._ready: dict[Key, float] = {}
        self._taken: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()
        self._jitter = jitter

    def add(self, key: Key) -> None:
        """Ask for a look as soon as a worker is free; a look that was put off is not waited for."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._taken:
            self._again.add(key)
            return
        self._ready.setdefault(key, self._time())
        self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Ask for a look after a while; the earliest of several requests counts."""
        due = self._time() + seconds
        timer = self._timers.get(key)
        if key in self._ready or (timer and timer.when() <= due):
            return
        if timer:
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._fire, key)

    async def take(self) -> Key:
        """Wait for a key, which is the caller's until `finish` or `retry`."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        key = next(iter(self._ready))
        del self._ready[key]
        self._taken[key] = self._time()
        return key

    def finish(self, key: Key) -> None:
        """Give a key back after a look that went well."""
        self._failures.pop(key, None)
        self._release(key)

    def retry(self, key: Key) -> float:
        """Give a key back after a look that failed, and return the seconds until the next."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(LAST_DELAY, FIRST_DELAY * (1 << min(failures, 16))) * (0.5 + 0.5 * self._jitter())
        del self._taken[key]
        self._again.discard(key)
        self.add_after(key, delay)
        return delay

    def taken(self) -> tuple[Key, ...]:
        """Keys that workers have."""
        return tuple(self._taken)

    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._ready)

    def oldest_wait(self) -> float:
        """Seconds that the longest waiting key has waited for a worker."""
        return self._time() - min(self._ready.values(), default=self._time())

    def longest_look(self) -> float:
        """Seconds that the slowest worker has been looking."""
        return self._time() - min(self._taken.values(), default=self._time())

    def _release(self, key: Key) -> None:
        del self._taken[key]
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _fire(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()
