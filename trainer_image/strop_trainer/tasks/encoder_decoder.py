"""Tasks of one text and another, for a model of encoder and decoder: the rows of `prompted`, without a chat template.

What stands in front of a text is what the family was trained with: T5's words, Marian's `>>de<<`, NLLB's, M2M100's and
mBART's tokens of languages. A decoder is given its start, and the token of the beginning that the model forces, or that
of the language to write; all that follows is learnt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from strop_trainer.encoder_decoders import OF_LANGUAGES, model_refusal, plan_refusal
from strop_trainer.errors import bad_configuration
from strop_trainer.plan import DatasetPlan, TrainingPlan
from strop_trainer.sources import RowFile
from strop_trainer.sources.model_folder import ModelFolder
from strop_trainer.tasks.base import Dataset, Encoded, Example, Question
from strop_trainer.tasks.languages import ENDS_WITH_LANGUAGE, language_code, language_tokens, set_languages
from strop_trainer.tasks.prompted import LANGUAGES, PromptedTask, source_and_target
from strop_trainer.tasks.rows import UnfitRowsError

_SHOWN_CODES: Final = 6
_NO_START: Final = (
    "model: neither its config.json nor its generation_config.json has a decoder_start_token_id, with which its "
    "decoder begins"
)


@dataclass(frozen=True)
class SourceTarget(Example):
    """One row: `input_ids` are the source's tokens, `targets` is empty.

    Args:
        given: tokens that the decoder begins with.
        target_ids: tokens that are learnt behind them, the end included where it was not cut off.
        languages: the tokenizer's codes of source and target, where it has such.
    """

    given: tuple[int, ...]
    target_ids: tuple[int, ...]
    languages: tuple[str, str] | None = None

    @property
    def target_count(self) -> int:
        """Tokens whose prediction counts in the loss."""
        return len(self.target_ids)


@dataclass(frozen=True)
class SourceQuestion(Question):
    """A held-out row: `prompt_ids` are the source's tokens, `row_ids` the decoder's, `given` among them.

    `languages` are the tokenizer's codes of source and target, where it has such.
    """

    given: tuple[int, ...] = ()
    languages: tuple[str, str] | None = None


class EncoderDecoderTask:
    """A task of `prompted`, as a model of encoder and decoder does it."""

    needs_chat_template = False

    def __init__(self, task: PromptedTask, model: ModelFolder) -> None:
        """Read from the model's configuration what its decoder begins with.

        Raises:
            TrainerError: it does not say (exit 78).
        """
        self.name, self.metrics, self.rules = task.name, task.metrics, task.rules
        self._task, self._model_type, self._architecture = task, model.model_type, model.architecture
        settings: dict[str, Any] = {}
        for name in ("config.json", "generation_config.json"):
            if (file := model.path / name).is_file():
                found = json.loads(file.read_bytes())
                settings |= {key: value for key, value in found.items() if value is not None}
        start, forced = settings.get("decoder_start_token_id"), settings.get("forced_bos_token_id")
        # The first mBART's begins with the language that a row tells; of which kind it is, its tokenizer tells.
        if not isinstance(start, int) and self._model_type != "mbart":
            raise bad_configuration(_NO_START)
        self._start: int | None = start if isinstance(start, int) else None
        self._forced: int | None = forced if isinstance(forced, int) else None
        self._known: tuple[Any, dict[str, int]] | None = None

    def check_plan(self, plan: TrainingPlan) -> None:
        """Refuse a model of another kind, and what is not done with such a one.

        Raises:
            TrainerError: field, found and allowed (exit 78).
        """
        why = model_refusal(self._model_type, self._architecture) or plan_refusal(plan, self._architecture)
        if why:
            raise bad_configuration(why)

    def read(self, train: Sequence[RowFile], validation: Sequence[RowFile], dataset: DatasetPlan, seed: int) -> Dataset:
        """Check all rows and hold some out, as for any model."""
        return self._task.read(train, validation, dataset, seed)

    def encode(self, rows: Sequence[bytes], tokenizer: Any, max_length: int) -> Encoded:
        """Turn rows into tokens; a source or a target that is longer than the maximum loses its end.

        Raises:
            UnfitRowsError: the model does not have the languages of a row.
        """
        encoded, unfit = Encoded([]), []
        for row in rows:
            try:
                example, lengths, _ = self._pair(json.loads(row), tokenizer, max_length)
            except ValueError as error:
                unfit.append((row, str(error)))
                continue
            encoded.examples.append(example)
            encoded.lengths += lengths
            encoded.truncated += max(lengths) > max_length
            encoded.tokens += len(example.input_ids) + example.target_count
            encoded.target_tokens += example.target_count
        if unfit:
            raise UnfitRowsError(unfit)
        return encoded

    def questions(self, rows: Sequence[bytes], tokenizer: Any, max_length: int, count: int) -> list[Question]:
        """Return the first rows.

        Raises:
            UnfitRowsError: the model does not have the languages of a row.
        """
        found: list[Question] = []
        for normal in rows[:count]:
            row = json.loads(normal)
            try:
                example, _, source = self._pair(row, tokenizer, max_length)
            except ValueError as error:
                raise UnfitRowsError([(normal, str(error))]) from None
            found.append(
                SourceQuestion(
                    prompt_ids=list(example.input_ids),
                    prompt=source,
                    reference=source_and_target(self.name, row)[1],
                    row_ids=[*example.given, *example.target_ids],
                    messages=[{"role": "user", "content": source}],
                    others=tuple(row.get("others", ())),
                    given=example.given,
                    languages=example.languages,
                )
            )
        return found

    def score(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Compare generated answers with the references."""
        return self._task.score(answers, references)

    def _pair(self, row: Mapping[str, Any], tokenizer: Any, max_length: int) -> tuple[SourceTarget, list[int], str]:
        """Return a row as tokens, the tokens of source and target before they were cut, and the source as it is read.

        Raises:
            ValueError: field, found and expected of its languages.
        """
        source, target = source_and_target(self.name, row)
        languages = row.get("languages", (None, None))
        codes: tuple[str, str] | None = None
        if self._model_type in OF_LANGUAGES:
            codes, given = self._begin_in(languages, tokenizer)
            written = list(tokenizer(target, add_special_tokens=False)["input_ids"])
        else:
            if self._model_type == "marian":
                source = marian_source(source, languages[1], tokenizer.supported_language_codes)
            elif self._model_type in {"t5", "mt5"}:
                source = t5_source(self.name, source, *languages)
            written, given = list(tokenizer(text_target=target)["input_ids"]), (self._needed_start(),)
            if written[:1] == [self._forced]:
                given, written = (*given, written[0]), written[1:]
        read = list(tokenizer(source)["input_ids"])
        if codes or written[-1:] != [tokenizer.eos_token_id]:
            written.append(tokenizer.eos_token_id)
        lengths = [len(read), len(written)]
        if len(read) > max_length:
            read = list(tokenizer(source, truncation=True, max_length=max_length)["input_ids"])
        return SourceTarget(read, [], given, tuple(written[:max_length]), codes), lengths, source

    def _begin_in(self, languages: Sequence[str | None], tokenizer: Any) -> tuple[tuple[str, str], tuple[int, ...]]:
        """Let the tokenizer read and write the languages; return its codes, and what the decoder begins with.

        Raises:
            ValueError: field, found and expected of the languages.
        """
        if self._known is None or self._known[0] is not tokenizer:
            self._known = (tokenizer, language_tokens(tokenizer, self._model_type))
        tokens = self._known[1]
        read, written = (
            language_code(f"{side}_language", language, tokens)
            for side, language in zip(("source", "target"), languages, strict=True)
        )
        set_languages(tokenizer, read, written)
        given: tuple[int, ...] = (tokens[written],)
        if type(tokenizer).__name__ != ENDS_WITH_LANGUAGE:
            given = (self._needed_start(), *given)
        return (read, written), given

    def _needed_start(self) -> int:
        if self._start is None:
            raise bad_configuration(_NO_START)
        return self._start


