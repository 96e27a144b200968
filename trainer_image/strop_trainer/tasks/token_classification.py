"""Token classification: each word of a text gets a tag, such as the names in it by B-, I- and O."""

from __future__ import annotations

import re
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final, Literal

from strop_trainer.errors import bad_data
from strop_trainer.plan import METRICS, DatasetPlan
from strop_trainer.row_files.columns import Check
from strop_trainer.row_files.problems import kind
from strop_trainer.sources import RowFile
from strop_trainer.tasks.base import Dataset, Encoded
from strop_trainer.tasks.fields import field_of, first_in, shown, text_of
from strop_trainer.tasks.labelled import (
    LabelledBase,
    LabelledExample,
    Labels,
    Outputs,
    Places,
    columns,
    finite,
    load,
    read_labelled,
    sort_labels,
    truncated,
    whole_lengths,
    windows,
)
from strop_trainer.tasks.rows import RowRules, normal_form, untaught

OUTSIDE: Final = "O"
COLUMNS = columns(("tokens", "tags"), structured=("tokens", "tags"))
_PREFIXED: Final = re.compile(r"([BIESLUM])-(.+)", re.DOTALL)
_SHOWN_TAGS: Final = 8


class TokenClassificationTask(LabelledBase):
    """Words and their tags: BIO (IOB2), or plain ones such as parts of speech."""

    name: Literal["token-classification"] = "token-classification"
    metrics = METRICS["token-classification"].names
    auto_class = "AutoModelForTokenClassification"
    peft_type = "TOKEN_CLS"
    outputs = ("logits",)

    def read(self, train: Sequence[RowFile], validation: Sequence[RowFile], dataset: DatasetPlan, seed: int) -> Dataset:
        """Check all rows and hold some out.

        Raises:
            TrainerError: wrong rows, held-out tags that were never seen, or too few words for the tags (exit 65).
        """
        check = RowCheck()
        rules = RowRules(self.name, COLUMNS, check, _prompt_of, check.at)
        found = read_labelled(
            rules,
            lambda rows: check.knowing(self.labels(rows)),
            _types_of,
            (train, validation),
            (dataset, seed),
            lack=_too_few_words,
        )
        labels = self.labels(found.train)
        if len(labels.names) < 2:  # noqa: PLR2004 - one tag tells nothing apart
            problem = f"tags: found only {', '.join(labels.names)}, expected several tags"
            raise untaught(train, problem, dataset.columns)
        return found

    def labels(self, train: Sequence[bytes]) -> Labels:
        """Collect the tags of the training rows: O, then B- and I- of each type, sorted; or the plain tags, sorted."""
        tags = {tag for row in train for tag in load(row)["tags"]}
        types = sort_labels(tag[2:] for tag in tags if is_bio(tag))
        if not types:
            return Labels(sort_labels(tags))
        return Labels((OUTSIDE, *(f"{part}-{name}" for name in types for part in "BI")))

    def measured(self, labels: Labels) -> tuple[str, ...]:
        """Return the names of the metrics that these tags have."""
        del labels
        return self.metrics

    def tokenize(self, rows: Sequence[bytes], tokenizer: Any, max_length: int, labels: Labels) -> Encoded:
        """Turn rows into tokens; the first token of a word bears its tag, the others none.

        The words are joined by spaces, as the text would be in use. Words behind the maximum length are lost.
        """
        encoded, ids = Encoded([]), labels.ids
        for first, loaded in windows(rows):
            texts = [" ".join(row["tokens"]) for row in loaded]
            found = tokenizer(texts, truncation=True, max_length=max_length, return_offsets_mapping=True)
            segments = found.get("token_type_ids") or [[] for _ in loaded]
            cut = truncated(found.encodings)
            encoded.truncated += len(cut)
            encoded.lengths += whole_lengths(found, cut, tokenizer, texts)
            for index, (row, tokens) in enumerate(zip(loaded, found["input_ids"], strict=True)):
                places = first_tokens(row["tokens"], texts[index], found["offset_mapping"][index])
                if not places:
                    encoded.dropped += 1
                    continue
                encoded.examples.append(
                    LabelledExample(
                        tokens,
                        [],
                        label=Places((token, ids[row["tags"][word]]) for token, word in places),
                        segments=segments[index],
                        row=first + index,
                        places=places,
                        count=len(places),
                    )
                )
                encoded.tokens += len(tokens)
                encoded.target_tokens += len(places)
        if not encoded.examples:
            raise bad_data(
                "dataset: tokens: found none that the model's tokenizer knows, expected some in its language"
            )
        return encoded

    def predict(
        self, outputs: Sequence[Outputs], examples: Sequence[LabelledExample], rows: Sequence[bytes], labels: Labels
    ) -> list[list[str]]:
        """Return the tag of each word; of words that the model does not see, O, or the first tag."""
        unseen = OUTSIDE if OUTSIDE in labels.names else labels.names[0]
        predicted = [[unseen] * len(load(row)["tokens"]) for row in rows]
        for found, example in zip(outputs, examples, strict=True):
            for token, word in example.places:
                predicted[example.row][word] = labels.names[int(found[0][token].argmax())]
        return predicted

    def measure(self, predicted: Sequence[list[str]], rows: Sequence[bytes], labels: Labels) -> dict[str, float]:
        """Return precision, recall and f1 of whole names (as conlleval's), of plain tags the mean; and accuracy."""
        from sklearn import metrics  # noqa: PLC0415

        truth = [load(row)["tags"] for row in rows]
        flat_truth, flat = ([tag for tags in part for tag in tags] for part in (truth, predicted))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if any(map(is_bio, labels.names)):
                from seqeval.metrics import f1_score, precision_score, recall_score  # noqa: PLC0415

                precision, recall, f1 = (
                    score(truth, list(predicted), zero_division=0)
                    for score in (precision_score, recall_score, f1_score)
                )
            else:
                precision, recall, f1, _ = metrics.precision_recall_fscore_support(
                    flat_truth, flat, average="macro", zero_division=0
                )
            accuracy = metrics.accuracy_score(flat_truth, flat)
        return finite({"precision": precision, "recall": recall, "f1": f1, "accuracy": accuracy})

    def baseline(self, train: Sequence[bytes], rows: Sequence[bytes], labels: Labels) -> dict[str, float]:
        """Measure what always giving the training rows' most frequent tag would reach."""
        counts = Counter(tag for row in train for tag in load(row)["tags"])
        most = min(counts, key=lambda tag: (-counts[tag], tag))
        return self.measure([[most] * len(load(row)["tags"]) for row in rows], rows, labels)

    def show(self, row: bytes, predicted: list[str] | None = None) -> tuple[str, str]:
        """Return the text, and the words that have a tag."""
        loaded = load(row)
        tags = loaded["tags"] if predicted is None else predicted
        tagged = [f"{word}/{tag}" for word, tag in zip(loaded["tokens"], tags, strict=True) if tag != OUTSIDE]
        return " ".join(loaded["tokens"]), " ".join(tagged) or "(no tag)"


