"""Text classification: a text, or a pair of texts, gets one label of several, or any number of them."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

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

ONE = ("eval_loss", "accuracy", "f1", "mcc")
SEVERAL = ("eval_loss", "exact_match", "f1", "f1_micro")
COLUMNS = columns(("text", "label"), ("text", "labels"), optional=("text_pair",), structured=("labels",))
_SHOWN_LABELS = 8
_WORDS = {"list": "a list of labels", "label": "one label each"}


class TextClassificationTask(LabelledBase):
    """One label a row, or a list of labels a row."""

    name: Literal["text-classification"] = "text-classification"
    metrics = METRICS["text-classification"].names
    auto_class = "AutoModelForSequenceClassification"
    peft_type = "SEQ_CLS"
    outputs = ("logits",)

    def read(self, train: Sequence[RowFile], validation: Sequence[RowFile], dataset: DatasetPlan, seed: int) -> Dataset:
        """Check all rows and hold some out.

        Raises:
            TrainerError: wrong rows, held-out labels that were never seen, or too few rows for the labels (exit 65).
        """
        check = RowCheck()

        def too_few(rows: Sequence[bytes]) -> str | None:
            names = self.labels(rows).names
            if not 1 < len(names) >= len(rows):
                return None
            return (
                f"{check.field}: found {len(rows)} rows and {len(names)} labels, expected more rows than labels; "
                f"is this the right column? Labels begin {', '.join(names[:3])}"
            )

        rules = RowRules(self.name, COLUMNS, check, _prompt_of, check.at)
        found = read_labelled(
            rules,
            lambda rows: check.knowing(self.labels(rows)),
            _labels_of,
            (train, validation),
            (dataset, seed),
            lack=too_few,
        )
        labels = self.labels(found.train)
        if labels.several and not labels.names:
            raise untaught(train, f"{check.field}: found no label, expected at least one", dataset.columns)
        if not labels.several and len(labels.names) < 2:  # noqa: PLR2004 - one label tells nothing apart
            problem = f"{check.field}: found only {', '.join(labels.names)}, expected several labels"
            raise untaught(train, problem, dataset.columns)
        return found

    def labels(self, train: Sequence[bytes]) -> Labels:
        """Collect the labels of the training rows, sorted."""
        names = sort_labels(name for row in train for name in load(row)["labels"])
        return Labels(names, bool(train and load(train[0])["several"]))

    def measured(self, labels: Labels) -> tuple[str, ...]:
        """Return the names of the metrics that these labels have."""
        return SEVERAL if labels.several else ONE

    def tokenize(self, rows: Sequence[bytes], tokenizer: Any, max_length: int, labels: Labels) -> Encoded:
        """Turn rows into tokens; of what is longer, the end is lost, of a pair that of the longer text."""
        encoded, ids = Encoded([], target_tokens=len(rows)), labels.ids
        paired = any("text_pair" in load(row) for row in rows)
        for first, loaded in windows(rows):
            texts = [row["text"] for row in loaded]
            pairs = [row.get("text_pair", "") for row in loaded] if paired else None
            found = tokenizer(texts, pairs, truncation="longest_first", max_length=max_length)
            segments = found.get("token_type_ids") or [[] for _ in loaded]
            cut = truncated(found.encodings)
            encoded.truncated += len(cut)
            encoded.lengths += whole_lengths(found, cut, tokenizer, texts, pairs)
            for index, (row, tokens) in enumerate(zip(loaded, found["input_ids"], strict=True)):
                numbers = [ids[name] for name in row["labels"]]
                label: Any = [float(place in numbers) for place in range(len(ids))] if labels.several else numbers[0]
                encoded.examples.append(
                    LabelledExample(
                        tokens,
                        [],
                        label=label,
                        segments=segments[index],
                        row=first + index,
                        count=len(ids) if labels.several else 1,
                    )
                )
                encoded.tokens += len(tokens)
        return encoded

    def predict(
        self, outputs: Sequence[Outputs], examples: Sequence[LabelledExample], rows: Sequence[bytes], labels: Labels
    ) -> list[list[str]]:
        """Return each row's labels: the likeliest, or all that are likelier than not."""
        del examples, rows
        if labels.several:
            return [[n for n, logit in zip(labels.names, found[0], strict=True) if logit > 0] for found in outputs]
        return [[labels.names[int(found[0].argmax())]] for found in outputs]

    def measure(self, predicted: Sequence[list[str]], rows: Sequence[bytes], labels: Labels) -> dict[str, float]:
        """Return accuracy, f1 (the mean over the labels) and Matthews' correlation; or those of several labels."""
        from sklearn import metrics  # noqa: PLC0415

        ids = labels.ids
        truth = [load(row)["labels"] for row in rows]
        with warnings.catch_warnings():
            # A label that none of the held-out rows has is no mistake.
            warnings.simplefilter("ignore")
            if labels.several:
                each, given = (
                    [[int(name in names) for name in labels.names] for names in part] for part in (truth, predicted)
                )
                return finite(
                    {
                        "exact_match": metrics.accuracy_score(each, given),
                        "f1": metrics.f1_score(each, given, average="macro", zero_division=math.nan),
                        "f1_micro": metrics.f1_score(each, given, average="micro", zero_division=0),
                    }
                )
            true, found = ([ids[names[0]] for names in part] for part in (truth, predicted))
            return finite(
                {
                    "accuracy": metrics.accuracy_score(true, found),
                    "f1": metrics.f1_score(true, found, average="macro", zero_division=0),
                    "mcc": metrics.matthews_corrcoef(true, found),
                }
            )

    def baseline(self, train: Sequence[bytes], rows: Sequence[bytes], labels: Labels) -> dict[str, float]:
        """Measure what always giving the training rows' most frequent label (or set of labels) would reach."""
        counts = Counter(tuple(load(row)["labels"]) for row in train)
        most = min(counts, key=lambda names: (-counts[names], names))
        return self.measure([list(most)] * len(rows), rows, labels)

    def show(self, row: bytes, predicted: list[str] | None = None) -> tuple[str, str]:
        """Return the text, and the labels."""
        loaded = load(row)
        names = loaded["labels"] if predicted is None else predicted
        text = "\n".join(loaded[part] for part in ("text", "text_pair") if part in loaded)
        return text, ", ".join(names) or "(no label)"


