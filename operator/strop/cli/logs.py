"""`kubectl logs`, with its failures told in words."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Final

from strop.cli.errors import CliError, missing_input
from strop_trainer.exit_codes import ExitCode

_NOTHING_FOUND: Final = re.compile(r"No resources found(?: in (?P<namespace>\S+) namespace)?\.?")
_DEBUGGING: Final = re.compile(r"[EWI]\d{4} \d\d:\d\d:\d\d\.")
"""A line of kubectl's own log: the same is said in a plain line at the end."""
_NO_CLUSTER: Final = ("was refused", "Unable to connect", "no such host", "i/o timeout")


def show_logs(command: Sequence[str], job: str) -> int:
    """Run `kubectl logs` and hand on what it prints; return its exit code.

    Raises:
        CliError: there is no pod of the job (66), or no cluster answers (69).
    """
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as child:
        assert child.stderr is not None  # noqa: S101 - asked for above
        last, nothing = _hand_on(child.stderr)
        code = child.wait()
    if nothing:
        namespace = nothing["namespace"]
        raise missing_input(
            f"found no pod of a FineTuneJob {job}{f' in namespace {namespace}' if namespace else ''}: "
            "kubectl get finetunejobs -A lists the jobs there are; one that waits has no pod yet"
        )
    if code and any(words in last for words in _NO_CLUSTER):
        raise CliError(ExitCode.SOURCE_UNAVAILABLE, f"no cluster answers: kubectl says: {last}")
    if last:
        sys.stderr.write(f"{last}\n")
    return code


def _hand_on(lines: IO[str]) -> tuple[str, re.Match[str] | None]:
    """Print all lines but kubectl's own log and the last one; return the last one, and whether nothing was found."""
    last, nothing = "", None
    for line in map(str.rstrip, lines):
        if _DEBUGGING.match(line):
            continue
        found = _NOTHING_FOUND.fullmatch(line)
        nothing = nothing or found
        if found is None:
            if last:
                sys.stderr.write(f"{last}\n")
            last = line
    return last, nothing
