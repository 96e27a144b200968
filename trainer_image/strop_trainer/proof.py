"""The proof: an export answers as PyTorch does, on held-out rows, or it is not published."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from strop_trainer.export.reference import Greedy, Reference, decode, run_reference
from strop_trainer.export.runners import AnswerRunner, LogitsRunner, weight_precision
from strop_trainer.plan import PROOF_LOGITS_BYTES, OnnxPrecision, ProofPlan
from strop_trainer.proof_rows import Kept, ProofRow, Reading, perplexity, read, taken
from strop_trainer.tasks.base import Question
from strop_trainer.termination import ProofSummary

Score = Callable[[Sequence[str], Sequence[Sequence[str]]], dict[str, float]]
FREE_ROWS = 2
"""Rows that are also answered freely, token by token; the others are compared position by position."""
NOT_FINITE = "logits: found some that are not a number"


@dataclass(frozen=True)
class Adapted:
    """An adapter file, in its folder of the version, and the base graphs that it is for."""

    adapter: Path
    bases: Mapping[OnnxPrecision, Path]


@dataclass(frozen=True)
class _Export:
    """What is run, under the name of its folder in the version."""

    artifact: str
    precision: OnnxPrecision
    folder: Path
    adapter: Path | None = None


@dataclass(frozen=True)
class Answer:
    """One prompt, answered freely by both."""

    reference: str
    pytorch: str
    onnx: str


@dataclass(frozen=True)
class Measured:
    """What both models did on the same rows. Shares are in 0..1."""

    rows: int
    positions: int
    """Positions whose logits were compared."""
    answer_tokens: int
    finite: bool
    """Whether every logit of both is a number."""
    max_logit_difference: float
    token_agreement: float
    """Answer positions at which both choose the same token after the same text."""
    greedy_agreement: float
    """Tokens of free answers that are the same up to the first difference."""
    perplexity_pytorch: float
    perplexity_onnx: float
    exact_match_pytorch: float
    """Rows whose reference answer is what the model says, token by token."""
    exact_match_onnx: float
    token_accuracy_pytorch: float
    """Answer tokens that the model predicts."""
    token_accuracy_onnx: float

    @property
    def perplexity_ratio(self) -> float:
        """Perplexity of the export over PyTorch's."""
        return self.perplexity_onnx / self.perplexity_pytorch


@dataclass(frozen=True)
class Bound:
    """One number that an export is judged by. What is not a number is within no bound."""

    name: str
    found: float
    relation: Literal["at least", "at most"]
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the number is within the bound, but for rounding."""
        if self.relation == "at least":
            return self.found >= self.limit - 1e-9
        return self.found <= self.limit + 1e-9

    @property
    def complaint(self) -> str:
        """What is said where it is not."""
        return f"{self.name}: found {self.found:.4g}, expected {self.relation} {self.limit:.4g}"

    def __str__(self) -> str:
        """Return number and limit."""
        return f"{self.name} {self.found:.4g} ({self.relation} {self.limit:.4g})"


class Proof(ABC):
    """One export, proven or not."""

    artifact: str
    reasons: tuple[str, ...]
    answers: tuple[Answer, ...]
    judged_by: tuple[Bound, ...]

    @property
    def passed(self) -> bool:
        """Whether the export may be published."""
        return not self.reasons

    @abstractmethod
    def summary(self) -> ProofSummary:
        """Return what goes to the termination message."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; what is not a number is null."""


