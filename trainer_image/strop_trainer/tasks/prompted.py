"""Tasks of one prompt and its completion: instruction, translation, summarization, question answering.

Each row becomes a message of the user and one of the assistant, so that a chat model is tuned the way it will be asked.
The loss is on the completion alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from strop_trainer.plan import METRICS, DatasetPlan, Task
from strop_trainer.row_files.columns import Check, Columns
from strop_trainer.row_files.problems import kind, shown_names
from strop_trainer.sources import RowFile
from strop_trainer.tasks.base import Dataset, Encoded, Question
from strop_trainer.tasks.chat import ChatTask, prompt_of, tokenize_row
from strop_trainer.tasks.conversations import check_messages
from strop_trainer.tasks.overlap import bleu_and_chrf, exact_match, rouge, squad
from strop_trainer.tasks.plain_template import give_template
from strop_trainer.tasks.rows import RowRules, read_dataset

Score = Callable[[Sequence[str], Sequence[Sequence[str]]], dict[str, float]]
_SUMMARIZE: Final = "Summarize:"
_BY_TEXT: Final = "Answer the question by the text.\n\nText: "
_QUESTION: Final = "\n\nQuestion: "

LANGUAGES: Final[Mapping[str, str]] = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi",
    "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean",
    "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sv": "Swedish", "th": "Thai",
    "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
"""ISO 639-1 → the name in a prompt; other codes stand as they are."""


class PromptedTask(ChatTask):
    """One prompt, one completion."""

    needs_chat_template = False

    def __init__(self, name: Task, columns: Columns, check: Check, measure: Score) -> None:
        self.name = name
        self.metrics = METRICS[name].names
        self.rules = RowRules(name, columns, check, prompt_of)
        self._measure = measure

    def read(self, train: Sequence[RowFile], validation: Sequence[RowFile], dataset: DatasetPlan, seed: int) -> Dataset:
        """Check all rows and hold some out.

        Raises:
            TrainerError: wrong rows (exit 65); a column or a format that the task does not read (78).
        """
        return read_dataset(self.rules, train, validation, dataset, seed)

    def encode(self, rows: Sequence[bytes], tokenizer: Any, max_length: int) -> Encoded:
        """Turn rows into tokens by the model's chat template, else by the plain one."""
        give_template(tokenizer)
        return super().encode(rows, tokenizer, max_length)

    def questions(self, rows: Sequence[bytes], tokenizer: Any, max_length: int, count: int) -> list[Question]:
        """Return the first rows whose prompt is shorter than the maximum length."""
        give_template(tokenizer)
        return super().questions(rows, tokenizer, max_length, count)

    def fit(self, row: dict[str, Any], tokenizer: Any, max_length: int) -> dict[str, Any]:
        """Return a row whose source is cut so that the answer is within the maximum; the row itself where it is so.

        A row without a source, or of which nothing would be left, stays as it is.
        """
        *before, asked, answer = row["messages"]
        text = asked["content"]
        begin, end = source_place(self.name, text)
        offsets: list[tuple[int, int]] = []
        fitted, kept = row, -1
        while (over := max(len(ids) for ids, _ in tokenize_row(fitted, tokenizer)) - max_length) > 0:
            if kept < 0:
                found = tokenizer(text[begin:end], add_special_tokens=False, return_offsets_mapping=True)
                offsets = found["offset_mapping"]
                kept = len(offsets)
            kept -= over
            if kept < 1:
                return row
            cut = text[: begin + offsets[kept - 1][1]] + text[end:]
            fitted = row | {"messages": [*before, asked | {"content": cut}, answer]}
        return fitted

    def score(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Compare generated answers with the references."""
        return self._measure(answers, references) if references else {}


def text_in(row: Mapping[str, Any], name: str) -> str:
    """Return a text that a row must have.

    Raises:
        ValueError: it is missing, no text, or empty.
    """
    value = row.get(name)
    if value is None:
        found = "found null" if name in row else f"missing; found {shown_names(list(row))}"
        raise ValueError(f"{name}: {found}, expected a string")
    return _text(name, value)


def text_or_none(row: Mapping[str, Any], name: str) -> str | None:
    """Return a text that a row may have; None where it has none, or an empty one.

    Raises:
        ValueError: it is no text.
    """
    value = row.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return _text(name, value)


def _text(name: str, value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{name}: empty, expected text")
    if not isinstance(value, str):
        raise ValueError(f"{name}: found {kind(value)}, expected a string")  # noqa: TRY004 - one kind of error for users
    if not value.strip():
        raise ValueError(f"{name}: empty, expected text")
    return value


def pair(prompt: str, completion: str, system: str | None = None) -> dict[str, Any]:
    """Return the normal form of a prompt and its completion."""
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return {"messages": [{"role": "system", "content": system}, *messages] if system else messages}


def check_instruction(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of prompt and completion (texts, or lists of messages), or of Alpaca's columns, as messages.

    Raises:
        ValueError: field, found and expected of the first thing that is wrong.
    """
    system = text_or_none(row, "system")
    if isinstance(row.get("prompt"), list) or isinstance(row.get("completion"), list):
        for name in ("prompt", "completion"):
            if not isinstance(row.get(name), list):
                found = kind(row.get(name))
                raise ValueError(f"{name}: found {found}, expected a list of messages, as the other")  # noqa: TRY004
        messages = check_messages("prompt + completion", [*row["prompt"], *row["completion"]])
        if messages[-1]["role"] != "assistant":
            raise ValueError(f"completion: ends with a message of {messages[-1]['role']}, expected assistant")
        return {"messages": messages}
    if "prompt" in row or "completion" in row:
        return pair(text_in(row, "prompt"), text_in(row, "completion"), system)
    if "instruction" not in row and "output" not in row:
        raise ValueError(f"prompt: missing; found {shown_names(list(row))}, expected {INSTRUCTION.shown()}")
    instruction, more = text_in(row, "instruction"), text_or_none(row, "input")
    return pair(f"{instruction}\n\n{more}" if more else instruction, text_in(row, "output"), system)


def check_translation(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of source and target, or of `translation` with a text a language, as messages.

    Raises:
        ValueError: field, found and expected of the first thing that is wrong.
    """
    if "source" in row or "target" in row or "translation" not in row:
        source, target = text_in(row, "source"), text_in(row, "target")
        languages = [text_or_none(row, f"{name}_language") for name in ("source", "target")]
    else:
        texts = row["translation"]
        if not isinstance(texts, dict):
            raise ValueError(f"translation: found {kind(texts)}, expected an object with a text a language")
        texts = {name: text for name, text in texts.items() if text is not None}
        if len(texts) != 2:  # noqa: PLR2004 - from one to the other
            raise ValueError(f"translation: found {shown_names(list(texts))}, expected two languages")
        languages = list(texts)
        source, target = (_text(f"translation.{name}", text) for name, text in texts.items())
    named = {"languages": languages} if any(languages) else {}
    return pair(f"{_translate(*languages)}\n\n{source}", target) | named


def _translate(source: str | None, target: str | None) -> str:
    words = ["Translate"]
    words += ["from", LANGUAGES.get(source, source)] if source else []
    words += ["to", LANGUAGES.get(target, target)] if target else []
    return " ".join(words) + ":"


def check_summary(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of text and summary as messages.

    Raises:
        ValueError: field, found and expected of the first thing that is wrong.
    """
    return pair(f"{_SUMMARIZE}\n\n{text_in(row, 'text')}", text_in(row, "summary"))


def source_and_target(task: str, row: Mapping[str, Any]) -> tuple[str, str]:
    """Return both texts of a row's normal form, without the words that a language model is asked with."""
    *asked, answer = row["messages"]
    words = {"translation": _translate(*row.get("languages", (None, None))), "summarization": _SUMMARIZE}.get(task)
    text = "\n\n".join(message["content"] for message in asked)
    return text.removeprefix(f"{words}\n\n") if words else text, answer["content"]


def source_place(task: str, prompt: str) -> tuple[int, int]:
    """Return where in a prompt the text is that a summary or an answer is taken from; nothing where there is none."""
    if task == "summarization" and prompt.startswith(_SUMMARIZE):
        return len(f"{_SUMMARIZE}\n\n"), len(prompt)
    if task == "question-answering" and prompt.startswith(_BY_TEXT):
        return len(_BY_TEXT), prompt.rindex(_QUESTION)
    return 0, 0


def check_question(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of question, answer and maybe a context as messages.

    Of several answers, the first is learnt; the `others` are as right.

    Raises:
        ValueError: field, found and expected of the first thing that is wrong.
    """
    question, context = text_in(row, "question"), text_or_none(row, "context")
    if row.get("answer") is not None or "answers" not in row:
        given = [text_in(row, "answer")]
    else:
        answers = row["answers"]
        texts = answers.get("text") if isinstance(answers, dict) else answers
        if not isinstance(texts, list):
            raise ValueError(f"answers: found {kind(answers)}, expected a list of texts, or SQuAD's object with text")
        if not texts:
            raise ValueError("answers: empty, expected at least one answer")
        given = list(dict.fromkeys(_text(f"answers[{at}]", text) for at, text in enumerate(texts)))
    if context is not None:
        question = f"{_BY_TEXT}{context}{_QUESTION}{question}"
    return pair(question, given[0]) | ({"others": given[1:]} if given[1:] else {})


def by_first(measure: Callable[[Sequence[str], Sequence[str]], dict[str, float]]) -> Score:
    """Return a measure that compares with the first reference, which is the only one of these tasks."""
    return lambda answers, references: measure(answers, [right[0] for right in references])


INSTRUCTION: Final = Columns(
    (("prompt", "completion"), ("instruction", "output")),
    optional=("input", "system"),
    structured=frozenset({"prompt", "completion"}),
)
TRANSLATION: Final = Columns(
    (("source", "target"), ("translation",)),
    optional=("source_language", "target_language"),
    structured=frozenset({"translation"}),
)
SUMMARIZATION: Final = Columns((("text", "summary"),))
QUESTIONS: Final = Columns(
    (("question", "answer"), ("question", "answers")), optional=("context",), structured=frozenset({"answers"})
)


def prompted_tasks() -> list[PromptedTask]:
    """Return the tasks of this file."""
    return [
        PromptedTask("instruction", INSTRUCTION, check_instruction, by_first(exact_match)),
        PromptedTask("translation", TRANSLATION, check_translation, by_first(bleu_and_chrf)),
        PromptedTask("summarization", SUMMARIZATION, check_summary, by_first(rouge)),
        PromptedTask("question-answering", QUESTIONS, check_question, squad),
    ]
