"""Loss curves as SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any


def loss_curves(metrics: Sequence[dict[str, Any]]) -> str:
    """Return an <svg> element with the training and held-out loss by step; empty where there is nothing to draw.

    Args:
        metrics: lines of metrics.jsonl.
    """
    train = [(line["step"], line["loss"]) for line in metrics if line.get("loss") is not None]
    held = [(line["step"], line["eval_loss"]) for line in metrics if line.get("eval_loss") is not None]
    if not train and not held:
        return ""
    import matplotlib as mpl  # noqa: PLC0415 - a second, only where it is used
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({"svg.hashsalt": "strop", "svg.fonttype": "none", "font.size": 9}):
        figure: Any = Figure(figsize=(7.2, 2.8), layout="constrained")
        axes = figure.add_subplot()
        if train:
            axes.plot(*zip(*train, strict=True), linewidth=1.2, label="training")
        if held:
            axes.plot(*zip(*held, strict=True), marker="o", markersize=4, linewidth=1.2, label="held out")
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.grid(visible=True, alpha=0.3)
        axes.legend(frameon=False)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        drawn = io.StringIO()
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None, "Creator": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]
