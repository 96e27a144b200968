"""Exit codes of the trainer: sysexits, so that a pod failure policy can tell what is worth another attempt."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How the trainer ended."""

    OK = 0
    INTERNAL = 70
    BAD_DATA = 65
    MISSING_INPUT = 66
    SOURCE_UNAVAILABLE = 69
    CANNOT_PUBLISH = 73
    PREEMPTED = 75
    PROOF_FAILED = 76
    NO_PERMISSION = 77
    BAD_CONFIGURATION = 78


DESCRIPTIONS: dict[ExitCode, str] = {
    ExitCode.OK: "done; the version is published",
    ExitCode.BAD_DATA: "the dataset is wrong; the message names file, row and field",
    ExitCode.MISSING_INPUT: "a model, file or volume is not where the job says",
    ExitCode.SOURCE_UNAVAILABLE: "a remote source did not answer; tried again",
    ExitCode.INTERNAL: "an unexpected error; tried again",
    ExitCode.CANNOT_PUBLISH: "the registry volume cannot be written (full, read-only)",
    ExitCode.PREEMPTED: "stopped with a checkpoint saved; goes on from there",
    ExitCode.PROOF_FAILED: "the result missed its proof or a metric gate, and is not published",
    ExitCode.NO_PERMISSION: "credentials are missing or refused",
    ExitCode.BAD_CONFIGURATION: "the job cannot work as it is: it does not fit, or asks for what is not supported",
}

LESS_MEMORY = (
    "Raise compute.resources.memory, lower training.microBatchSize or training.maxLength, or set "
    "training.gradientCheckpointing: true"
)
"""What to do where a trainer was out of memory."""

NON_RETRIABLE: tuple[ExitCode, ...] = (
    ExitCode.BAD_DATA,
    ExitCode.MISSING_INPUT,
    ExitCode.CANNOT_PUBLISH,
    ExitCode.PROOF_FAILED,
    ExitCode.NO_PERMISSION,
    ExitCode.BAD_CONFIGURATION,
)
"""Another attempt would end the same way."""
