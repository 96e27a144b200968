"""Errors of the command line: one clear line (or one a problem), an exit code of sysexits, no traceback."""

from __future__ import annotations

from typing import Final

from strop_trainer.exit_codes import ExitCode

USAGE: Final = 64
"""EX_USAGE: the command line itself is wrong."""
CANNOT_WRITE: Final = 74
"""EX_IOERR: what is said, or a file, cannot be written."""
INTERRUPTED: Final = 130


class CliError(Exception):
    """What ends a command."""

    def __init__(self, exit_code: int, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.exit_code = int(exit_code)
        self.lines = lines


def bad_configuration(*lines: str) -> CliError:
    """Return the error of a manifest that cannot work as it is (78)."""
    return CliError(ExitCode.BAD_CONFIGURATION, *lines)


def missing_input(*lines: str) -> CliError:
    """Return the error of a file, claim or ConfigMap that is not there (66)."""
    return CliError(ExitCode.MISSING_INPUT, *lines)
