"""A chat template that a job gives: tried on a small conversation, before anything is fetched. No torch here."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from strop_trainer.errors import bad_configuration

_QUESTION, _ANSWER = "What sharpens a blade?", "A strop gives it its final edge."
_TOKENS: Final = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
_GENERATION: Final = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
"""Tags that mark what the assistant says; they change no text."""
TEMPLATE_FILE: Final = "chat_template.jinja"


def check_template(template: str) -> None:
    """Check that a template renders a question, and the question with its answer, as transformers would.

    Raises:
        TrainerError: it does not, or leaves out what was said (exit 78).
    """
    asked = [{"role": "user", "content": _QUESTION}]
    prompt = _render(template, asked, ask=True)
    whole = _render(template, [*asked, {"role": "assistant", "content": _ANSWER}], ask=False)
    for who, words, text in (("user", _QUESTION, prompt), ("user", _QUESTION, whole), ("assistant", _ANSWER, whole)):
        if words not in text:
            raise bad_configuration(
                f"model.chatTemplate: it leaves out what the {who} says: of {words!r} it makes {text[:200]!r}"
            )
    if whole == prompt:
        raise bad_configuration("model.chatTemplate: it renders the same with the assistant's answer as without it")


def keep_given_template(template: str | None, folder: Path) -> None:
    """Write a given template to a model's folder, in place of the one that the base model brought."""
    if template is not None and folder.is_dir():
        (folder / TEMPLATE_FILE).write_text(template, encoding="utf-8")


def _render(template: str, messages: list[dict[str, str]], *, ask: bool) -> str:
    from jinja2 import TemplateError  # noqa: PLC0415 - only where one is given
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now(UTC).strftime(form)
    try:
        return environment.from_string(_GENERATION.sub("", template)).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=ask, **_TOKENS
        )
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        turns = "a question" if ask else "a question with its answer"
        raise bad_configuration(f"model.chatTemplate: it does not render {turns}{where}: {error}") from None


def _to_json(value: Any, indent: int | None = None, **_more: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)
