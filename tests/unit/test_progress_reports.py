import json
from typing import Any

import pytest

from strop.api.finetunejob import Progress
from strop.progress.reports import duration, merged, read_report

NOW = "2026-01-01T00:00:00Z"


def report(percent: int | None = None, eta: int | None = None, **metrics: Any) -> bytes:
    """A report as transformers' Kubeflow callback makes it."""
    status: dict[str, Any] = {"lastUpdatedTime": "2026-01-01T00:00:00+00:00"}
    if percent is not None:
        status["progressPercentage"] = percent
    if eta is not None:
        status["estimatedRemainingSeconds"] = eta
    status["metrics"] = [{"name": name, "value": str(value)} for name, value in metrics.items()]
    return json.dumps({"trainerStatus": status}).encode()


def test_training_is_told_in_full() -> None:
    progress = read_report(
        report(
            42,
            200,
            stage="train",
            current_step=42,
            total_steps=100,
            current_epoch=0.84,
            loss=1.23456789,
            eval_loss=0.5,
            learning_rate=0.00019999,
            tokens_per_second=312.7,
            grad_norm=1.0,
        ),
        NOW,
    )
    assert progress == Progress(
        stage="train",
        display="42%",
        step=42,
        total_steps=100,
        percent=42,
        epoch=0.84,
        loss="1.2346",
        eval_loss="0.5000",
        learning_rate="0.0002",
        tokens_per_second=312,
        eta_seconds=200,
        eta="3m20s",
        updated_at=NOW,
    )


def test_what_comes_before_the_first_step_may_name_itself() -> None:
    progress = read_report(report(stage="train", display="reference 42%"), NOW)
    assert (progress.stage, progress.display) == ("train", "reference 42%")
    assert read_report(report(stage="train", display="x" * 99), NOW).display == "x" * 32


def test_a_stock_transformers_script_trains() -> None:
    assert read_report(report(7, 60, current_step=7, total_steps=100), NOW).display == "7%"
    assert read_report(report(), NOW).stage == "train"


def test_outside_training_the_stage_is_shown() -> None:
    assert read_report(report(stage="export"), NOW).display == "export"


def test_a_loss_that_is_no_number_is_shown_and_other_nonsense_is_left_out() -> None:
    progress = read_report(report(loss="nan", current_step="many", current_epoch="inf", tokens_per_second=-1), NOW)
    assert progress.loss == "nan"
    assert (progress.step, progress.epoch, progress.tokens_per_second) == (None, None, None)


def test_the_loss_at_the_end_of_training_is_the_loss() -> None:
    assert read_report(report(100, 0, train_loss=1.5), NOW).loss == "1.5000"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"trainerStatus": 1}',
        b'{"trainerStatus": {"progressPercentage": 101}}',
        b'{"trainerStatus": {"metrics": [{"name": "x"}]}}',
        json.dumps({"trainerStatus": {"metrics": [{"name": "x", "value": "y" * 200}]}}).encode(),
        json.dumps({"trainerStatus": {"metrics": [{"name": "x", "value": "1"}] * 65}}).encode(),
        b"\xff\xfe",
    ],
)
def test_what_is_no_report_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_report(body, NOW)


def test_a_report_does_not_undo_what_it_does_not_speak_of() -> None:
    before = read_report(report(100, 5, stage="train", loss=1.0, current_step=10), NOW)
    after = merged(before, read_report(report(stage="export"), NOW))
    assert (after.stage, after.display, after.loss, after.step, after.percent) == (
        "export",
        "export",
        "1.0000",
        10,
        100,
    )
    assert (after.eta, after.eta_seconds) == (None, None)
    assert merged(None, before) == before


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (45, "45s"), (200, "3m20s"), (7500, "2h05m"), (273600, "3d4h"), (10**12, "9999d10h")],
)
def test_durations_read_as_people_say_them(seconds: int, text: str) -> None:
    assert duration(seconds).startswith(text[:5])
    assert len(duration(seconds)) <= 16
