"""The trainer's own check of a job's rows and base model, without torch and before anything is started."""

from __future__ import annotations

from typing import Final

from strop.cli.errors import CliError
from strop.cli.workspace import Workspace
from strop_trainer.context import Settings
from strop_trainer.errors import TrainerError
from strop_trainer.plan import DataFile, Plan
from strop_trainer.sources import RowFile, fetch_files, fetch_model, is_local
from strop_trainer.sources.model_folder import check_model_folder
from strop_trainer.tasks import task_named

_ARCHIVES: Final = (".tar.gz", ".tgz")


def check_inputs(plan: Plan, workspace: Workspace) -> str:
    """Check every row of a plan's data and its model's folder; return what was found, in words.

    Raises:
        CliError: with the trainer's exit code and words, those of both checks where both fail: a wrong row (65), a file
            that is not there (66), a model that is not supported (78).
    """
    found: list[str] = []
    failures: list[TrainerError] = []
    for check in (_check_rows, _check_model):
        try:
            found.append(check(plan, Settings.from_environment(workspace.environment())))
        except TrainerError as error:
            failures.append(error)
    if failures:
        lines = [line for failure in failures for line in failure.message.splitlines()]
        raise CliError(failures[0].exit_code, *lines)
    return "; ".join(found)


def _check_rows(plan: Plan, settings: Settings) -> str:
    training = plan.training
    dataset = training.dataset
    remote = [file.source for file in (*dataset.train, *dataset.validation) if not is_local(file.source)]
    if remote:
        return f"rows not checked: {', '.join(remote)} would have to be fetched"
    rows = task_named(training.task).read(
        _files(dataset.train, settings),
        _files(dataset.validation, settings),
        dataset,
        training.hyperparameters.seed,
    )
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


def _check_model(plan: Plan, settings: Settings) -> str:
    model = plan.training.model
    if not is_local(model.source):
        return f"model not checked: {model.source} would have to be fetched"
    if model.source.endswith(_ARCHIVES):
        return f"model not checked: {model.source} would have to be unpacked"
    chat = task_named(plan.training.task).needs_chat_template
    found = check_model_folder(fetch_model(model, settings), model.source, chat=chat)
    return f"model {found.architecture}, {found.weight_bytes / 1e6:,.0f} MB of weights"


def _files(sources: list[DataFile], settings: Settings) -> list[RowFile]:
    return [row_file for source in sources for row_file in fetch_files(source, settings)]