def t5_source(task: str, text: str, source: str | None = None, target: str | None = None) -> str:
    """Return a text with the words that T5 was trained with (Raffel et al. 2020, appendix D), where there are any.

    mT5 knows no task before it is tuned; the words tell it which, and the language to write.
    """
    if task == "summarization":
        return f"summarize: {text}"
    if task != "translation" or not target:
        return text
    words = [LANGUAGES.get(language, language) for language in (source, target) if language]
    return f"translate {' to '.join(words) if source else f'to {words[0]}'}: {text}"


def marian_source(text: str, target: str | None, tokens: Sequence[str]) -> str:
    """Return a text with the token of the language to write, where the model writes several.

    Args:
        text: of the source.
        target: language as the row names it.
        tokens: such as `>>de<<`; empty where the model writes one language.

    Raises:
        ValueError: the model does not write it.
    """
    if not tokens or not target or text.startswith(">>"):
        return text
    token = f">>{target}<<"
    if token not in tokens:
        raise ValueError(f"target_language: found {target}, expected {_shown([name[2:-2] for name in tokens])}")
    return f"{token} {text}"


def _shown(codes: Sequence[str]) -> str:
    return ", ".join(codes[:_SHOWN_CODES]) + (f" or another of {len(codes)}" if len(codes) > _SHOWN_CODES else "")