class RowCheck:
    """Check of a row that remembers what kind of label the rows before it had."""

    def __init__(self) -> None:
        self.shape: str | None = None
        self.kind: str | None = None
        self.field = "label"
        """In which the last row has its label or labels."""
        self._place = self._shape_place = self._kind_place = ""

    def at(self, place: str) -> None:
        """Take note of where the next row is."""
        self._place = place

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return text, labels and whether a row may have several.

        Raises:
            ValueError: field, found and expected of the first thing that is wrong.
        """
        checked: dict[str, Any] = {"text": text_of(field_of(row, "text"), "text")}
        if row.get("text_pair") is not None:
            checked["text_pair"] = text_of(row["text_pair"], "text_pair")
        name = self.field = _field_in(row)
        value = field_of(row, name)
        if name == "labels" and isinstance(value, str):
            raise ValueError(
                'labels: found a string, expected a list (in CSV: ["a", "b"]); for one label a row: '
                "dataset.columns: {label: labels}"
            )
        several = isinstance(value, list)
        items = value if several else [value]
        labels = [_label(item, f"{name}[{at}]" if several else name) for at, item in enumerate(items)]
        kinds = {kind(item) for item in items}
        if len(kinds) > 1:
            raise ValueError(f"{name}: found {' and '.join(sorted(kinds))} in one list, expected one kind")
        self._remember(name, "a list" if several else next(iter(kinds)), next(iter(kinds), None))
        return {**checked, "labels": sorted(set(labels)), "several": several}

    def _remember(self, name: str, shape: str, kind: str | None) -> None:
        """Take over the kind of the first row; an empty list says nothing of the kind of its labels."""
        of = "list" if shape == "a list" else "label"
        found = shape if of == "list" else kind
        if self.shape is not None and of != self.shape:
            before = f"the rows before have {_WORDS[self.shape]}{first_in(self._shape_place)}"
            raise ValueError(f"{name}: found {found}, but {before}")
        if kind is not None and self.kind is not None and kind != self.kind:
            before = f"the labels before are of the kind {self.kind}{first_in(self._kind_place)}"
            raise ValueError(f"{name}: found {kind}, but {before}")
        if self.shape is None:
            self.shape, self._shape_place = of, self._place
        if self.kind is None and kind is not None:
            self.kind, self._kind_place = kind, self._place

    def knowing(self, labels: Labels) -> Check:
        """Return the check of held-out rows, whose labels must be among those that are learnt."""
        known = set(labels.names)

        def check(row: dict[str, Any]) -> dict[str, Any]:
            checked = self(row)
            for label in checked["labels"]:
                if label not in known:
                    names = ", ".join(labels.names[:_SHOWN_LABELS]) + (", …" if len(known) > _SHOWN_LABELS else "")
                    raise ValueError(
                        f"{_field_in(row)}: found {shown(label)}, which no training row has; those have {names}"
                    )
            return checked

        return check


def _field_in(row: dict[str, Any]) -> str:
    """Return the name of the field in which a row has its label or labels."""
    return "labels" if "label" not in row and "labels" in row else "label"


def _label(value: Any, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        hint = "; write true and false as text" if isinstance(value, bool) else ""
        what = f"the number {value}" if isinstance(value, float) else kind(value)
        raise ValueError(f"{name}: found {what}, expected text or a whole number{hint}")  # noqa: TRY004
    return str(value) if isinstance(value, int) else text_of(value, name).strip()


def _labels_of(row: bytes) -> list[str]:
    labels: list[str] = load(row)["labels"]
    return labels


def _prompt_of(row: bytes) -> bytes:
    loaded = load(row)
    return normal_form([loaded["text"], loaded.get("text_pair", "")])
