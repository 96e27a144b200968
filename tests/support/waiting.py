"""Waiting for something to become true."""

import time
from collections.abc import Callable

PAUSE_SECONDS = 0.1


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Returns as soon as a condition holds.

    Args:
        condition: Is called until what it returns is true.
        what: What is waited for, for the message.
        seconds: How long at most.

    Raises:
        AssertionError: It did not hold in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            msg = f"not within {seconds:.0f} s: {what}"
            raise AssertionError(msg)
        time.sleep(PAUSE_SECONDS)
