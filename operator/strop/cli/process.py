"""Runs the trainer as a child and hands signals on, so that it can save a checkpoint."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Final

_FORWARDED: Final = (signal.SIGTERM, signal.SIGINT)
_SIGNAL_EXIT: Final = 128


def run_child(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end and return its exit code (128 + signal where a signal ended it).

    SIGTERM and Ctrl-C reach the child as one SIGTERM each; it runs in a session of its own, so that the terminal does
    not send it the same signal a second time.
    """
    with subprocess.Popen(command, env=dict(environment), start_new_session=True) as child:

        def forward(_signal: int, _frame: FrameType | None) -> None:
            child.send_signal(signal.SIGTERM)

        before = {number: signal.signal(number, forward) for number in _FORWARDED}
        try:
            code = child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return code if code >= 0 else _SIGNAL_EXIT - code
