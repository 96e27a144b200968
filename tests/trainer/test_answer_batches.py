"""How many held-out rows are answered at once: keys and values of all of them are held."""

import pytest

from strop_trainer.evaluation import ANSWER_ROWS, ANSWER_TOKENS, answer_batches

pytestmark = pytest.mark.trainer


@pytest.mark.parametrize("length", [1, 100, 900, 1500, 5000])
def test_tokens_of_a_batch_are_bounded(length: int) -> None:
    lengths = [length] * 40
    batches = list(answer_batches(range(40), lengths, 64))
    assert [row for batch in batches for row in batch] == list(range(40))
    most = max(map(len, batches))
    assert 1 <= most <= ANSWER_ROWS
    assert most == 1 or most * (length + 64) <= ANSWER_TOKENS
    assert most == ANSWER_ROWS or (most + 1) * (length + 64) > ANSWER_TOKENS


def test_the_longest_row_of_a_batch_counts() -> None:
    lengths = [3000, 10, 10, 20, 2000]
    assert list(answer_batches([1, 2, 3, 4, 0], lengths, 0)) == [[1, 2, 3], [4], [0]]