def is_bio(tag: str) -> bool:
    """Tell whether a tag is B- or I- of a type."""
    return tag.startswith(("B-", "I-"))


def first_tokens(words: Sequence[str], text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (token, word) of the first token of each word that has one.

    Args:
        words: the words.
        text: the words, joined by single spaces.
        offsets: first and last character of each token; special tokens have none. Some tokenizers count the space in
            front of a word to its first token.
    """
    starts = list(accumulate((len(word) + 1 for word in words[:-1]), initial=0))
    found: dict[int, int] = {}
    for token, (begin, end) in enumerate(offsets):
        piece = text[begin:end]
        if not piece.strip():
            continue
        first = begin + len(piece) - len(piece.lstrip())
        found.setdefault(bisect_right(starts, first) - 1, token)
    return [(token, word) for word, token in sorted(found.items())]


class RowCheck:
    """Check of a row that remembers which kind of tags the rows before it had."""

    def __init__(self) -> None:
        self.bio: bool | None = None
        self._place = self._bio_place = ""

    def at(self, place: str) -> None:
        """Take note of where the next row is."""
        self._place = place

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return tokens and tags.

        Raises:
            ValueError: field, found and expected of the first thing that is wrong.
        """
        words, tags = _list_of(row, "tokens"), _list_of(row, "tags")
        if not words:
            raise ValueError("tokens: empty, expected at least one word")
        words = [text_of(word, f"tokens[{at}]").strip() for at, word in enumerate(words)]
        for at, word in enumerate(words):
            if any(character.isspace() for character in word):
                raise ValueError(f"tokens[{at}]: found {shown(word)}, expected one word without white space")
        for at, tag in enumerate(tags):
            if isinstance(tag, int) and not isinstance(tag, bool):
                raise ValueError(f"tags[{at}]: found the number {tag}, expected a name, such as B-PER")  # noqa: TRY004
        tags = [text_of(tag, f"tags[{at}]").strip() for at, tag in enumerate(tags)]
        if len(words) != len(tags):
            raise ValueError(f"tags: found {len(tags)}, expected {len(words)}, one a token")
        self._check_scheme(words, tags)
        return {"tokens": words, "tags": tags}

    def _check_scheme(self, words: Sequence[str], tags: Sequence[str]) -> None:
        before = OUTSIDE
        for at, (word, tag) in enumerate(zip(words, tags, strict=True)):
            if tag != OUTSIDE:
                where = f"tags[{at}] (token {shown(word)})"
                prefixed = _PREFIXED.fullmatch(tag)
                if self.bio is None:
                    self.bio, self._bio_place = prefixed is not None, self._place
                first = first_in(self._bio_place)
                if self.bio and prefixed is None:
                    raise ValueError(
                        f"{where}: found {shown(tag)}, expected O, B-… or I-…, as the tags before it{first}"
                    )
                if prefixed and not self.bio:
                    raise ValueError(f"{where}: found {shown(tag)}, but plain tags without B- and I- before it{first}")
                if prefixed and prefixed[1] not in "BI":
                    raise ValueError(
                        f"{where}: found {shown(tag)}, expected BIO: O, B-{prefixed[2]} or I-{prefixed[2]}"
                    )
                if prefixed and prefixed[1] == "I" and before[2:] != prefixed[2]:
                    raise ValueError(
                        f"{where}: found {tag} after {before}, expected B-{prefixed[2]}: a name begins with B-"
                    )
            before = tag

    def knowing(self, labels: Labels) -> Check:
        """Return the check of held-out rows, whose tags must be among those that are learnt."""
        known = set(labels.names)

        def check(row: dict[str, Any]) -> dict[str, Any]:
            checked = self(row)
            for at, tag in enumerate(checked["tags"]):
                if tag not in known and not (tag == OUTSIDE and self.bio):
                    names = ", ".join(labels.names[:_SHOWN_TAGS]) + (", …" if len(known) > _SHOWN_TAGS else "")
                    raise ValueError(f"tags[{at}]: found {shown(tag)}, which no training row has; those have {names}")
            return checked

        return check


def _list_of(row: dict[str, Any], name: str) -> list[Any]:
    """Return a list; text, as in a cell of a table, is split at white space."""
    value = field_of(row, name)
    if isinstance(value, str):
        return value.split()
    if not isinstance(value, list):
        raise ValueError(f"{name}: found {kind(value)}, expected a list of strings")  # noqa: TRY004
    return value


def _too_few_words(train: Sequence[bytes]) -> str | None:
    types = Counter(tag.removeprefix("B-") for row in train for tag in load(row)["tags"] if tag[:2] not in ("O", "I-"))
    words = types.total()
    if 1 < len(types) >= words:
        return (
            f"tags: found {words} tagged words of {len(types)} types, expected more words than types; "
            "is this the right column?"
        )
    return None


def _types_of(row: bytes) -> list[str]:
    return sorted({tag[2:] if is_bio(tag) else tag for tag in load(row)["tags"] if tag != OUTSIDE})


def _prompt_of(row: bytes) -> bytes:
    return normal_form(load(row)["tokens"])
