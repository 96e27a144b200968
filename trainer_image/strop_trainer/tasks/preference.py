"""Preference: pairs of answers to one prompt, of which people (or a judge) prefer the one to the other.

Read are `prompt`, `chosen` and `rejected`, as texts or as lists of messages; and `chosen` and `rejected` as whole
conversations, whose common start is the prompt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from strop_trainer.errors import TrainerError, bad_data
from strop_trainer.plan import METRICS, DatasetPlan
from strop_trainer.row_files.columns import Columns
from strop_trainer.row_files.problems import kind
from strop_trainer.sources import RowFile
from strop_trainer.tasks.base import Dataset, Encoded, Example, Question
from strop_trainer.tasks.chat import ChatTask, refused, tokenize_row
from strop_trainer.tasks.conversations import Messages, check_messages
from strop_trainer.tasks.plain_template import give_template
from strop_trainer.tasks.prompted import text_in, text_or_none
from strop_trainer.tasks.rows import RowRules, UnfitRowsError, normal_form, read_dataset

COLUMNS: Final = Columns(
    (("prompt", "chosen", "rejected"), ("chosen", "rejected")),
    optional=("system",),
    structured=frozenset({"prompt", "chosen", "rejected"}),
)
ANSWERS: Final = ("chosen", "rejected")


@dataclass(frozen=True)
class Pair(Example):
    """Both answers to one prompt, each with the prompt in front: the tokens of the chosen one, then the rejected's."""

    chosen_length: int = 0
    """Tokens of the chosen one."""
    row: int = 0
    """Index of the row among those that were encoded."""
    reference: tuple[float, float] = (math.nan, math.nan)
    """Log-probability of each answer before training, in nats; not a number until it is known."""

    @property
    def longest(self) -> int:
        """Tokens of the longer sequence."""
        return max(self.chosen_length, len(self.input_ids) - self.chosen_length)

    @property
    def sides(self) -> tuple[Example, Example]:
        """The chosen and the rejected sequence."""
        at = self.chosen_length
        return Example(self.input_ids[:at], self.targets[:at]), Example(self.input_ids[at:], self.targets[at:])


