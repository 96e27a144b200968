"""Errors that end a job: each knows its stage, its exit code and its words for a person."""

from __future__ import annotations

import errno

from strop_trainer.exit_codes import ExitCode

REASONS: dict[ExitCode, str] = {
    ExitCode.BAD_DATA: "BadData",
    ExitCode.MISSING_INPUT: "MissingInput",
    ExitCode.SOURCE_UNAVAILABLE: "SourceUnavailable",
    ExitCode.INTERNAL: "InternalError",
    ExitCode.CANNOT_PUBLISH: "CannotPublish",
    ExitCode.PREEMPTED: "Preempted",
    ExitCode.PROOF_FAILED: "ProofFailed",
    ExitCode.NO_PERMISSION: "NoPermission",
    ExitCode.BAD_CONFIGURATION: "BadConfiguration",
}

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of a volume that has no room."""


class TrainerError(Exception):
    """A job that cannot go on, in words for the person who wrote it.

    The stage is filled in by the runner where the raiser does not know it.
    """

    def __init__(self, exit_code: ExitCode, message: str, *, reason: str | None = None, stage: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.reason = reason or REASONS[exit_code]
        self.stage = stage


class Preempted(BaseException):
    """SIGTERM arrived. Not an Exception, so that no `except Exception` on the way swallows it."""


def bad_data(message: str) -> TrainerError:
    """Return the error of a wrong dataset."""
    return TrainerError(ExitCode.BAD_DATA, message)


def missing_input(message: str) -> TrainerError:
    """Return the error of a model, file or volume that is not where the job says."""
    return TrainerError(ExitCode.MISSING_INPUT, message)


def source_unavailable(message: str) -> TrainerError:
    """Return the error of a remote source that did not answer."""
    return TrainerError(ExitCode.SOURCE_UNAVAILABLE, message)


def no_permission(message: str) -> TrainerError:
    """Return the error of missing or refused credentials."""
    return TrainerError(ExitCode.NO_PERMISSION, message)


def bad_configuration(message: str) -> TrainerError:
    """Return the error of a job that cannot work as it is."""
    return TrainerError(ExitCode.BAD_CONFIGURATION, message)


def broken_work_volume(error: OSError) -> TrainerError:
    """Return the error of a work volume that takes no more: full, or it cannot be written."""
    what = error.filename or error.strerror or str(error)
    if error.errno in FULL:
        return bad_configuration(f"the work volume is full ({what}): a larger one is needed")
    return bad_configuration(f"the work volume cannot be written ({what})")


def explain(error: BaseException) -> TrainerError:
    """Turn any error into one for a person; what is not understood is internal (exit 70, worth another attempt)."""
    if isinstance(error, TrainerError):
        return error
    text = str(error).strip().split("\n", 1)[0]
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        return bad_configuration(
            "out of memory: a smaller training.microBatchSize or maxLength, training.gradientCheckpointing: true, "
            f"or a pool with more memory is needed ({text or 'MemoryError'})"
        )
    if isinstance(error, OSError) and error.errno in FULL:
        return broken_work_volume(error)
    return TrainerError(ExitCode.INTERNAL, f"unexpected {type(error).__name__}: {text or 'no message'}")
