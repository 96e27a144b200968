"""How long the sequences are: quantiles, buckets and what is cut off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop_trainer.lengths import LengthBucket, in_words, measure_lengths


def test_lengths_are_counted_by_hand() -> None:
    found = measure_lengths([3, 4, 5, 8, 9, 20, 20, 20, 20, 100], 24)
    assert found
    assert (found.sequences, found.mean, found.longest) == (10, 20.9, 100)
    assert (found.median, found.p90, found.p99) == (9, 20, 100)
    assert (found.longer, found.tokens_beyond) == (1, 76)
    expected = {4: 2, 8: 2, 16: 1, 24: 4, 32: 0, 64: 0, 128: 1}
    assert found.buckets == [LengthBucket(up_to=bound, sequences=count) for bound, count in expected.items()]
    assert in_words(found) == (
        "half of the 10 sequences have up to 9 tokens, nine of ten up to 20, 99 of 100 up to 100, the longest 100; "
        "1 (10.0%) exceed the maximum of 24, by 76 tokens in all"
    )


def test_where_nothing_is_cut_it_says_so() -> None:
    found = measure_lengths([7] * 1000, 1024)
    assert found
    assert found.buckets == [LengthBucket(up_to=8, sequences=1000)]
    assert in_words(found).endswith("the longest 7; none is longer than the maximum of 1,024")


def test_without_sequences_there_is_nothing_to_say() -> None:
    assert measure_lengths([], 64) is None


def test_what_is_read_in_pieces_exceeds_nothing() -> None:
    found = measure_lengths([5, 100], 64, in_pieces=True)
    assert found
    assert in_words(found).endswith("the longest 100; 1 of more than 64 are read in pieces, and nothing is lost")


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60), st.integers(1, 5000))
def test_each_sequence_is_in_one_bucket(lengths: list[int], limit: int) -> None:
    found = measure_lengths(lengths, limit)
    assert found
    assert sum(bucket.sequences for bucket in found.buckets) == len(lengths)
    assert sum(b.sequences for b in found.buckets if b.up_to > limit) >= found.longer
    if found.longer < len(lengths):
        assert found.longer == 0 or limit in [bucket.up_to for bucket in found.buckets]
    assert found.longer == sum(length > limit for length in lengths)
    assert found.median <= found.p90 <= found.p99 <= found.longest == max(lengths)
    assert sum(length <= found.p90 for length in lengths) >= 0.9 * len(lengths)


@pytest.mark.parametrize("limit", [1, 2, 64])
def test_one_sequence(limit: int) -> None:
    found = measure_lengths([2], limit)
    assert found
    assert found.longer == (limit < 2)