class PreferenceTask(ChatTask):
    """Pairs of answers; the model learns to find the chosen one likelier, against the rejected one."""

    name = "preference"
    needs_chat_template = False
    metrics = METRICS["preference"].names

    def read(self, train: Sequence[RowFile], validation: Sequence[RowFile], dataset: DatasetPlan, seed: int) -> Dataset:
        """Check all pairs and hold some out.

        Raises:
            TrainerError: wrong rows with file, place, field, found and expected (exit 65); a column or format that is
                not read (78).
        """
        return read_dataset(RULES, train, validation, dataset, seed)

    def encode(self, rows: Sequence[bytes], tokenizer: Any, max_length: int) -> Encoded:
        """Turn each row into a `Pair`, in their order; longer answers lose their end.

        Raises:
            UnfitRowsError: the chat template refuses pairs, or as tokens, they have nothing left that could be learnt.
        """
        give_template(tokenizer)
        encoded, unfit = Encoded([]), list[tuple[bytes, str]]()
        for row in rows:
            loaded = json.loads(row)
            try:
                sides = [_sequence(loaded["prompt"], loaded[name], tokenizer) for name in ANSWERS]
            except TrainerError as error:
                unfit += refused(row, error).rows
                continue
            if problem := _unfit(sides, max_length):
                unfit.append((row, problem))
                continue
            encoded.lengths += [len(ids) for ids, _ in sides]
            encoded.truncated += any(len(ids) > max_length for ids, _ in sides)
            ids, targets = ([*sides[0][part][:max_length], *sides[1][part][:max_length]] for part in (0, 1))
            pair = Pair(ids, targets, min(len(sides[0][0]), max_length), len(encoded.examples))
            encoded.examples.append(pair)
            encoded.tokens += len(pair.input_ids)
            encoded.target_tokens += pair.target_count
        if unfit:
            raise UnfitRowsError(unfit)
        return encoded

    def questions(self, rows: Sequence[bytes], tokenizer: Any, max_length: int, count: int) -> list[Question]:
        """Return the first prompts that are shorter than the maximum length, with their chosen answers.

        Raises:
            UnfitRowsError: the chat template refuses a pair.
        """
        give_template(tokenizer)
        return super().questions(rows, tokenizer, max_length, count)

    def _question(self, row: dict[str, Any], tokenizer: Any, max_length: int) -> Question | None:
        """Return a pair asked for its chosen answer; None where its prompt is too long."""
        return super()._question({"messages": [*row["prompt"], *row["chosen"]]}, tokenizer, max_length)

    def score(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return nothing: a good answer need not be worded as the chosen one."""
        del answers, references
        return {}


def _sequence(prompt: Messages, answer: Messages, tokenizer: Any) -> tuple[list[int], list[bool]]:
    """Return the tokens of a prompt and an answer to it, up to the answer's end, and which of them are the answer's."""
    found = tokenize_row({"messages": [*prompt, *answer]}, tokenizer, len(prompt))
    if len(found) > 1:
        raise bad_data(
            "dataset: the model's chat template rewrites earlier turns, so that chosen and rejected may have one "
            f"answer each; found {len(found)} turns of the assistant in one"
        )
    ids, targets = found[0]
    end = len(targets) - targets[::-1].index(True) if True in targets else len(targets)
    return ids[:end], targets[:end]


def _unfit(sides: Sequence[tuple[list[int], list[bool]]], max_length: int) -> str | None:
    """Return why a pair cannot be learnt from."""
    (chosen, _), (rejected, _) = sides
    for name, (_, targets) in zip(ANSWERS, sides, strict=True):
        if True not in targets:
            return f"{name}: found no token of it in what the model's chat template writes"
        if (begin := targets.index(True)) >= max_length:
            return f"prompt: found {begin} tokens, expected fewer than {max_length} (training.maxLength)"
    if chosen == rejected:
        return "chosen and rejected: found the same tokens in both, expected different answers"
    if chosen[:max_length] == rejected[:max_length]:
        return (
            f"chosen and rejected: found no difference in the first {max_length} tokens (training.maxLength), "
            "expected different answers"
        )
    return None


def check_pair(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as lists of messages: `prompt`, `chosen` and `rejected`, which begin with the assistant.

    Raises:
        ValueError: field, found and expected of the first thing that is wrong.
    """
    if row.get("prompt") is None and not any(isinstance(row.get(name), list) for name in ANSWERS):
        text_in(row, "prompt")
    for name in ANSWERS:
        value = row.get(name)
        if not isinstance(value, list):
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{name}: found {kind(value)}, expected a string or a list of messages")
            text_in(row, name)
    if isinstance(row["chosen"], list) is not isinstance(row["rejected"], list):
        raise ValueError(f"rejected: found {kind(row['rejected'])}, expected {kind(row['chosen'])}, as chosen is")
    pair = _conversations(row) if _is_conversation(row["chosen"]) else _answers(row)
    if pair["chosen"] == pair["rejected"]:
        raise ValueError("rejected: equal to chosen, expected another answer")
    for name in ANSWERS:
        if not pair[name]:
            raise ValueError(f"{name}: ends where the other answer goes on, expected an answer of its own")
        if (role := pair[name][-1]["role"]) != "assistant":
            raise ValueError(f"{name}: ends with a message of {role}, expected assistant")
    system = text_or_none(row, "system")
    if system and pair["prompt"][0]["role"] != "system":
        pair["prompt"].insert(0, {"role": "system", "content": system})
    return pair


def _is_conversation(chosen: Any) -> bool:
    """Whether an answer has its prompt in it."""
    first = chosen[0] if isinstance(chosen, list) and chosen else None
    return isinstance(first, dict) and first.get("role") != "assistant"


def _answers(row: dict[str, Any]) -> dict[str, Messages]:
    """Return the parts of a row with a prompt of its own."""
    prompt = row.get("prompt")
    if not isinstance(prompt, list):
        prompt = [{"role": "user", "content": text_in(row, "prompt")}]
    prompt = check_messages("prompt", prompt)
    if prompt[-1]["role"] == "assistant":
        raise ValueError("prompt: ends with a message of assistant, expected user")
    pair = {"prompt": prompt}
    for name in ANSWERS:
        answer = row[name]
        if isinstance(answer, str):
            answer = [{"role": "assistant", "content": answer}]
        if not answer:
            raise ValueError(f"{name}: empty, expected a message of the assistant")
        pair[name] = check_messages(f"prompt + {name}", [*prompt, *answer])[len(prompt) :]
        if (role := pair[name][0]["role"]) != "assistant":
            raise ValueError(f"{name}[0].role: found {role}, expected assistant")
    return pair


def _conversations(row: dict[str, Any]) -> dict[str, Messages]:
    """Return the parts of a row whose answers come with their prompt: what both begin with."""
    chosen, rejected = (check_messages(name, row[name]) for name in ANSWERS)
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    if chosen == rejected:
        raise ValueError("rejected: equal to chosen, expected another answer")
    for name, messages in zip(ANSWERS, (chosen, rejected), strict=True):
        if len(messages) > same and (role := messages[same]["role"]) != "assistant":
            raise ValueError(
                f"{name}[{same}].role: found {role} where chosen and rejected part, expected assistant: both answer "
                "the same prompt"
            )
    prompt = chosen[:same]
    _check_prompt(row.get("prompt"), prompt)
    return {"prompt": prompt, "chosen": chosen[same:], "rejected": rejected[same:]}


def _check_prompt(given: Any, prompt: Messages) -> None:
    """Check that a prompt beside whole conversations is the one in them."""
    if given is None or given == "":
        return
    if isinstance(given, list):
        right = check_messages("prompt", given) == prompt
    elif isinstance(given, str):
        right = any(message["content"].strip() == given.strip() for message in prompt)
    else:
        raise ValueError(f"prompt: found {kind(given)}, expected a string or a list of messages")  # noqa: TRY004
    if not right:
        raise ValueError("prompt: not what chosen and rejected begin with; expected the same, or none")


def prompt_of(row: bytes) -> bytes:
    """Return what both answers answer."""
    return normal_form(json.loads(row)["prompt"])


RULES: Final = RowRules("preference", COLUMNS, check_pair, prompt_of)
PreferenceTask.rules = RULES
