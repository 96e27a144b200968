"""Rows that a model cannot learn from, told by file and place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strop_trainer import sources
from strop_trainer.tasks.rows import RowRules, UnfitRowsError, tell_places

if TYPE_CHECKING:
    from strop_trainer.errors import TrainerError
    from strop_trainer.run import Run


def in_their_places(run: Run, error: UnfitRowsError, rules: RowRules) -> TrainerError:
    """Return the error with the places of the rows in the job's files."""
    dataset = run.plan.training.dataset
    files = [
        found for file in (*dataset.train, *dataset.validation) for found in sources.fetch_files(file, run.settings)
    ]
    return tell_places(error, rules, files, dataset)
