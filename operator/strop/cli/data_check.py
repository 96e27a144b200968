"""The trainer's own check of a job's rows and base model, without torch and before anything is started.

Where both are right, the rows are tried as the model's tokens, too: for that, the trainer is started if it is here.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from typing import Final

from strop.api.finetunejob import ModelSpec
from strop.cli.errors import CliError
from strop.cli.rows_as_tokens import try_as_tokens
from strop.cli.workspace import Workspace
from strop.planning.presets import model_facts
from strop_trainer.addresses import shown
from strop_trainer.context import Settings
from strop_trainer.errors import TrainerError
from strop_trainer.model_checks import check_model, fit_length, lacks_onnx
from strop_trainer.plan import DataFile, DatasetPlan, ModelSource, Plan
from strop_trainer.row_files.problems import Problems
from strop_trainer.row_files.reading import read_file
from strop_trainer.sources import RowFile, fetch_files, fetch_model, is_local
from strop_trainer.sources.model_folder import ModelFolder, check_model_folder
from strop_trainer.tasks import task_named
from strop_trainer.tasks.base import Dataset, Task
from strop_trainer.tasks.by_model import BY_MODEL, task_for
from strop_trainer.tasks.extractive_qa import COLUMNS, ExtractiveQaTask, WrongPlaceError, check_row
from strop_trainer.tasks.gates import check_label_gates
from strop_trainer.tasks.given_template import check_template

_ARCHIVES: Final = (".tar.gz", ".tgz")


def check_inputs(plan: Plan, workspace: Workspace) -> str:
    """Check every row of a plan's data, its model's folder and the rows as its tokens; return what was found, in words.

    Raises:
        CliError: with the trainer's exit code and words, those of both checks where both fail: a wrong row (65), a file
            that is not there (66), a model that is not supported (78).
    """
    found: list[str] = []
    failures: list[TrainerError] = []
    settings = Settings.from_environment(workspace.environment())
    for check in (_check_rows, _check_model):
        try:
            found.append(check(plan, settings))
        except TrainerError as error:
            failures.append(error)
    if failures:
        lines = [line for failure in failures for line in failure.message.splitlines()]
        raise CliError(failures[0].exit_code, *lines)
    if not _remote_rows(plan.training.dataset):
        found.append(_as_tokens(plan, settings, workspace))
    return "; ".join(found)


def _as_tokens(plan: Plan, settings: Settings, workspace: Workspace) -> str:
    """Return what the rows are as the model's tokens, or why that was not tried."""
    if not _is_here(plan.training.model):
        return "rows not tried as tokens: that needs the model"
    if _model(plan, settings).whole is not None:
        return "rows not tried as tokens: the text part of the model would have to be cut out"
    return try_as_tokens(workspace)


def _remote_rows(dataset: DatasetPlan) -> list[str]:
    return [shown(file.source) for file in (*dataset.train, *dataset.validation) if not is_local(file.source)]


def _check_rows(plan: Plan, settings: Settings) -> str:
    training = plan.training
    dataset = training.dataset
    if remote := _remote_rows(dataset):
        return f"rows not checked: {', '.join(remote)} would have to be fetched"
    rows, note = _read(plan, settings)
    check_label_gates(training.evaluation, task_named(training.task), rows.train)
    found = rows.statistics
    notes = [
        f"{count} {one if count == 1 else several}"
        for count, one, several in (
            (found.duplicates, "duplicate", "duplicates"),
            (found.leaked, "held-out row is also a training row", "held-out rows are also training rows"),
            (
                found.leaked_prompts,
                "held-out prompt is also a training prompt",
                "held-out prompts are also training prompts",
            ),
        )
        if count
    ]
    counts = f"{found.train_rows} rows to learn from, {found.validation_rows} held out"
    return "; ".join([counts, *notes, *([note] if note else [])])


def _read(plan: Plan, settings: Settings) -> tuple[Dataset, str]:
    """Return the rows as the model reads them, and a note where its kind is not known.

    Raises:
        TrainerError: no kind of model that it may be takes them; with what a language model's reader says.
    """
    training = plan.training
    dataset, source, task = training.dataset, training.model.source, task_named(training.task)

    def read(task: Task) -> Dataset:
        train, validation = _files(dataset.train, settings), _files(dataset.validation, settings)
        return task.read(train, validation, dataset, training.hyperparameters.seed)

    if task.name in BY_MODEL and _is_here(training.model):
        # A folder that is wrong is told by the other check.
        with suppress(TrainerError):
            task = task_for(task, _model(plan, settings))
        return read(task), ""
    if task.name not in BY_MODEL or not model_facts(ModelSpec(source=source)).may_be_encoder:
        return read(task), ""
    unknown = f"as {shown(source)} is not here to tell"
    try:
        marked, refused = read(ExtractiveQaTask()), ""
    except TrainerError as error:
        marked, refused = None, _first_problem(error)
        _check_places(dataset, settings)
    try:
        rows = read(task)
    except TrainerError as error:
        if marked is None:
            raise
        return marked, f"read as for an encoder, {unknown}; as for a language model: {_first_problem(error)}"
    but = f"; an encoder refuses them: {refused}" if refused else ""
    return rows, f"read as for a language model, {unknown}{but}"


def _check_places(dataset: DatasetPlan, settings: Settings) -> None:
    """Refuse answers whose place is given and wrong: the rows are so, whatever kind of model reads them.

    Raises:
        TrainerError: their files and lines (exit 65).
    """
    problems = Problems()
    for file in _files([*dataset.train, *dataset.validation], settings):
        for place, row in read_file(file, COLUMNS, dataset, Problems()):
            try:
                check_row(row)
            except WrongPlaceError as error:
                problems.add(file.name, place, str(error))
            except ValueError:
                continue
    problems.raise_if_any()


def _first_problem(error: TrainerError) -> str:
    return " ".join(line.strip() for line in error.message.splitlines()[:2])


def _check_model(plan: Plan, settings: Settings) -> str:
    model = plan.training.model
    # The operator's environment has no Jinja; there, the trainer tells.
    if model.chat_template is not None and find_spec("jinja2"):
        check_template(model.chat_template)
    if not is_local(model.source):
        return f"model not checked: {shown(model.source)} would have to be fetched"
    if model.source.endswith(_ARCHIVES):
        return f"model not checked: {shown(model.source)} would have to be unpacked"
    found = _model(plan, settings)
    task = task_for(task_named(plan.training.task), found)
    check_model(plan.training, task, found)
    _, note = fit_length(plan, found)
    told = [f"model {found.architecture}, {found.weight_bytes / 1e6:,.0f} MB of weights"]
    if why := lacks_onnx(plan.training, task, found):
        told.append(f"no ONNX, which the job does not ask for: {why}")
    return "; ".join([*told, *([note] if note else [])])


def _is_here(model: ModelSource) -> bool:
    return is_local(model.source) and not model.source.endswith(_ARCHIVES)


def _model(plan: Plan, settings: Settings) -> ModelFolder:
    model, task = plan.training.model, task_named(plan.training.task)
    chat = task.needs_chat_template and model.chat_template is None
    return check_model_folder(fetch_model(model, settings), model.source, chat=chat)


def _files(sources: list[DataFile], settings: Settings) -> list[RowFile]:
    return [row_file for source in sources for row_file in fetch_files(source, settings)]
