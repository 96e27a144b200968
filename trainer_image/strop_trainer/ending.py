"""How a process of the trainer ends: its last word and its exit code, whatever happens."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

from strop_trainer.context import Clock, StopRequest, say
from strop_trainer.errors import Preempted, explain
from strop_trainer.exit_codes import LESS_MEMORY, ExitCode
from strop_trainer.termination import TerminationMessage


def conclude(
    action: Callable[[], TerminationMessage], clock: Clock, stop: StopRequest
) -> tuple[TerminationMessage, ExitCode]:
    """Carry out what ends with a last word; return that of any other end, too, and the exit code.

    Called where stops are deferred, and lets them through to the action alone: one that comes while an error is put
    into words would else take its place, and nobody would be left to say a last word.
    """
    try:
        with stop.immediate():
            message = action()
    except Preempted:
        return preempted(clock.stage), ExitCode.PREEMPTED
    except Exception as unexpected:  # noqa: BLE001 - the last word must be said, whatever happens
        error = explain(unexpected)
        if error.exit_code is ExitCode.INTERNAL:
            traceback.print_exc()
        message = TerminationMessage(stage=error.stage or clock.stage, reason=error.reason, message=error.message)
        return message, error.exit_code
    return message, ExitCode.OK


def preempted(stage: str) -> TerminationMessage:
    """Return the last word of a stop that was asked for."""
    saved = "; it goes on from its newest checkpoint" if stage != "check" else ""
    return TerminationMessage(stage=stage, reason="Preempted", message=f"stopped in {stage}{saved}")


def say_last(message: TerminationMessage, code: ExitCode) -> None:
    """Write the last word to the log."""
    where = "" if code is ExitCode.OK else f" in {message.stage}"
    say(f"\n{message.reason}{where}: {message.message}")


def out_of_memory(stage: str, limit: int) -> TerminationMessage:
    """Return the last word of a trainer that stands still at its memory limit, in bytes."""
    return TerminationMessage(
        stage=stage,
        reason="OutOfMemory",
        message=f"out of memory: the trainer stands still at its limit of {limit / 2**20:.0f}Mi, where the kernel "
        f"drops and reads again what it runs. {LESS_MEMORY}",
    )


def write_last(message: TerminationMessage, path: str | None) -> None:
    """Write the last word to where Kubernetes reads it; None: nobody does."""
    if path:
        Path(path).write_text(message.dump(), encoding="utf-8")
