"""A job's rows as the model's tokens: the trainer tries them, in a process of its own, where it is installed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Final

from strop.cli.errors import CliError
from strop.cli.process import SIGNAL_EXIT, run_child, trainer_is_installed
from strop.cli.workspace import Workspace
from strop_trainer.exit_codes import ExitCode

MODULE: Final = "strop_trainer.rows_check"
_STOPPED: Final = (ExitCode.PREEMPTED, SIGNAL_EXIT + signal.SIGTERM)
_SHOWN_LINES: Final = 20


def try_as_tokens(workspace: Workspace) -> str:
    """Return the lengths of the rows as the model's tokens, in words; where the trainer is not installed, a note.

    Args:
        workspace: laid out; what the plan names is local.

    Raises:
        CliError: with the trainer's exit code and words; what it said on the way where its words do not explain it.
        KeyboardInterrupt: a stop was asked for.
    """
    if not trainer_is_installed():
        return "rows not tried as tokens: the trainer is not installed here"
    log = workspace.root / "rows.log"
    with log.open("wb") as output:
        code = run_child([sys.executable, "-m", MODULE], {**os.environ, **workspace.environment()}, output)
    if code in _STOPPED:
        raise KeyboardInterrupt
    last = workspace.last_word()
    if last is None:
        raise CliError(code, f"rows as tokens: the trainer ended with {code} and no last word", *_end_of(log))
    if code != ExitCode.OK:
        unexplained = _end_of(log) if code == ExitCode.INTERNAL else []
        raise CliError(code, *last.message.splitlines(), *unexplained)
    return last.message


def _end_of(log: Path) -> list[str]:
    """Return the last lines of a log, set in."""
    return [f"  {line}" for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:]]
