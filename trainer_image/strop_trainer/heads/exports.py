"""The ONNX folders of a version: the first precision is the one that consumers load."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from strop_trainer.context import say
from strop_trainer.plan import OnnxPrecision

if TYPE_CHECKING:
    from strop_trainer.run import Run


def export_each(
    run: Run, precisions: Sequence[OnnxPrecision], build: Callable[[Path, Path, OnnxPrecision], None]
) -> None:
    """Build a folder for each precision, from the merged model, and note it in `run.exports`.

    Args:
        run: with its merged model written.
        precisions: those of the plan.
        build: merged model, folder to make, precision.
    """
    for position, precision in enumerate(precisions):
        begin = time.monotonic()
        folder = run.artifact("onnx" if position == 0 else f"onnx-{precision}")
        build(run.artifact("merged"), folder, precision)
        run.exports[precision] = folder
        size = sum(file.stat().st_size for file in folder.iterdir())
        say(f"  {folder.name}: {precision}, {size / 1e6:,.0f} MB in {time.monotonic() - begin:.1f} s")
