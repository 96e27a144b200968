"""Chat: JSONL rows with `messages`; the model learns what the assistant says, and nothing else."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import Any

from strop_trainer.errors import bad_configuration, bad_data
from strop_trainer.plan import METRICS, DatasetPlan
from strop_trainer.sources import RowFile
from strop_trainer.tasks.base import Dataset, Encoded, Example, Question
from strop_trainer.tasks.files import Columns, kind, shown_names
from strop_trainer.tasks.rows import RowRules, read_dataset

ROLES = ("system", "user", "assistant")
MESSAGE_FIELDS = ("role", "content")

Messages = list[dict[str, str]]


class ChatTask:
    """Conversations of one or more turns."""

    name = "chat"
    needs_chat_template = True
    metrics = METRICS["chat"].names

    def read(self, train: Sequence[RowFile], validation: Sequence[RowFile], dataset: DatasetPlan, seed: int) -> Dataset:
        """Check all rows and hold some out.

        Raises:
            TrainerError: wrong rows with file, line, field, found and expected (exit 65); a column or format that
                chat does not read (78).
        """
        return read_dataset(RULES, train, validation, dataset, seed)

    def encode(self, rows: Sequence[bytes], tokenizer: Any, max_length: int) -> Encoded:
        """Turn rows into tokens; longer rows lose their end.

        Raises:
            TrainerError: the chat template refuses a row (exit 65), or no row has a target left.
        """
        encoded = Encoded([])
        for ids, targets in (found for row in rows for found in tokenize(json.loads(row)["messages"], tokenizer)):
            encoded.truncated += len(ids) > max_length
            example = Example(ids[:max_length], targets[:max_length])
            if example.target_count == 0:
                encoded.dropped += 1
                continue
            encoded.examples.append(example)
            encoded.tokens += len(example.input_ids)
            encoded.target_tokens += example.target_count
        if not encoded.examples:
            raise bad_data(
                f"dataset: in all {len(rows)} rows the assistant begins after the first {max_length} tokens "
                "(training.maxLength), so that nothing is left to learn"
            )
        return encoded

    def questions(self, rows: Sequence[bytes], tokenizer: Any, max_length: int, count: int) -> list[Question]:
        """Return the first rows whose prompt is shorter than the maximum length, asked for their last answer."""
        found: list[Question] = []
        for row in rows:
            if len(found) >= count:
                break
            messages = json.loads(row)["messages"]
            last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
            prompt = render(messages[:last], tokenizer, ask=True)
            prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            if len(prompt_ids) >= max_length:
                continue
            row_ids, targets = tokenize(messages[: last + 1], tokenizer)[-1]
            row_ids = row_ids[: len(targets) - targets[::-1].index(True)]  # without what the template puts behind
            if row_ids[: len(prompt_ids)] != prompt_ids:
                said = render(messages[: last + 1], tokenizer).rstrip().removeprefix(prompt)
                row_ids = prompt_ids + tokenizer(said, add_special_tokens=False)["input_ids"]
            asked = next(message["content"] for message in reversed(messages[:last]))
            found.append(Question(prompt_ids, asked, messages[last]["content"], row_ids[:max_length], messages[:last]))
        return found

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Return `exact_match`: the share of answers equal to their reference but for white space."""
        if not references:
            return {}
        hits = sum(normalise(a) == normalise(r) for a, r in zip(answers, references, strict=True))
        return {"exact_match": hits / len(references)}


