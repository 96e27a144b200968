"""Extractive question answering: the answer is a part of a given context (SQuAD's shape, also its second version's)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Literal

from strop_trainer.plan import DatasetPlan
from strop_trainer.row_files.problems import kind
from strop_trainer.sources import RowFile
from strop_trainer.tasks.base import Dataset, Encoded
from strop_trainer.tasks.fields import field_of, list_of, shown, text_of
from strop_trainer.tasks.labelled import (
    LabelledBase,
    LabelledExample,
    Labels,
    Outputs,
    columns,
    load,
    read_labelled,
    windows,
)
from strop_trainer.tasks.overlap import squad
from strop_trainer.tasks.rows import RowRules, normal_form, untaught

COLUMNS = columns(
    ("question", "context", "answers"),
    ("question", "context", "answer"),
    optional=("answer_start",),
    structured=("answers",),
)
ANSWER_TOKENS: Final = 30
"""Longest answer; as in SQuAD's usual scripts."""
BEST: Final = 20
"""Beginnings and ends of an answer that are tried in a window; as in SQuAD's usual scripts."""
MEASURED: Final = ("eval_loss", "exact_match", "f1")


class WrongPlaceError(ValueError):
    """An answer is not where its row says."""


Answer = dict[str, Any]
"""`text` and `start`, its first character in the context."""


class ExtractiveQaTask(LabelledBase):
    """A question and a context in which the answer is found, or none."""

    name: Literal["question-answering"] = "question-answering"
    metrics = MEASURED
    auto_class = "AutoModelForQuestionAnswering"
    peft_type = "QUESTION_ANS"
    outputs = ("start_logits", "end_logits")

    def read(self, train: Sequence[RowFile], validation: Sequence[RowFile], dataset: DatasetPlan, seed: int) -> Dataset:
        """Check all rows and hold some out.

        Raises:
            TrainerError: wrong rows, or none with an answer (exit 65).
        """
        rules = RowRules(self.name, COLUMNS, check_row, _prompt_of)
        found = read_labelled(rules, lambda _: check_row, lambda _: (), (train, validation), (dataset, seed))
        if not any(load(row)["answers"] for row in found.train):
            problem = "answers: found none in any row, expected at least one to learn"
            raise untaught(train, problem, dataset.columns)
        return found

    def labels(self, train: Sequence[bytes]) -> Labels:
        """Return beginning and end; `several` says that a row may have no answer."""
        return Labels(("start", "end"), several=not all(load(row)["answers"] for row in train))

    def measured(self, labels: Labels) -> tuple[str, ...]:
        """Return the names of the metrics."""
        del labels
        return MEASURED

    def tokenize(self, rows: Sequence[bytes], tokenizer: Any, max_length: int, labels: Labels) -> Encoded:
        """Turn rows into windows over the context that overlap by a third of the length; questions take up to half.

        A window without the whole answer learns to point at its first token.
        """
        del labels
        encoded = Encoded([], in_pieces=True)
        for first, loaded in windows(rows):
            _add_windows(encoded, first, loaded, tokenizer, max_length)
        encoded.target_tokens = 2 * len(encoded.examples)
        return encoded

    def predict(
        self, outputs: Sequence[Outputs], examples: Sequence[LabelledExample], rows: Sequence[bytes], labels: Labels
    ) -> list[str]:
        """Return the likeliest answer of each row over all its windows; none where that is likelier, and was learnt."""
        best: list[tuple[float, tuple[int, int]]] = [(float("-inf"), (0, 0)) for _ in rows]
        none = [float("inf") for _ in rows]
        for found, example in zip(outputs, examples, strict=True):
            score, span = best_span(found[0], found[1], example.places)
            if score > best[example.row][0]:
                best[example.row] = (score, span)
            none[example.row] = min(none[example.row], float(found[0][0] + found[1][0]))
        contexts = [load(row)["context"] for row in rows]
        return [
            "" if labels.several and none[row] > best[row][0] else context[best[row][1][0] : best[row][1][1]]
            for row, context in enumerate(contexts)
        ]

    def measure(self, predicted: Sequence[str], rows: Sequence[bytes], labels: Labels) -> dict[str, float]:
        """Return exact_match and f1 as SQuAD defines them, in 0..1."""
        del labels
        return squad(predicted, [[answer["text"] for answer in load(row)["answers"]] or [""] for row in rows])

    def baseline(self, train: Sequence[bytes], rows: Sequence[bytes], labels: Labels) -> dict[str, float]:
        """Return nothing, or what never answering would reach where some rows have no answer."""
        del train
        return self.measure([""] * len(rows), rows, labels) if labels.several else {}

    def show(self, row: bytes, predicted: str | None = None) -> tuple[str, str]:
        """Return context and question, and the answer."""
        loaded = load(row)
        answer = next((found["text"] for found in loaded["answers"]), "") if predicted is None else predicted
        return f"{loaded['context']}\n\n{loaded['question']}", answer or "(no answer)"


