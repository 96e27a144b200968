"""The trainer's own check of a job's rows, without torch and before anything is started."""

from __future__ import annotations

from strop.cli.errors import CliError
from strop.cli.workspace import Workspace
from strop_trainer.context import Settings
from strop_trainer.errors import TrainerError
from strop_trainer.plan import DataFile, Plan
from strop_trainer.sources import RowFile, fetch_files, is_local
from strop_trainer.tasks import task_named


def check_rows(plan: Plan, workspace: Workspace) -> str:
    """Read and check every row of a plan's data; return what was found, in words.

    Raises:
        CliError: with the trainer's exit code and words: a wrong row (65), a file that is not there (66).
    """
    training = plan.training
    dataset = training.dataset
    remote = [file.source for file in (*dataset.train, *dataset.validation) if not is_local(file.source)]
    if remote:
        return f"rows not checked: {', '.join(remote)} would have to be fetched"
    settings = Settings.from_environment(workspace.environment())
    try:
        rows = task_named(training.task).read(
            _files(dataset.train, settings),
            _files(dataset.validation, settings),
            dataset,
            training.hyperparameters.seed,
        )
    except TrainerError as error:
        raise CliError(error.exit_code, *error.message.splitlines()) from None
    found = rows.statistics
    notes = [
        f"{count} {words}"
        for count, words in (
            (found.duplicates, "duplicates"),
            (found.leaked, "held-out rows are also training rows"),
            (found.leaked_prompts, "held-out prompts are also training prompts"),
        )
        if count
    ]
    return "; ".join([f"{found.train_rows} rows to learn from, {found.validation_rows} held out", *notes])


def _files(sources: list[DataFile], settings: Settings) -> list[RowFile]:
    return [row_file for source in sources for row_file in fetch_files(source, settings)]
