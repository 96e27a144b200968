"""Text generation: documents, every token of which is learnt; for domain adaptation and creative writing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from strop_trainer.plan import METRICS, DatasetPlan
from strop_trainer.row_files.columns import Columns
from strop_trainer.sources import RowFile
from strop_trainer.tasks.base import Dataset, Encoded, Example, Question
from strop_trainer.tasks.prompted import text_in
from strop_trainer.tasks.rows import RowRules, UnfitRowsError, read_dataset

COLUMNS: Final = Columns((("text",),), text_files=True)
SHORTEST: Final = 2
"""Tokens of a sequence that has something to predict."""


class TextGenerationTask:
    """Documents of any length: rows with `text`, or text files."""

    name = "text-generation"
    needs_chat_template = False
    rules: RowRules
    metrics = METRICS["text-generation"].names

    def read(self, train: Sequence[RowFile], validation: Sequence[RowFile], dataset: DatasetPlan, seed: int) -> Dataset:
        """Check all rows and hold some out.

        Raises:
            TrainerError: wrong rows (exit 65); a column that the task does not read (78).
        """
        return read_dataset(RULES, train, validation, dataset, seed)

    def encode(self, rows: Sequence[bytes], tokenizer: Any, max_length: int) -> Encoded:
        """Turn documents into tokens, with the end-of-text token behind each; nothing of a long one is lost.

        A document longer than the maximum is cut; each piece but the first begins with the last token of the one
        before, so that every token but the first of the document is predicted once.

        Raises:
            UnfitRowsError: no document has two tokens; the first is told.
        """
        encoded = Encoded([], in_pieces=True)
        for row in rows:
            ids = _tokens(json.loads(row), tokenizer)
            encoded.lengths.append(len(ids))
            pieces = [ids[start : start + max_length] for start in range(0, max(1, len(ids) - 1), max_length - 1)]
            for piece in pieces:
                if len(piece) < SHORTEST:
                    encoded.dropped += 1
                    continue
                encoded.examples.append(Example(piece, [True] * len(piece)))
                encoded.tokens += len(piece)
                encoded.target_tokens += len(piece) - 1
        if not encoded.examples:
            problem = f"text: found {encoded.lengths[0]} token(s), expected at least {SHORTEST}"
            raise UnfitRowsError.all_alike(rows, problem)
        return encoded

    def questions(self, rows: Sequence[bytes], tokenizer: Any, max_length: int, count: int) -> list[Question]:
        """Return the beginnings of the first documents, to be gone on with."""
        found: list[Question] = []
        for row in rows:
            ids = _tokens(json.loads(row), tokenizer)[:max_length]
            if len(found) >= count:
                break
            half = len(ids) // 2
            if half < 1:
                continue
            prompt, rest = (tokenizer.decode(part, skip_special_tokens=True) for part in (ids[:half], ids[half:]))
            found.append(Question(ids[:half], prompt, rest, ids))
        return found

    def score(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return nothing: there are many right ways to go on."""
        del answers, references
        return {}


def _tokens(row: dict[str, Any], tokenizer: Any) -> list[int]:
    """Return a document's tokens: a begin token where the tokenizer gives one, an end token where it is complete."""
    ids: list[int] = list(tokenizer(row["text"], add_special_tokens=False)["input_ids"])
    with_special = tokenizer("a")["input_ids"]
    begin = [tokenizer.bos_token_id] if with_special[:1] == [tokenizer.bos_token_id] else []
    return [*begin, *ids, *([] if row.get("continues") else [tokenizer.eos_token_id])]


def check_text(row: dict[str, Any]) -> dict[str, Any]:
    """Return the text of a row, and whether its document goes on in the next one.

    Raises:
        ValueError: it has none.
    """
    return {"text": text_in(row, "text"), **({"continues": True} if row.get("continues") is True else {})}


RULES: Final = RowRules("text-generation", COLUMNS, check_text, lambda row: row)
TextGenerationTask.rules = RULES