def _add_windows(
    encoded: Encoded, first: int, loaded: Sequence[dict[str, Any]], tokenizer: Any, max_length: int
) -> None:
    """Add the windows of rows, of which the first has an index."""
    questions = [_shorten(row["question"], tokenizer, max_length // 2) for row in loaded]
    contexts = [row["context"] for row in loaded]
    room = max_length - max_length // 2 - tokenizer.num_special_tokens_to_add(pair=True)
    found = tokenizer(
        questions,
        contexts,
        truncation="only_second",
        max_length=max_length,
        stride=max(0, min(max_length // 3, room - 1)),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    kinds = found.get("token_type_ids") or [[] for _ in found["input_ids"]]
    encoded.truncated += sum(q != row["question"] for q, row in zip(questions, loaded, strict=True))
    pieces = Counter(found["overflow_to_sample_mapping"])
    # Of a row in one window that has the row's length; the others are taken once more, whole.
    lengths = dict(zip(found["overflow_to_sample_mapping"], map(len, found["input_ids"]), strict=True))
    for row in (row for row, count in pieces.items() if count > 1):
        lengths[row] = len(tokenizer(questions[row], contexts[row], verbose=False)["input_ids"])
    encoded.lengths += [lengths[row] for row in range(len(loaded))]
    for window, (tokens, row) in enumerate(zip(found["input_ids"], found["overflow_to_sample_mapping"], strict=True)):
        offsets = [
            tuple(offset) if part == 1 else (-1, -1)
            for part, offset in zip(found.sequence_ids(window), found["offset_mapping"][window], strict=True)
        ]
        answers = loaded[row]["answers"]
        encoded.examples.append(
            LabelledExample(
                tokens,
                [],
                label=_span(answers[0], offsets) if answers else (0, 0),
                segments=kinds[window],
                row=first + row,
                places=offsets,
                count=2,
            )
        )
        encoded.tokens += len(tokens)


def check_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return question, context and answers with their places.

    Raises:
        ValueError: field, found and expected of the first thing that is wrong.
    """
    question = text_of(field_of(row, "question"), "question")
    context = text_of(field_of(row, "context"), "context")
    if "answers" in row:
        answers = _answers(field_of(row, "answers"))
    else:
        answers = [("answer", field_of(row, "answer"), row.get("answer_start"))]
    return {
        "question": question.strip(),
        "context": context,
        "answers": [_place(context, name, text, start) for name, text, start in answers],
    }


def _answers(value: Any) -> list[tuple[str, Any, Any]]:
    """Return name, text and start of each answer: SQuAD's {text: […], answer_start: […]}, or a list of objects."""
    if isinstance(value, list):
        for at, item in enumerate(value):
            if not isinstance(item, dict):
                raise ValueError(f"answers[{at}]: found {kind(item)}, expected an object with text and answer_start")  # noqa: TRY004
        return [(f"answers[{at}]", item.get("text"), item.get("answer_start")) for at, item in enumerate(value)]
    if not isinstance(value, dict):
        raise ValueError(f"answers: found {kind(value)}, expected an object with text and answer_start")  # noqa: TRY004
    texts = list_of(field_of(value, "text", "answers."), "answers.text")
    starts = list_of(field_of(value, "answer_start", "answers."), "answers.answer_start")
    if len(texts) != len(starts):
        raise ValueError(f"answers.answer_start: found {len(starts)}, expected {len(texts)}, one a text")
    return [(f"answers.text[{at}]", text, start) for at, (text, start) in enumerate(zip(texts, starts, strict=True))]


def _place(context: str, name: str, text: Any, start: Any) -> Answer:
    text = text_of(text, name)
    if isinstance(start, str) and start.strip().isdecimal():  # a cell of a table
        start = int(start)
    if start is None:
        count = context.count(text)
        if count != 1:
            found = f"{count} times" if count else "not"
            raise ValueError(f"{name}: {shown(text)} is {found} in the context, expected once, or answer_start")
        return {"text": text, "start": context.index(text)}
    if isinstance(start, bool) or not isinstance(start, int):
        raise WrongPlaceError(f"{name}: its answer_start is {kind(start)}, expected a whole number")
    if not 0 <= start <= len(context) - len(text):
        raise WrongPlaceError(
            f"{name}: characters {start} to {start + len(text)} are outside the context, which has {len(context)}"
        )
    there = context[start : start + len(text)]
    if there != text:
        near = context.find(text)
        hint = f"; it is at {near}" if near >= 0 else ""
        raise WrongPlaceError(f"{name}: {shown(text)} is not at character {start}, found {shown(there)} there{hint}")
    return {"text": text, "start": start}


def _shorten(question: str, tokenizer: Any, limit: int) -> str:
    """Return a question cut to a number of tokens."""
    found = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
    if len(found["input_ids"]) <= limit:
        return question
    return question[: found["offset_mapping"][limit - 1][1]]


def _span(answer: Answer, offsets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return first and last token of an answer; (0, 0) where it is not whole in the window."""
    text = answer["text"]
    begin, end = answer["start"] + len(text) - len(text.lstrip()), answer["start"] + len(text.rstrip())
    inside = [token for token, (first, last) in enumerate(offsets) if 0 <= first < end and last > begin]
    whole = inside and offsets[inside[0]][0] <= begin and offsets[inside[-1]][1] >= end
    return (inside[0], inside[-1]) if whole else (0, 0)


def best_span(begins: Any, ends: Any, places: Sequence[tuple[int, int]]) -> tuple[float, tuple[int, int]]:
    """Return score and characters of a window's likeliest answer.

    Args:
        begins: float32 (L,) logits of being the first token.
        ends: the same of being the last one.
        places: characters of each token in the context; (-1, -1) of what is not in it.
    """
    import numpy as np  # noqa: PLC0415

    allowed = np.array([first >= 0 and last > first for first, last in places])
    if not allowed.any():
        return float("-inf"), (0, 0)
    from_start = np.argsort(np.where(allowed, -begins, np.inf), kind="stable")[:BEST]
    from_end = np.argsort(np.where(allowed, -ends, np.inf), kind="stable")[:BEST]
    best = (float("-inf"), (0, 0))
    for begin in from_start[allowed[from_start]]:
        for end in from_end[allowed[from_end]]:
            score = float(begins[begin] + ends[end])
            if begin <= end < begin + ANSWER_TOKENS and score > best[0]:
                best = (score, (places[begin][0], places[end][1]))
    return best


def _prompt_of(row: bytes) -> bytes:
    loaded = load(row)
    return normal_form([loaded["question"], loaded["context"]])
