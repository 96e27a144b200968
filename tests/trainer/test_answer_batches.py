"""Which held-out rows are read at once: keys and values of all of them are held."""

import pytest

from strop_trainer.batches import alike
from strop_trainer.evaluation import ANSWER_ROWS, ANSWER_TOKENS

pytestmark = pytest.mark.trainer


@pytest.mark.parametrize("length", [65, 164, 964, 1564, 5064])
def test_tokens_of_a_pass_are_bounded(length: int) -> None:
    passes = list(alike(range(40), [length] * 40, ANSWER_TOKENS, rows=ANSWER_ROWS))
    assert [row for chosen in passes for row in chosen] == list(range(40))
    most = max(map(len, passes))
    assert 1 <= most <= ANSWER_ROWS
    assert most == 1 or most * length <= ANSWER_TOKENS
    assert most == ANSWER_ROWS or (most + 1) * length > ANSWER_TOKENS


def test_the_longest_row_of_a_pass_counts() -> None:
    lengths = [3000, 10, 10, 20, 2000]
    assert list(alike([1, 2, 3, 4, 0], lengths, 4096)) == [[1, 2, 3], [4], [0]]


def test_rows_whose_positions_are_scaled_otherwise_are_read_apart() -> None:
    lengths = [20, 32, 33, 40]
    assert list(alike(range(4), lengths, 4096, switch=32)) == [[0, 1], [2, 3]]
    assert list(alike(range(4), lengths, 4096)) == [[0, 1, 2, 3]]
    assert list(alike(range(4), lengths, 4096, switch=8)) == [[0, 1, 2, 3]]
