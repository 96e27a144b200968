"""Waiting for something to become true."""

import time
from collections.abc import Callable

PAUSE_SECONDS = 0.1


def wait_until(condition: Callable[[], object], what: str | Callable[[], str], seconds: float = 30.0) -> None:
    """Returns as soon as a condition holds.

    Args:
        condition: Is called until what it returns is true.
        what: What is waited for, for the message; a function is asked when the time is over.
        seconds: How long at most.

    Raises:
        AssertionError: It did not hold in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            msg = f"not within {seconds:.0f} s: {what if isinstance(what, str) else what()}"
            raise AssertionError(msg)
        time.sleep(PAUSE_SECONDS)
