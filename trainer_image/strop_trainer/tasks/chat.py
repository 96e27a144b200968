"""Chat: rows that are conversations; the model learns what the assistant says, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import Any

from strop_trainer.errors import TrainerError, bad_configuration, bad_data
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import METRICS, DatasetPlan
from strop_trainer.sources import RowFile
from strop_trainer.tasks.base import Dataset, Encoded, Example, Question
from strop_trainer.tasks.conversations import COLUMNS, Messages, check_conversation
from strop_trainer.tasks.overlap import exact_match
from strop_trainer.tasks.rows import RowRules, UnfitRowsError, read_dataset


class ChatTask:
    """Conversations of one or more turns."""

    name = "chat"
    needs_chat_template = True
    rules: RowRules
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
            UnfitRowsError: the chat template refuses rows; or no row has a target left, and then the first row is told.
        """
        encoded = Encoded([])
        unfit: list[tuple[bytes, str]] = []
        for normal in rows:
            row = json.loads(normal)
            try:
                sequences = tokenize_row(row, tokenizer)
            except TrainerError as error:
                unfit += refused(normal, error).rows
                continue
            encoded.lengths += [len(ids) for ids, _ in sequences]
            if (fitted := self.fit(row, tokenizer, max_length)) is not row:
                encoded.shortened += 1
                sequences = tokenize_row(fitted, tokenizer)
            for ids, targets in sequences:
                encoded.truncated += len(ids) > max_length
                example = Example(ids[:max_length], targets[:max_length])
                if example.target_count == 0:
                    encoded.dropped += 1
                    continue
                encoded.examples.append(example)
                encoded.tokens += len(example.input_ids)
                encoded.target_tokens += example.target_count
        if unfit:
            raise UnfitRowsError(unfit)
        if not encoded.examples:
            _, targets = tokenize_row(self.fit(json.loads(rows[0]), tokenizer, max_length), tokenizer)[0]
            raise UnfitRowsError.all_alike(rows, _unlearnt(targets, max_length))
        return encoded

    def fit(self, row: dict[str, Any], tokenizer: Any, max_length: int) -> dict[str, Any]:
        """Return a row: of a conversation, all that is in front of an answer may matter."""
        del tokenizer, max_length
        return row

    def questions(self, rows: Sequence[bytes], tokenizer: Any, max_length: int, count: int) -> list[Question]:
        """Return the first rows whose prompt is shorter than the maximum length, asked for their last answer.

        Raises:
            UnfitRowsError: the chat template refuses a row.
        """
        found: list[Question] = []
        for row in rows:
            if len(found) >= count:
                break
            try:
                question = self._question(json.loads(row), tokenizer, max_length)
            except TrainerError as error:
                raise refused(row, error) from None
            if question is not None:
                found.append(question)
        return found

    def _question(self, row: dict[str, Any], tokenizer: Any, max_length: int) -> Question | None:
        """Return a row asked for its last answer; None where it has none, or is too long."""
        row = self.fit(row, tokenizer, max_length)
        messages, tools = row["messages"], row.get("tools")
        said_at = [at for at in answers(messages) if messages[at]["content"].strip()]
        if not said_at:
            return None  # tools are called, and nothing is said
        last = said_at[-1]
        prompt = render(messages[:last], tokenizer, tools, ask=True)
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if len(prompt_ids) >= max_length:
            return None
        row_ids, targets = tokenize(messages[: last + 1], tokenizer, tools)[-1]
        row_ids = row_ids[: len(targets) - targets[::-1].index(True)]  # without what the template puts behind
        if row_ids[: len(prompt_ids)] != prompt_ids:
            said = render(messages[: last + 1], tokenizer, tools).rstrip().removeprefix(prompt)
            row_ids = prompt_ids + tokenizer(said, add_special_tokens=False)["input_ids"]
        asked = next(message["content"] for message in reversed(messages[:last]))
        others = tuple(row.get("others", ()))
        reference = messages[last]["content"]
        return Question(prompt_ids, asked, reference, row_ids[:max_length], shown(messages[:last]), others)

    def score(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return `exact_match`: the share of answers equal to their reference but for white space."""
        return exact_match(answers, [right[0] for right in references]) if references else {}


def refused(row: bytes, error: TrainerError) -> UnfitRowsError:
    """Return the error of a row that the template refuses; whatever else it is, is raised."""
    if error.exit_code != ExitCode.BAD_DATA:
        raise error
    return UnfitRowsError([(row, error.message.removeprefix("dataset: "))])


def answers(messages: Messages) -> list[int]:
    """Return which messages are to be learnt: the assistant's, but for those that a row gives the weight 0."""
    return [at for at, message in enumerate(messages) if message["role"] == "assistant" and message.get("weight", 1)]


def render(messages: Messages, tokenizer: Any, tools: list[Any] | None = None, *, ask: bool = False) -> str:
    """Render a conversation by the model's template; `ask` opens the assistant's next turn.

    Raises:
        TrainerError: the template refuses it, such as a system message for a model that knows none.
    """
    bare = [{name: value for name, value in message.items() if name != "weight"} for message in messages]
    try:
        return str(tokenizer.apply_chat_template(bare, tools=tools, tokenize=False, add_generation_prompt=ask))
    except Exception as error:
        shown = json.dumps(messages, ensure_ascii=False)[:200]
        raise bad_data(f"dataset: the model's chat template refuses a row: {error}; the row begins {shown}") from error


def tokenize_row(row: dict[str, Any], tokenizer: Any, first: int = 0) -> list[tuple[list[int], list[bool]]]:
    """Return the tokens of a row in its normal form, as `tokenize` does.

    Raises:
        TrainerError: the row has tools, and the model's chat template leaves them out (exit 65).
    """
    messages, tools = row["messages"], row.get("tools")
    names = [call["function"]["name"] for message in messages for call in message.get("tool_calls", ())]
    names += [str(tool.get("function", tool).get("name", "")) for tool in tools or ()]
    if names:
        text = render(messages, tokenizer, tools)
        lost = [name for name in names if name not in text]
        if lost:
            raise bad_data(f"dataset: a row has the tool {lost[0]!r}, which the model's chat template does not show")
    return tokenize(messages, tokenizer, tools, first)


def tokenize(
    messages: Messages, tokenizer: Any, tools: list[Any] | None = None, first: int = 0
) -> list[tuple[list[int], list[bool]]]:
    """Return the tokens of a conversation and which of them the assistant says, its end of turn included.

    What the assistant says is found in the rendered text: it is what a turn adds to the prompt that asks for it. White
    space that a template puts behind the end of turn is no target. Templates of reasoning models rewrite earlier turns
    once there is a later one; there, each assistant turn becomes a sequence of its own, as it was when it was said.

    Args:
        messages: the conversation.
        tokenizer: of the model.
        tools: that the assistant may call.
        first: index of the first message that counts; what the assistant says before it is part of the prompt.

    Raises:
        TrainerError: what was asked cannot be told from what was said.
    """
    turns = [index for index in answers(messages) if index >= first]
    text = render(messages[: turns[-1] + 1], tokenizer, tools)
    spans: list[tuple[int, int]] = []
    for turn in turns:
        asked = render(messages[:turn], tokenizer, tools, ask=True)
        said = render(messages[: turn + 1], tokenizer, tools).rstrip()
        if not said.startswith(asked) or not text.startswith(said):
            return [_last_turn(messages[: turn + 1], tokenizer, tools) for turn in turns]
        spans.append((len(asked), len(said)))
    return [_tokens(text, spans, tokenizer)]


def _last_turn(messages: Messages, tokenizer: Any, tools: list[Any] | None) -> tuple[list[int], list[bool]]:
    text, asked = render(messages, tokenizer, tools), render(messages[:-1], tokenizer, tools, ask=True)
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


def shown(messages: Messages) -> list[dict[str, str]]:
    """Return messages as a report shows them: role and content; a call of a tool is its JSON."""
    return [
        {"role": m["role"], "content": m["content"] or json.dumps(m.get("tool_calls", []), ensure_ascii=False)}
        for m in messages
    ]


def _unlearnt(targets: Sequence[bool], max_length: int) -> str:
    """Return why nothing of a row is left to learn."""
    if True not in targets:
        return "found no token of an answer in what the model's chat template writes, expected some"
    begin = targets.index(True)
    return f"found {begin} tokens in front of the first answer, expected fewer than {max_length} (training.maxLength)"


def prompt_of(row: bytes) -> bytes:
    """Return what the model is asked with: all before the last answer."""
    messages = json.loads(row)["messages"]
    return json.dumps(messages[: answers(messages)[-1]], ensure_ascii=False).encode()


RULES = RowRules("chat", COLUMNS, check_conversation, prompt_of)
ChatTask.rules = RULES
