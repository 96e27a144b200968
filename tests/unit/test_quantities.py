"""Kubernetes quantities: what is parsed is what Kubernetes means."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.api.quantities import GIB, MIB, format_bytes, memory_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("0.5", Fraction(1, 2)),
        ("1500m", Fraction(3, 2)),
        ("1k", 1000),
        ("1Ki", 1024),
        ("8Gi", 8 * GIB),
        ("1.5Gi", 3 * GIB // 2),
        ("3M", 3_000_000),
        ("2T", 2 * 10**12),
        ("1Ti", 1024**4),
        ("1P", 10**15),
        ("1Pi", 1024**5),
        ("4G", 4 * 10**9),
        ("256Mi", 256 * MIB),
    ],
)
def test_a_quantity_has_its_exact_value(text: str, value: Fraction) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "1.2.3", "-1", "1e3", "8 Gi", "8Xi", "٣"])
def test_what_is_no_quantity_is_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(ValueError, match="quantity: found"):
        parse_quantity(text)


@given(st.integers(min_value=1, max_value=2**45))
def test_a_memory_quantity_holds_the_size_and_at_most_a_step_more(size: int) -> None:
    rounded = parse_quantity(memory_quantity(size))
    assert size <= rounded < size + 256 * MIB


def test_a_memory_quantity_is_in_whole_gi_where_it_can_be() -> None:
    assert memory_quantity(GIB) == "1Gi"
    assert memory_quantity(GIB + 1) == "1280Mi"
    assert memory_quantity(1, step=GIB) == "1Gi"


def test_bytes_are_shown_in_gib() -> None:
    assert format_bytes(3 * GIB // 2) == "1.5 GiB"
