"""Tries a job's rows as the model's tokens, as the trainer does, and ends before the weights are loaded.

`python -m strop_trainer.rows_check`, in the trainer's environment, for a job whose rows and model are local: nothing is
fetched. One process, whatever ranks the plan has. Its last word is the lengths of the sequences, or the error that the
trainer would end with.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from strop_trainer.context import Clock, StopRequest
from strop_trainer.ending import conclude, say_last, write_last
from strop_trainer.lengths import in_words, lost_in_words, measure_lengths
from strop_trainer.run import Run
from strop_trainer.stages import check, quiet_libraries
from strop_trainer.termination import TerminationMessage
from strop_trainer.way import pass_through, start


class _WeightsNextError(Exception):
    """All that comes before the weights is done."""


def main() -> int:
    """Try the rows of the plan that the environment names; write the termination message, however it ends."""
    stop, clock = StopRequest(), Clock()

    def go() -> TerminationMessage:
        run = start(os.environ, stop, clock)
        pass_through(run, (check, tokens))
        return TerminationMessage(stage=clock.stage, reason="RowsChecked", message=told(run))

    with stop.deferred():
        stop.install()
        message, code = conclude(go, clock, stop)
        say_last(message, code)
        write_last(message, os.environ.get("STROP_TERMINATION_LOG"))
    return int(code)


def tokens(run: Run) -> None:
    """Do what the trainer's `prepare` does, up to the weights."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    quiet_libraries(deepspeed=False)

    # A head turns all rows into tokens and then calls its own `load`: so the trainer's own order of checks is gone
    # through, not a copy of it.
    def load(_run: Run) -> NoReturn:
        raise _WeightsNextError

    run.head.load = load  # type: ignore[assignment, method-assign]
    with suppress(_WeightsNextError):
        run.head.prepare(run)


def told(run: Run) -> str:
    """Return the lengths of the sequences, and what else of them is lost, in words."""
    encoded, longest = run.encoded, run.plan.training.hyperparameters.max_length
    lengths = measure_lengths(encoded.lengths, longest, in_pieces=encoded.in_pieces)
    parts = [in_words(lengths)] if lengths else []
    # Those that are cut are in the lengths already, but for questions.
    told_of = encoded if encoded.in_pieces else replace(encoded, truncated=0)
    return "; ".join([*parts, *lost_in_words(told_of, longest, "rows")])


if __name__ == "__main__":
    sys.exit(main())
