"""What trainers report, in the words that stock transformers uses for Kubeflow, and what becomes of it in a status."""

from __future__ import annotations

import math
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from strop.api.finetunejob import Progress

TRAINING: Final = "train"
"""The stage of a script that names none, such as a stock transformers one."""


class _Report(BaseModel):
    """Fields of a newer protocol are left aside."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class Metric(_Report):
    """One named value; values are text."""

    name: Annotated[str, Field(max_length=128)]
    value: Annotated[str, Field(max_length=128)]


class TrainerStatus(_Report):
    """How far a trainer is."""

    progress_percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    estimated_remaining_seconds: Annotated[int, Field(ge=0)] | None = None
    metrics: Annotated[list[Metric], Field(max_length=64)] = []
    last_updated_time: Annotated[str, Field(max_length=64)] | None = None


class Report(_Report):
    """The body of a POST."""

    trainer_status: TrainerStatus


def read_report(body: bytes, now: str) -> Progress:
    """Return the progress that a report stands for; what it does not speak of is None.

    Args:
        body: JSON.
        now: The time of its arrival (RFC 3339); a trainer's clock may be wrong.

    Raises:
        ValueError: it is no report.
    """
    status = Report.model_validate_json(body).trainer_status
    values = {metric.name: metric.value for metric in status.metrics}
    stage = values.get("stage", TRAINING)[:32]
    percent = status.progress_percentage
    eta = status.estimated_remaining_seconds
    return Progress(
        stage=stage,
        display=values.get("display", f"{percent}%" if percent is not None and stage == TRAINING else stage)[:32],
        step=_whole(values.get("current_step")),
        total_steps=_whole(values.get("total_steps")),
        percent=percent,
        epoch=_number(values.get("current_epoch")),
        loss=_rounded(values.get("loss") or values.get("train_loss"), ".4f"),
        eval_loss=_rounded(values.get("eval_loss"), ".4f"),
        learning_rate=_rounded(values.get("learning_rate"), ".3g"),
        tokens_per_second=_whole(values.get("tokens_per_second")),
        eta_seconds=eta,
        eta=None if eta is None else duration(eta),
        updated_at=now,
    )


def merged(before: Progress | None, report: Progress) -> Progress:
    """Return a report, completed by what was known: a stage without a loss does not undo the loss.

    The time that remains is of training alone, and ends with it.
    """
    if before is None:
        return report
    known = before.model_dump(exclude_none=True, exclude={"eta", "eta_seconds"})
    return Progress.model_validate({**known, **report.model_dump(exclude_none=True)})


def duration(seconds: int) -> str:
    """Return seconds as people read them: 45s, 3m20s, 2h05m, 3d4h."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{min(days, 9999)}d{hours}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _whole(text: str | None) -> int | None:
    value = _number(text)
    return None if value is None or value >= 2**53 else int(value)


def _rounded(text: str | None, shape: str) -> str | None:
    """A loss that is not a number is worth showing."""
    try:
        return format(float(text or ""), shape)[:16]
    except ValueError:
        return None
