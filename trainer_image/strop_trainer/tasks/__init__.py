"""The tasks that can be trained."""

from __future__ import annotations

from strop_trainer.errors import bad_configuration
from strop_trainer.tasks.base import Task
from strop_trainer.tasks.chat import ChatTask
from strop_trainer.tasks.preference import PreferenceTask
from strop_trainer.tasks.prompted import prompted_tasks
from strop_trainer.tasks.text_classification import TextClassificationTask
from strop_trainer.tasks.text_generation import TextGenerationTask
from strop_trainer.tasks.token_classification import TokenClassificationTask

_TASKS: tuple[Task, ...] = (
    ChatTask(),
    TextGenerationTask(),
    *prompted_tasks(),
    PreferenceTask(),
    TextClassificationTask(),
    TokenClassificationTask(),
)
TASKS: dict[str, Task] = {task.name: task for task in _TASKS}


def task_named(name: str) -> Task:
    """Return a task.

    Raises:
        TrainerError: this version does not train it.
    """
    if name not in TASKS:
        raise bad_configuration(f"task: {name!r} is not supported by this version, allowed: {', '.join(TASKS)}")
    return TASKS[name]
