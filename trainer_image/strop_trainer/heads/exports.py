"""The ONNX folders of a version: the first precision is the one that consumers load."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from strop_trainer import registry
from strop_trainer.addresses import shown
from strop_trainer.context import say
from strop_trainer.plan import OnnxPrecision
from strop_trainer.shared_bases import (
    ADAPTER_FILE,
    ADAPTER_FOLDER,
    REFERENCE_FILE,
    AdapterDocument,
    BaseManifest,
    find_base,
    key_of,
)

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


def export_on_bases(run: Run) -> None:
    """Write the adapter as a file for base graphs, and note them in `run.bases`: the registry's, or built ones.

    Args:
        run: with its adapter written.
    """
    from strop_trainer.export.shared_base import adapted_layers, build_base, write_adapter  # noqa: PLC0415 - seconds

    adapter, layers = run.artifact("adapter"), adapted_layers(run.artifact("adapter"))
    for precision in run.plan.training.artifact.onnx:
        begin = time.monotonic()
        shared = find_base(run.settings.registry, key_of(run.base_fingerprint, layers, precision))
        folder = shared or run.artifact(f"base-{precision}")
        if shared is None:
            build_base(run.model.path, adapter, folder, precision)
        run.bases[precision] = folder
        size = sum(file.stat().st_size for file in folder.iterdir())
        origin = "found in the registry" if shared else "built"
        say(f"  base graph: {precision}, {size / 1e6:,.0f} MB, {origin} in {time.monotonic() - begin:.1f} s")
    out = run.artifact(ADAPTER_FOLDER)
    out.mkdir()
    write_adapter(adapter, next(iter(run.bases.values())), out / ADAPTER_FILE)
    say(f"  {ADAPTER_FOLDER}: {(out / ADAPTER_FILE).stat().st_size / 1e6:,.1f} MB")


def publish_on_bases(run: Run, stage: Path) -> None:
    """Copy the adapter's file to a version, and publish the base graphs that it is for beside it.

    Raises:
        TrainerError: the volume cannot be written (exit 73).
    """
    from strop_trainer.export.shared_base import adapted_layers, builder  # noqa: PLC0415

    layers, model = adapted_layers(run.artifact("adapter")), run.plan.training.model
    references = []
    for precision, folder in run.bases.items():
        draft = BaseManifest(
            base_model=shown(model.source),
            base_fingerprint=run.base_fingerprint,
            layers=layers,
            precision=precision,
            builder=builder(),
            files=[],
        )
        references.append(registry.publish_base(run.settings.registry, run.settings.job_uid, folder, draft))
    registry.copy_tree(run.artifact(ADAPTER_FOLDER), stage / ADAPTER_FOLDER)
    document = AdapterDocument(bases=references).model_dump_json(by_alias=True, indent=1)
    (stage / ADAPTER_FOLDER / REFERENCE_FILE).write_text(document + "\n", encoding="utf-8")
