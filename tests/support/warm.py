"""Trainers that begin with the libraries already loaded: processes of their own, without seven seconds of imports each.

A server process loads the libraries once for a worker of the tests and copies itself for each run; it has computed
nothing, so no thread of a library is lost in the copy. What depends on how a Python process starts (an import that
must not happen, a library that counts the cores) is tested with processes that start from nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

LIBRARIES = (
    "bitsandbytes",
    "matplotlib.pyplot",
    "onnxruntime",
    "onnxruntime_genai",
    "onnxscript",
    "peft",
    "sklearn.metrics",
    "torch.onnx",
    "transformers.generation.utils",
    "transformers.modeling_utils",
)

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(LIBRARIES))


def start_warm(variables: Mapping[str, str], output: Path, errors: Path) -> BaseProcess:
    """Start the trainer with an environment; it writes to two files."""
    process = _context.Process(target=_trainer, args=(dict(variables), str(output), str(errors)), daemon=True)
    process.start()
    return process


def start_warm_rank(variables: Mapping[str, str], output: Path, errors: Path) -> BaseProcess:
    """Start one rank, with torchrun's variables in its environment."""
    process = _context.Process(target=_rank, args=(dict(variables), str(output), str(errors)), daemon=True)
    process.start()
    return process


def _trainer(variables: dict[str, str], output: str, errors: str) -> None:
    _surround(variables, output, errors)
    from strop_trainer.__main__ import main  # noqa: PLC0415

    sys.exit(main())


def _rank(variables: dict[str, str], output: str, errors: str) -> None:
    _surround(variables, output, errors)
    from strop_trainer.ranks.rank import main  # noqa: PLC0415

    sys.exit(main())


def _surround(variables: dict[str, str], output: str, errors: str) -> None:
    for path, stream in ((output, 1), (errors, 2)):
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(target, stream)
        os.close(target)
    os.environ.clear()
    os.environ.update(variables)
