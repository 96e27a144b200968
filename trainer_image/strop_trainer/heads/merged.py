"""What is published is what was trained: the adapter loaded again, and the model that it is merged into."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop_trainer import evaluation
from strop_trainer.context import say
from strop_trainer.device import CPU
from strop_trainer.documents import AdapterProof, MergedProof
from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode

if TYPE_CHECKING:
    from strop_trainer.export.merge import Merged
    from strop_trainer.run import Run

EXACT = 1e-3
"""Share of the logits' norm by which two models of the same weights may differ in fp32: some hundred times what the
order of the sums makes, which is 1e-5."""
ROOM = 2
"""Times its weights that an accelerator must have free for a model that is measured on it."""


def largest(values: Sequence[float]) -> float:
    """Return the largest of some numbers; what is no number counts as larger than any, which `max` would pass over."""
    return next(filter(math.isnan, values), max(values, default=0.0))


def difference(expected: Sequence[Any], found: Sequence[Any]) -> float:
    """Return the norm of the difference over the norm of what is expected, the largest of any pair of tensors."""
    pairs = zip(expected, found, strict=True)
    return largest([float((before - after).norm() / before.norm()) for before, after in pairs])


def prove_reloaded(expected: Sequence[Any], found: Sequence[Any], limit: float) -> AdapterProof:
    """Return the proof that a saved adapter, loaded again, answers as the model that was trained.

    Raises:
        TrainerError: it does not (exit 76).
    """
    differs = difference(expected, found)
    if not differs <= limit:
        raise _another("the saved adapter", differs, limit)
    say(f"  adapter: loaded again, its logits differ by {differs:.2g} of their norm")
    return AdapterProof(passed=True, logit_difference=differs, limit=limit, passes=len(expected))


def prove_merged(found: Merged, trained: Sequence[Any] | None = None, limit: float = EXACT) -> MergedProof:
    """Return the proof that a merged model answers as the adapter beside its base, and as the model that was trained.

    Args:
        found: with what both forms put out.
        trained: what the trained model put out for the same rows; None where its base had other weights than the
            published one, be it only that they were rounded.
        limit: by what share of their norm the logits of the trained model may differ.

    Raises:
        TrainerError: it does not (exit 76).
    """
    beside = difference(found.beside, found.folded)
    from_trained = None if trained is None else difference(trained[: len(found.folded)], found.folded)
    for differs, allowed in ((beside, EXACT), (from_trained, limit)):
        if differs is not None and not differs <= allowed:
            raise _another("the merged model", differs, allowed)
    also = "" if from_trained is None else f", by {from_trained:.2g} from those of the model that was trained"
    say(f"  merged: its logits differ by {beside:.2g} of their norm from those of base and adapter{also}")
    return MergedProof(
        passed=True,
        logit_difference=beside,
        limit=EXACT,
        trained_difference=from_trained,
        trained_limit=None if trained is None else limit,
    )


def _another(what: str, differs: float, limit: float) -> TrainerError:
    return TrainerError(
        ExitCode.PROOF_FAILED,
        f"not published, {what} is not what was trained: logits differ by {differs:.2g} of their norm, allowed: "
        f"{limit:.2g}",
    )


def hold_merged(run: Run, found: Mapping[str, float], answers: Sequence[str] = (), *, moved: bool) -> None:
    """Report what the merged model was measured to be, and hold it to the job's gates as well.

    Args:
        run: after training; `metrics_tuned` gets `eval_loss_merged`, or `…_merged` for each metric, and `samples` the
            answers.
        found: metrics of the merged model on the held-out rows, eval_loss among them.
        answers: its answers to the rows of `samples`, or none.
        moved: whether the adapter was trained on other weights than it is merged into: quantized ones, or ones that
            its start had been taken off. All that the merged model says may differ then.

    Raises:
        TrainerError: it misses a gate (exit 76).
    """
    trained = run.metrics_tuned["eval_loss"]
    shown = found if moved else {"eval_loss": found["eval_loss"]}
    say(f"  merged into the base model as it is: eval_loss {found['eval_loss']:.4f}, as trained {trained:.4f}")
    if moved:
        others = [name for name in found if name != "eval_loss" and name in run.metrics_tuned]
        for name in others:
            say(f"  {name} {found[name]:.4f}, as trained {run.metrics_tuned[name]:.4f}")
    gated = {**run.metrics_tuned, **found}
    run.metrics_tuned |= {f"{name}_merged": value for name, value in shown.items()}
    if answers:
        run.samples = [replace(row, merged=answer) for row, answer in zip(run.samples, answers, strict=True)]
    evaluation.apply_gates(gated, run.plan.training.evaluation, "merged")


def rounds(folder: Path, precision: str) -> bool:
    """Whether weights lose digits on the way from a model's folder to training in a precision."""
    from safetensors import safe_open  # noqa: PLC0415

    if precision == "fp32":
        return False
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            if any(opened.get_slice(name).get_dtype() in {"F16", "F32", "F64"} for name in opened.keys()):  # noqa: SIM118 - no mapping
                return True
    return False


def put_near(run: Run, model: Any) -> None:
    """Put a model on the accelerator where it has room for it in fp32, which is faster; else leave it."""
    import torch  # noqa: PLC0415

    if run.device == CPU:
        return
    free, _ = torch.get_device_module(run.device).mem_get_info()
    if ROOM * sum(value.numel() * value.element_size() for value in model.parameters()) <= free:
        model.to(run.device)
