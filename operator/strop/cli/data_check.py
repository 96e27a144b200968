"""The trainer's own check of a job's rows and base model, without torch and before anything is started."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from typing import Final

from strop.api.finetunejob import ModelSpec
from strop.cli.errors import CliError
from strop.cli.workspace import Workspace
from strop.planning.presets import model_facts
from strop_trainer.context import Settings
from strop_trainer.errors import TrainerError
from strop_trainer.export.genai import check_exportable, export_refusal
from strop_trainer.methods.checks import check_experts
from strop_trainer.plan import LABEL_TASKS, DataFile, ModelSource, Plan
from strop_trainer.sources import RowFile, fetch_files, fetch_model, is_local
from strop_trainer.sources.model_folder import ModelFolder, check_model_folder
from strop_trainer.tasks import task_named
from strop_trainer.tasks.base import Dataset, Task
from strop_trainer.tasks.by_model import BY_MODEL, task_for
from strop_trainer.tasks.encoder_decoder import EncoderDecoderTask
from strop_trainer.tasks.extractive_qa import ExtractiveQaTask
from strop_trainer.tasks.gates import check_gates
from strop_trainer.tasks.given_template import check_template

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
    rows, note = _read(plan, settings)
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
    unknown = f"as {source} is not here to tell"
    try:
        return read(task), f"read as for a language model, {unknown}"
    except TrainerError as error:
        first = " ".join(line.strip() for line in error.message.splitlines()[:2])
        try:
            return read(ExtractiveQaTask()), f"read as for an encoder, {unknown}; as for a language model: {first}"
        except TrainerError:
            raise error from None


def _check_model(plan: Plan, settings: Settings) -> str:
    model = plan.training.model
    # The operator's environment has no Jinja; there, the trainer tells.
    if model.chat_template is not None and find_spec("jinja2"):
        check_template(model.chat_template)
    if not is_local(model.source):
        return f"model not checked: {model.source} would have to be fetched"
    if model.source.endswith(_ARCHIVES):
        return f"model not checked: {model.source} would have to be unpacked"
    found = _model(plan, settings)
    check_experts(plan.training.method.type, found)
    task = task_for(task_named(plan.training.task), found)
    check_gates(plan.training.evaluation, task)
    if isinstance(task, EncoderDecoderTask):
        task.check_plan(plan.training)
    weights = f"model {found.architecture}, {found.weight_bytes / 1e6:,.0f} MB of weights"
    artifact = plan.training.artifact
    if not artifact.onnx or task.name in LABEL_TASKS or isinstance(task, EncoderDecoderTask | ExtractiveQaTask):
        return weights
    if artifact.onnx_required:
        check_exportable(found.path)
    why = export_refusal(found.path)
    return f"{weights}; no ONNX, which the job does not ask for: {why}" if why else weights


def _is_here(model: ModelSource) -> bool:
    return is_local(model.source) and not model.source.endswith(_ARCHIVES)


def _model(plan: Plan, settings: Settings) -> ModelFolder:
    model, task = plan.training.model, task_named(plan.training.task)
    chat = task.needs_chat_template and model.chat_template is None
    return check_model_folder(fetch_model(model, settings), model.source, chat=chat)


def _files(sources: list[DataFile], settings: Settings) -> list[RowFile]:
    return [row_file for source in sources for row_file in fetch_files(source, settings)]