def normalise(answer: str) -> str:
    """Return an answer as it is compared: composed characters, single spaces, none at the ends."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", answer)).strip()


def check_row(row: dict[str, Any]) -> dict[str, Messages]:
    """Return the messages of a row.

    Raises:
        ValueError: field, found and expected of the first thing that is wrong.
    """
    if "messages" not in row:
        raise ValueError(f"messages: missing; found {shown_names(list(row))}")
    messages = row["messages"]
    if not isinstance(messages, list):
        raise ValueError(f"messages: found {kind(messages)}, expected a list")  # noqa: TRY004
    if not messages:
        raise ValueError("messages: empty, expected at least a user and an assistant message")
    checked = [_check_message(f"messages[{index}]", message) for index, message in enumerate(messages)]
    roles = [message["role"] for message in checked]
    if "assistant" not in roles:
        raise ValueError("messages: no assistant turn, so that there is nothing to learn")
    if "system" in roles[1:]:
        raise ValueError(f"messages[{roles.index('system', 1)}].role: found system, expected it first or not at all")
    if "user" not in roles[: roles.index("assistant")]:
        raise ValueError(
            f"messages[{roles.index('assistant')}].role: found assistant, expected a user message before it"
        )
    return {"messages": checked}


def _check_message(where: str, message: Any) -> dict[str, str]:
    if not isinstance(message, dict):
        raise ValueError(f"{where}: found {kind(message)}, expected an object with role and content")  # noqa: TRY004
    for name in MESSAGE_FIELDS:
        if name not in message:
            raise ValueError(f"{where}.{name}: missing; found {shown_names(list(message))}")
        if not isinstance(message[name], str):
            raise ValueError(f"{where}.{name}: found {kind(message[name])}, expected a string")  # noqa: TRY004
    if message["role"] not in ROLES:
        raise ValueError(f"{where}.role: found {message['role'][:40]!r}, allowed: {', '.join(ROLES)}")
    if not message["content"].strip():
        raise ValueError(f"{where}.content: empty, expected text")
    unknown = sorted(name for name, value in message.items() if name not in MESSAGE_FIELDS and value is not None)
    if unknown:
        raise ValueError(f"{where}.{unknown[0][:40]}: not known, allowed: {', '.join(MESSAGE_FIELDS)}")
    return {name: message[name] for name in MESSAGE_FIELDS}


def render(messages: Messages, tokenizer: Any, *, ask: bool = False) -> str:
    """Render a conversation by the model's template; `ask` opens the assistant's next turn.

    Raises:
        TrainerError: the template refuses it, such as a system message for a model that knows none.
    """
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))
    except Exception as error:
        shown = json.dumps(messages, ensure_ascii=False)[:200]
        raise bad_data(f"dataset: the model's chat template refuses a row: {error}; the row begins {shown}") from error


def tokenize(messages: Messages, tokenizer: Any) -> list[tuple[list[int], list[bool]]]:
    """Return the tokens of a conversation and which of them the assistant says, its end of turn included.

    What the assistant says is found in the rendered text: it is what a turn adds to the prompt that asks for it. White
    space that a template puts behind the end of turn is no target. Templates of reasoning models rewrite earlier turns
    once there is a later one; there, each assistant turn becomes a sequence of its own, as it was when it was said.

    Raises:
        TrainerError: what was asked cannot be told from what was said.
    """
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    text = render(messages[: turns[-1] + 1], tokenizer)
    spans: list[tuple[int, int]] = []
    for turn in turns:
        asked, said = render(messages[:turn], tokenizer, ask=True), render(messages[: turn + 1], tokenizer).rstrip()
        if not said.startswith(asked) or not text.startswith(said):
            return [_last_turn(messages[: turn + 1], tokenizer) for turn in turns]
        spans.append((len(asked), len(said)))
    return [_tokens(text, spans, tokenizer)]


def _last_turn(messages: Messages, tokenizer: Any) -> tuple[list[int], list[bool]]:
    text, asked = render(messages, tokenizer), render(messages[:-1], tokenizer, ask=True)
    # The prompt may open a part, such as a thinking block, that the finished turn does not have.
    begin = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(asked, text, strict=False)))
    if messages[-1]["content"].strip() not in text[begin:]:
        raise bad_configuration(
            "model: its chat template does not let the assistant's turn be told from the prompt, so that the loss "
            "cannot be limited to what the assistant says"
        )
    return _tokens(text, [(begin, len(text.rstrip()))], tokenizer)


def _tokens(text: str, spans: Sequence[tuple[int, int]], tokenizer: Any) -> tuple[list[int], list[bool]]:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    if any(start < begin < end for begin, _ in spans for start, end in offsets):
        # A token spans the end of a prompt. Asked for an answer, the model sees the prompt alone: so it does here.
        cuts = [0, *(begin for begin, _ in spans), len(text)]
        ids, offsets = [], []
        for start, end in pairwise(cuts):
            piece = tokenizer(text[start:end], add_special_tokens=False, return_offsets_mapping=True)
            ids += piece["input_ids"]
            offsets += [(start + first, start + last) for first, last in piece["offset_mapping"]]
    targets = [any(begin <= start and end <= stop and start < end for begin, stop in spans) for start, end in offsets]
    return ids, targets


def _prompt_of(row: bytes) -> bytes:
    messages = json.loads(row)["messages"]
    last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
    return json.dumps(messages[:last], ensure_ascii=False).encode()


RULES = RowRules("chat", Columns((("messages",),), structured=frozenset({"messages"})), check_row, _prompt_of)
