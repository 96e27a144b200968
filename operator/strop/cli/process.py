"""Runs the trainer as a child and hands signals on, so that it can save a checkpoint."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import FrameType
from typing import IO, Final

_FORWARDED: Final = (signal.SIGTERM, signal.SIGINT)
SIGNAL_EXIT: Final = 128
"""What a shell adds to the number of the signal that ended a command."""
_LIBRARIES: Final = ("torch", "transformers", "accelerate", "peft")
"""What the trainer cannot do without."""


def trainer_is_installed() -> bool:
    """Return whether the trainer can be run in this environment; nothing is imported for it."""
    return all(map(find_spec, _LIBRARIES))


def run_child(command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | None = None) -> int:
    """Run a command to its end and return its exit code (128 + signal where a signal ended it).

    SIGTERM and Ctrl-C reach the child as one SIGTERM each; it runs in a session of its own, so that the terminal does
    not send it the same signal a second time. What it says goes to `output`; None: to where this process speaks.
    """
    errors = None if output is None else subprocess.STDOUT
    with subprocess.Popen(
        command, env=dict(environment), start_new_session=True, stdout=output, stderr=errors
    ) as child:

        def forward(_signal: int, _frame: FrameType | None) -> None:
            child.send_signal(signal.SIGTERM)

        before = {number: signal.signal(number, forward) for number in _FORWARDED}
        try:
            code = child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return code if code >= 0 else SIGNAL_EXIT - code