@dataclass(frozen=True)
class ProofResult(Proof):
    """The export of a model that answers in words."""

    artifact: str
    """Folder in the version, such as `onnx` or `onnx-int4`."""
    precision: OnnxPrecision
    measured: Measured
    reasons: tuple[str, ...]
    """Why it did not pass, in words; empty where it did."""
    answers: tuple[Answer, ...] = ()
    judged_by: tuple[Bound, ...] = ()
    scores_pytorch: Mapping[str, float] = field(default_factory=dict)
    """The task's metrics of `answers`; empty where it has none."""
    scores_onnx: Mapping[str, float] = field(default_factory=dict)
    template: str | None = None
    """Why ONNX Runtime GenAI renders a prompt otherwise than transformers; empty where it does not, None: not tried."""

    def summary(self) -> ProofSummary:
        """Return what goes to the termination message."""
        return ProofSummary(
            artifact=self.artifact,
            passed=self.passed,
            max_logit_difference=number(self.measured.max_logit_difference),
            token_agreement=number(min(self.measured.token_agreement, self.measured.greedy_agreement)),
            perplexity_ratio=number(self.measured.perplexity_ratio),
            judged_by=list(map(str, self.judged_by)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; what is not a number is null."""
        measured = {
            key: number(value) if isinstance(value, float) else value for key, value in asdict(self.measured).items()
        }
        return {
            "artifact": self.artifact,
            "precision": self.precision,
            "passed": self.passed,
            "reasons": list(self.reasons),
            "judged_by": list(map(str, self.judged_by)),
            **measured,
            "perplexity_ratio": number(self.measured.perplexity_ratio),
            "scores_pytorch": {name: number(value) for name, value in self.scores_pytorch.items()},
            "scores_onnx": {name: number(value) for name, value in self.scores_onnx.items()},
            "chat_template": self.template,
            "answers": [asdict(answer) for answer in self.answers],
        }


def number(value: float) -> float | None:
    """Return a number to six digits, or None for what is none: JSON has no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def prove(
    merged: Path,
    exports: Mapping[OnnxPrecision, Path],
    rows: Sequence[ProofRow],
    limits: ProofPlan,
    max_new_tokens: int,
    *,
    adapted: Adapted | None = None,
) -> list[ProofResult]:
    """Run PyTorch in fp32 and each export on the same held-out rows, and compare.

    PyTorch is done before the first export is loaded, so that the two need not fit in memory together.

    Args:
        merged: Hugging Face folder of the merged model.
        exports: precision → folder that `export_onnx` made, named as in the version.
        rows: held-out rows; the first `limits.rows` are used, fewer where they are long.
        limits: what must be reached.
        max_new_tokens: length of a free answer at most.
        adapted: the adapter on base graphs, held to the merged model as well.

    Raises:
        ValueError: there is no row with an answer to compare.
    """
    import torch  # noqa: PLC0415 - seconds, only where it is used

    answered = [row for row in rows if row.prompt_length < len(row.input_ids)]
    used = answered[: taken([len(row.input_ids) for row in answered], limits)]
    if not used:
        raise ValueError(f"proof: found no held-out row with an answer among {len(rows)}, expected at least one")
    kept = Kept(kept_positions(merged, len(used)))
    prompts = [row.input_ids[: row.prompt_length] for row in used[:FREE_ROWS]]
    reference = run_reference(merged, used, prompts, replace(kept, tie=tie_of(limits)), max_new_tokens)
    threads = torch.get_num_threads()
    results = []
    tried = [_Export(folder.name, precision, folder) for precision, folder in exports.items()]
    if adapted is not None:
        file = adapted.adapter
        tried += [_Export(file.parent.name, precision, base, file) for precision, base in adapted.bases.items()]
    for export in tried:
        try:
            found = weight_precision(export.folder)
            runner = LogitsRunner(export.folder, threads, export.adapter)
            readings = [
                read(row, runner.logits(row.input_ids, row.needed(kept)), kept, reference.end_tokens) for row in used
            ]
            del runner
            answerer = AnswerRunner(export.folder, threads, export.adapter)
            free = [answerer.greedy(prompt, max_new_tokens) for prompt in prompts]
            # A base graph brings the base model's template, not the adapter's.
            template = (
                _compare_templates(answerer, reference.tokenizer, used[0].messages) if export.adapter is None else None
            )
            del answerer
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever keeps an export from running, it is not proven
            results.append(not_run(export.artifact, export.precision, len(used), error))
            continue
        weights = (export.precision, found)
        result = judge(export.artifact, weights, used, reference, readings, free, limits)
        results.append(replace(result, template=template))
    return results


def kept_positions(merged: Path, rows: int) -> int:
    """Return how many positions of each row keep their logits, so that those of all rows fit the budget."""
    from transformers import AutoConfig  # noqa: PLC0415

    vocabulary = int(AutoConfig.from_pretrained(merged, local_files_only=True).vocab_size)
    return max(1, PROOF_LOGITS_BYTES // (4 * vocabulary * rows))


def judge(  # noqa: PLR0917 - both sides, and what they are held to
    artifact: str,
    weights: tuple[OnnxPrecision, str],
    rows: Sequence[ProofRow],
    reference: Reference,
    readings: Sequence[Reading],
    free: Sequence[Sequence[int]],
    limits: ProofPlan,
) -> ProofResult:
    """Return the proof of an export that has run.

    Args:
        artifact: its folder in the version.
        weights: their precision as asked for, and as found in the graph.
        rows: what both models read.
        reference: PyTorch's side.
        readings: the export's, one a row.
        free: the export's greedy answers, as tokens.
        limits: what must be reached.
    """
    precision, found = weights
    measured = measure(rows, reference, readings, free, limits)
    judged_by = tuple(bounds(precision, measured, limits))
    reasons = complaints(judged_by, finite=measured.finite)
    if found != precision:
        reasons = [f"weights: found {found}, expected {precision}", *reasons]
    answers = [
        Answer(row.reference, decode(reference.tokenizer, ours.tokens), decode(reference.tokenizer, theirs))
        for row, ours, theirs in zip(rows, reference.greedy, free, strict=False)
    ]
    return ProofResult(artifact, precision, measured, tuple(reasons), tuple(answers), judged_by)


def with_scores(result: ProofResult, questions: Sequence[Question], score: Score) -> ProofResult:
    """Return a proof with the task's metrics of what both models answered freely.

    Args:
        result: of an export.
        questions: held-out rows, the answered ones among them.
        score: answers, right ones of each → metrics.
    """
    right = {question.reference: question.references for question in questions}
    references = [right.get(answer.reference, (answer.reference,)) for answer in result.answers]
    if not references:
        return result
    return replace(
        result,
        scores_pytorch=score([answer.pytorch for answer in result.answers], references),
        scores_onnx=score([answer.onnx for answer in result.answers], references),
    )


def not_run(artifact: str, precision: OnnxPrecision, rows: int, error: Exception) -> ProofResult:
    """Return the proof of an export that does not run."""
    why = f"ONNX Runtime cannot run it: {str(error).strip().splitlines()[0] if str(error) else error!r}"
    return ProofResult(artifact, precision, _nothing(rows), (why,))


def _compare_templates(answerer: AnswerRunner, tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why ONNX Runtime GenAI's own engine renders a prompt otherwise than transformers; "" where it does not."""
    if not messages:
        return None
    expected = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    try:
        found = answerer.render(messages)
    except Exception as error:  # noqa: BLE001 - whatever its engine does not know
        return f"it cannot render it: {(str(error).strip() or repr(error)).splitlines()[0][:200]}"
    same = next((at for at, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), None)
    if same is None and len(found) == len(expected):
        return ""
    at = min(len(found), len(expected)) if same is None else same
    return f"it renders {found[at : at + 40]!r} where transformers renders {expected[at : at + 40]!r}"


def _nothing(rows: int) -> Measured:
    """Return what is measured of a model that does not run."""
    none = math.nan
    return Measured(rows, 0, 0, False, none, none, none, none, none, none, none, none, none)  # noqa: FBT003


def complaints(judged_by: Sequence[Bound], *, finite: bool) -> list[str]:
    """Return why an export that is judged by these bounds does not pass; `finite`: whether all logits are numbers."""
    return [bound.complaint for bound in judged_by if not bound.holds] if finite else [NOT_FINITE]


def bounds(precision: OnnxPrecision, measured: Measured, limits: ProofPlan) -> list[Bound]:
    """Return what an export is judged by: fp32 by its logits and tokens, what is quantized by its perplexity."""
    drop = limits.metric_drop
    metrics = [
        Bound("exact match", measured.exact_match_onnx, "at least", measured.exact_match_pytorch - drop),
        Bound("token accuracy", measured.token_accuracy_onnx, "at least", measured.token_accuracy_pytorch - drop),
    ]
    if precision != "fp32":
        ratio = measured.perplexity_ratio
        return [Bound("perplexity ratio", ratio, "at most", limits.quantized_perplexity_ratio), *metrics]
    return [
        Bound("largest logit difference", measured.max_logit_difference, "at most", limits.fp32_logits_tolerance),
        Bound("token agreement", measured.token_agreement, "at least", limits.fp32_token_agreement),
        Bound("greedy agreement", measured.greedy_agreement, "at least", limits.fp32_token_agreement),
        *metrics,
    ]


def measure(
    rows: Sequence[ProofRow],
    reference: Reference,
    readings: Sequence[Reading],
    free: Sequence[Sequence[int]],
    limits: ProofPlan,
) -> Measured:
    """Compare both models' logits and free answers.

    Two tokens whose logits in PyTorch differ by less than twice the tolerance are a tie, and either is right: an error
    within the tolerance may turn them around.

    Args:
        rows: what both models read.
        reference: PyTorch's side.
        readings: the export's, one a row, of the same positions.
        free: the export's greedy answers, as tokens.
        limits: for the tolerance.
    """
    import numpy as np  # noqa: PLC0415

    finite = all(reading.finite for reading in (*reference.readings, *readings))
    pairs = list(zip(reference.readings, readings, strict=True))
    difference = max(float(np.abs(ours.logits - theirs.logits).max()) for ours, theirs in pairs) if finite else math.inf
    agreed = [token in near for ours, theirs in pairs for token, near in zip(theirs.chosen, ours.near, strict=True)]
    count = max(1, len(agreed))
    return Measured(
        rows=len(rows),
        positions=sum(len(reading.logits) for reading in reference.readings),
        answer_tokens=len(agreed),
        finite=finite,
        max_logit_difference=difference,
        token_agreement=sum(agreed) / count,
        greedy_agreement=_free_agreement(reference.greedy, free, tie_of(limits)),
        perplexity_pytorch=perplexity([loss for reading in reference.readings for loss in reading.losses]),
        perplexity_onnx=perplexity([loss for reading in readings for loss in reading.losses]),
        exact_match_pytorch=sum(all(reading.hits) for reading in reference.readings) / len(rows),
        exact_match_onnx=sum(all(reading.hits) for reading in readings) / len(rows),
        token_accuracy_pytorch=sum(sum(reading.hits) for reading in reference.readings) / count,
        token_accuracy_onnx=sum(sum(reading.hits) for reading in readings) / count,
    )


def tie_of(limits: ProofPlan) -> float:
    """Return by how much two logits differ at most of which an error within the tolerance can turn the order."""
    return 2 * limits.fp32_logits_tolerance


def _free_agreement(expected: Sequence[Greedy], found: Sequence[Sequence[int]], tie: float) -> float:
    """Share of tokens up to the first difference; behind a tie, the answers may rightly part."""
    same = total = 0
    for answer, tokens in zip(expected, found, strict=True):
        length = max(len(answer.tokens), len(tokens))
        for step in range(length):
            if step >= len(answer.tokens) or step >= len(tokens):
                total += length - step
                break
            if answer.tokens[step] != tokens[step]:
                gap = float(answer.logits[step].max() - answer.logits[step][tokens[step]])
                if gap <= tie:
                    same, total = same + 1, total + 1
                else:
                    total += length - step
                break
            same, total = same + 1, total + 1
    return same / total if total else 1.0
