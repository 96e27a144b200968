"""The trainer's last word: what it says can be read again."""

import math

from strop_trainer.termination import LIMIT_BYTES, TerminationMessage
from tests.support.jobs import termination


def test_a_metric_that_is_no_number_does_not_take_the_record_with_it() -> None:
    said = termination(metricsTuned={"eval_loss": 800.0, "perplexity": math.inf, "f1": math.nan}).dump()
    read = TerminationMessage.model_validate_json(said)
    assert read.published
    assert read.published.metrics_tuned == {"eval_loss": 800.0}


def test_a_long_message_is_cut_and_the_record_is_whole() -> None:
    word = termination().model_copy(update={"message": "ü" * LIMIT_BYTES})
    said = word.dump()
    assert len(said.encode()) <= LIMIT_BYTES
    read = TerminationMessage.model_validate_json(said)
    assert read.published == word.published
    assert read.message.endswith("ü…")
