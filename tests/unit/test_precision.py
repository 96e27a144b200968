"""In which precision a job is computed where its plan leaves that open, and what its arithmetic is held against."""

import pytest

from strop_trainer.plan import MemoryEstimate, Precision
from strop_trainer.precision import bytes_of, choose_precision, fp32_lacks, with_precision
from strop_trainer.roofline import work_of
from tests.support.training import make_plan

GIB = 1 << 30


def rates(bf16: float, fp32: float) -> dict[Precision, float]:
    return {"bf16": bf16 * 1e9, "fp32": fp32 * 1e9}


@pytest.mark.parametrize(
    ("bf16", "fp32", "missing", "chosen"),
    [
        (400, 200, 0, "bf16"),
        (200, 200, 0, "bf16"),
        (200, 230, 0, "bf16"),  # a little faster is not worth twice the memory
        (10, 200, 0, "fp32"),
        (10, 200, -GIB, "fp32"),
        (10, 200, 1, "bf16"),
    ],
)
def test_fp32_must_be_clearly_faster_and_fit(bf16: float, fp32: float, missing: int, chosen: str) -> None:
    precision, why = choose_precision(rates(bf16, fp32), missing)
    assert precision == chosen
    assert f"{bf16:.0f} GFLOP/s in bf16 and {fp32:.0f} in fp32" in why


def test_where_fp32_does_not_fit_it_says_what_would_help() -> None:
    _, why = choose_precision(rates(10, 200), 2_500_000_000)
    assert "2.5 GB more than compute.resources.memory" in why
    assert "training.precision: fp32" in why


def test_fp32_needs_twice_the_weights_and_activations() -> None:
    estimate = MemoryEstimate(
        weights=GIB, gradients=0, optimizer=0, activations=2 * GIB, overhead=GIB, total=4 * GIB, basis="a test"
    )
    assert fp32_lacks(estimate, "6Gi") == 2 * GIB
    assert fp32_lacks(estimate, "8Gi") == 0
    assert fp32_lacks(estimate, "9Gi") < 0
    assert fp32_lacks(None, "1Gi") == 0


@pytest.mark.parametrize(
    ("quantity", "size"),
    [("2816Mi", 2816 << 20), ("4Gi", 4 * GIB), ("1.5Gi", 3 * GIB // 2), ("3G", 3 * 10**9), ("7", 7)],
)
def test_quantities(quantity: str, size: int) -> None:
    assert bytes_of(quantity) == size


def test_the_digest_stays_that_of_what_was_asked_for() -> None:
    asked = make_plan(hyperparameters={"precision": "auto"})
    computed = with_precision(asked, "bf16")
    assert computed.training.hyperparameters.precision == "bf16"
    assert computed.digest == asked.digest
    assert asked.training.hyperparameters.precision == "auto"


def test_frozen_weights_cost_four_operations_and_trained_ones_six() -> None:
    frozen, adapter, head = (100, False, False), (10, True, False), (50, False, True)
    work = work_of([frozen, adapter, head])
    assert (work.per_token, work.per_target) == (460, 200)
    assert work.of(tokens=3, targets=2) == 3 * 460 + 2 * 200
    assert work_of([(100, True, False), (50, True, True)]).of(1, 1) == 6 * 150
