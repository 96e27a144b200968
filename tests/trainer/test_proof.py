"""The proof lets a right export through, and no wrong one."""

import json
import math
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from strop_trainer.documents import ProofEntry
from strop_trainer.export.genai import export_onnx
from strop_trainer.export.reference import Greedy, Reference, run_reference
from strop_trainer.heads.encoder_proof import LabelProof, label_bounds
from strop_trainer.plan import OnnxPrecision, ProofPlan
from strop_trainer.proof import (
    Answer,
    Measured,
    ProofResult,
    bounds,
    complaints,
    measure,
    number,
    prove,
    tie_of,
    with_scores,
)
from strop_trainer.proof_rows import Kept, ProofRow, read, taken
from strop_trainer.tasks import task_named
from strop_trainer.tasks.base import Question
from tests.support.models import tiny_llama, tiny_tokenizer
from tests.support.records import MEASURED

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]

END = 2
LIMITS = ProofPlan()


# --- judging: which numbers pass ---------------------------------------------------------------------------------


def judge(precision: OnnxPrecision, measured: Measured, limits: ProofPlan) -> list[str]:
    return complaints(bounds(precision, measured, limits), finite=measured.finite)


def test_what_measures_well_passes() -> None:
    precisions: tuple[OnnxPrecision, ...] = ("fp32", "int8", "int4")
    for precision in precisions:
        assert judge(precision, MEASURED, LIMITS) == []


@pytest.mark.parametrize(
    ("precision", "change", "expected"),
    [
        ("fp32", {"max_logit_difference": 0.02}, "largest logit difference: found 0.02, expected at most 0.005"),
        ("fp32", {"token_agreement": 0.99}, "token agreement: found 0.99, expected at least 1"),
        ("fp32", {"greedy_agreement": 0.5}, "greedy agreement: found 0.5, expected at least 1"),
        ("fp32", {"exact_match_onnx": 0.2}, "exact match: found 0.2, expected at least 0.35"),
        ("int4", {"perplexity_onnx": 1.6}, "perplexity ratio: found 1.333, expected at most 1.25"),
        ("int4", {"token_accuracy_onnx": 0.7}, "token accuracy: found 0.7, expected at least 0.75"),
        ("int8", {"exact_match_onnx": 0.0}, "exact match: found 0, expected at least 0.35"),
    ],
)
def test_each_bound_holds_on_its_own(precision: OnnxPrecision, change: dict[str, Any], expected: str) -> None:
    assert judge(precision, replace(MEASURED, **change), LIMITS) == [expected]


def test_a_summary_says_what_each_precision_was_judged_by() -> None:
    moved = replace(MEASURED, max_logit_difference=11.0, perplexity_onnx=1.23)
    found = ProofResult("onnx-int4", "int4", moved, (), (), tuple(bounds("int4", moved, LIMITS))).summary()
    assert found.judged_by == [
        "perplexity ratio 1.025 (at most 1.25)",
        "exact match 0.5 (at least 0.35)",
        "token accuracy 0.9 (at least 0.75)",
    ]
    exact = ProofResult("onnx", "fp32", MEASURED, (), (), tuple(bounds("fp32", MEASURED, LIMITS))).summary()
    assert exact.judged_by[:3] == [
        "largest logit difference 0.0001 (at most 0.005)",
        "token agreement 1 (at least 1)",
        "greedy agreement 1 (at least 1)",
    ]
    measured = ({"f1": 0.8, "mcc": math.nan}, {"f1": 0.75, "mcc": math.nan})
    judged = tuple(label_bounds("int8", 2.0, 0.97, measured, LIMITS))
    labels = LabelProof("onnx-int8", "int8", 20, 2.0, 0.97, *measured, (), (), judged).summary()
    assert labels.judged_by == ["f1 0.75 (at least 0.65)"]


def test_what_both_answered_is_scored_by_the_task() -> None:
    answers = (Answer("a strop", "a strop", "a strap"), Answer("yes", "no", "yes indeed"))
    questions = [
        Question([1], "What?", "a strop", [1], others=("a strap",)),
        Question([1], "Is it?", "yes", [1]),
    ]
    found = ProofResult("onnx", "fp32", MEASURED, (), answers)
    scored = with_scores(found, questions, task_named("question-answering").score).to_json()
    assert scored["scores_pytorch"] == {"exact_match": 0.5, "f1": 0.5}
    assert scored["scores_onnx"] == {"exact_match": 0.5, "f1": pytest.approx(5 / 6, abs=1e-5)}
    assert ProofEntry.model_validate(scored).scores_onnx["exact_match"] == 0.5
    assert with_scores(replace(found, answers=()), questions, task_named("chat").score).scores_onnx == {}


def test_quantized_weights_may_move_logits_but_not_fp32_ones() -> None:
    moved = replace(MEASURED, max_logit_difference=11.0, token_agreement=0.97, greedy_agreement=0.9)
    assert judge("int4", moved, LIMITS) == []
    assert len(judge("fp32", moved, LIMITS)) == 3


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_never_passes(precision: OnnxPrecision, value: float) -> None:
    used = "max_logit_difference" if precision == "fp32" else "perplexity_onnx"
    assert judge(precision, replace(MEASURED, **{used: value}), LIMITS)  # type: ignore[arg-type]
    assert judge(precision, replace(MEASURED, exact_match_onnx=math.nan), LIMITS)
    assert judge("fp32", replace(MEASURED, greedy_agreement=math.nan), LIMITS)
    assert judge(precision, replace(MEASURED, finite=False), LIMITS) == ["logits: found some that are not a number"]


def test_json_has_no_nan() -> None:
    assert number(math.nan) is None
    assert number(math.inf) is None
    assert number(0.123456789) == 0.123457
    result = ProofResult("onnx", "fp32", replace(MEASURED, perplexity_onnx=math.inf), ("x",))
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["perplexity_ratio"] is None
    assert result.summary().perplexity_ratio is None


# --- measuring: small logits by hand -----------------------------------------------------------------------------


def one_row(ours: list[list[float]], theirs: list[list[float]], free: list[int] | None = None) -> Measured:
    """Measure a row of a prompt of one token and an answer `1, END`, over a vocabulary of three."""
    row, ends = ProofRow([0, 1, END, 0], 1, "one"), frozenset({END})
    behind = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    expected, found = (
        read(row, np.array([*side, *behind], dtype=np.float32), Kept(4, tie_of(LIMITS)), ends)
        for side in (ours, theirs)
    )
    greedy = Greedy([1, END], np.array(ours, dtype=np.float32))
    reference = Reference([expected], [greedy], ends, None)
    return measure([row], reference, [found], [free or [1, END]], LIMITS)


RIGHT = [[0.0, 5.0, 0.0], [0.0, 0.0, 5.0]]


def test_the_same_logits_agree_in_everything() -> None:
    found = one_row(RIGHT, RIGHT)
    assert found.max_logit_difference == 0
    assert found.answer_tokens == 2  # the token behind the end of the answer does not count
    assert found.token_agreement == found.greedy_agreement == found.exact_match_onnx == found.token_accuracy_onnx == 1
    assert found.perplexity_onnx == pytest.approx(1 + 2 * math.exp(-5))
    assert found.perplexity_ratio == 1


def test_another_token_is_a_disagreement() -> None:
    found = one_row(RIGHT, [[0.0, 5.0, 0.0], [6.0, 0.0, 5.0]], free=[1, 0])
    assert (found.token_agreement, found.greedy_agreement, found.exact_match_onnx) == (0.5, 0.5, 0.0)
    assert (found.exact_match_pytorch, found.token_accuracy_onnx) == (1.0, 0.5)
    assert found.max_logit_difference == 6


def test_a_tie_within_the_tolerance_may_go_either_way() -> None:
    tie = [[0.0, 5.0, 0.0], [0.0, 4.999, 5.0]]
    found = one_row(tie, [[0.0, 5.0, 0.0], [0.0, 5.001, 5.0]], free=[1, 1, 0, 0])
    assert (found.token_agreement, found.greedy_agreement) == (1.0, 1.0)


def test_a_free_answer_that_goes_on_is_a_disagreement() -> None:
    assert one_row(RIGHT, RIGHT, free=[1, END, 0, 0]).greedy_agreement == 0.5
    assert one_row(RIGHT, RIGHT, free=[1]).greedy_agreement == 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_seen(value: float) -> None:
    found = one_row(RIGHT, [[0.0, 5.0, value], [0.0, 0.0, 5.0]])
    assert not found.finite
    assert judge("int4", found, LIMITS)


# --- proving: a real model, really exported ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model") / "merged", seed=3)


@pytest.fixture(scope="module")
def exported(merged: Path) -> dict[OnnxPrecision, Path]:
    folders: dict[OnnxPrecision, Path] = {}
    for precision in ("fp32", "int8", "int4"):
        folders[precision] = merged.parent / f"onnx-{precision}"
        export_onnx(merged, folders[precision], precision)
    return folders


@pytest.fixture
def rows() -> list[ProofRow]:
    tokenizer = tiny_tokenizer()
    found = []
    for question in ("What is red?", "one two three", "The lazy dog", "yes no"):
        messages = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        found.append(ProofRow([*prompt, *tokenizer("red green<|im_end|>\n")["input_ids"]], len(prompt), "red green"))
    return found


def test_pytorch_says_of_rows_that_it_reads_together_what_it_says_of_each_alone(merged: Path) -> None:
    rows = [ProofRow([7 + (at * length) % 400 for at in range(length)], length // 2, "") for length in (30, 500, 9, 31)]
    kept = Kept(20, tie_of(LIMITS))
    together = run_reference(merged, rows, [], kept, 4).readings
    for row, found in zip(rows, together, strict=True):
        (alone,) = run_reference(merged, [row], [], kept, 4).readings
        assert found.logits.shape == alone.logits.shape
        np.testing.assert_allclose(found.logits, alone.logits, atol=1e-5)
        assert found.losses == pytest.approx(alone.losses, abs=1e-5)
        assert (found.chosen, found.hits) == (alone.chosen, alone.hits)


def damaged(folder: Path, out: Path, change: str) -> Path:
    """Return a copy of an export with one weight matrix changed."""
    shutil.copytree(folder, out)
    model = onnx.load(str(out / "model.onnx"))
    for tensor in model.graph.initializer:
        if tensor.name == "model.layers.1.mlp.down_proj.MatMul.weight":
            weights = numpy_helper.to_array(tensor).copy()
            if change == "one weight":
                weights[3, 5] += 1.0
            elif change == "nan":
                weights[3, 5] = np.nan
            else:
                weights = weights[::-1].copy()
            tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
            break
    else:
        pytest.fail("the weight is not there")
    (out / "model.onnx").unlink()
    (out / "model.onnx.data").unlink()
    onnx.save(model, str(out / "model.onnx"), save_as_external_data=True, location="model.onnx.data")
    return out


def test_right_exports_are_proven(merged: Path, exported: dict[OnnxPrecision, Path], rows: list[ProofRow]) -> None:
    found = prove(merged, exported, rows, LIMITS, 8)
    assert [(result.artifact, result.precision, result.passed, result.reasons) for result in found] == [
        (f"onnx-{precision}", precision, True, ()) for precision in ("fp32", "int8", "int4")
    ]
    assert found[0].measured.max_logit_difference < 1e-5
    assert found[0].measured.rows == 4
    assert found[0].measured.positions == sum(len(row.input_ids) for row in rows)
    assert len(found[0].answers) == 2
    assert found[0].answers[0].pytorch == found[0].answers[0].onnx
    assert found[2].measured.max_logit_difference > found[1].measured.max_logit_difference > 1e-4


@pytest.mark.parametrize("change", ["one weight", "nan", "reversed"])
def test_a_damaged_export_is_not_proven(
    merged: Path, exported: dict[OnnxPrecision, Path], rows: list[ProofRow], tmp_path: Path, change: str
) -> None:
    folder = damaged(exported["fp32"], tmp_path / "onnx", change)
    (found,) = prove(merged, {"fp32": folder}, rows, LIMITS, 4)
    assert not found.passed
    expected = "not a number" if change == "nan" else "largest logit difference: found"
    assert any(expected in reason for reason in found.reasons)
    assert not found.summary().passed


@pytest.mark.parametrize(("claimed", "really"), [("fp32", "int4"), ("int4", "fp32"), ("int8", "int4")])
def test_weights_of_another_precision_are_not_proven(
    merged: Path,
    exported: dict[OnnxPrecision, Path],
    rows: list[ProofRow],
    claimed: OnnxPrecision,
    really: OnnxPrecision,
) -> None:
    (found,) = prove(merged, {claimed: exported[really]}, rows, LIMITS, 4)
    assert found.reasons[0] == f"weights: found {really}, expected {claimed}"


def test_the_export_of_another_model_is_not_proven(
    exported: dict[OnnxPrecision, Path], rows: list[ProofRow], tmp_path: Path
) -> None:
    other = tiny_llama(tmp_path / "other", seed=4)
    (found,) = prove(other, {"fp32": exported["fp32"]}, rows, LIMITS, 4)
    assert not found.passed


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "genai_config.json"])
def test_an_export_that_does_not_run_is_not_proven(
    merged: Path, exported: dict[OnnxPrecision, Path], rows: list[ProofRow], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "onnx"
    shutil.copytree(exported["fp32"], folder)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    (found,) = prove(merged, {"fp32": folder}, rows, LIMITS, 4)
    assert found.reasons[0].startswith("ONNX Runtime cannot run it: ")
    assert found.to_json()["max_logit_difference"] is None


def test_long_rows_are_compared_over_their_last_positions(
    merged: Path, exported: dict[OnnxPrecision, Path], rows: list[ProofRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop_trainer.proof.PROOF_LOGITS_BYTES", 4 * 512 * 2 * 6)
    (found,) = prove(merged, {"fp32": exported["fp32"]}, rows, LIMITS.model_copy(update={"rows": 2}), 4)
    assert found.passed
    assert found.measured.positions == 12
    # Perplexity and metrics are of whole answers all the same.
    longest = [ProofRow(row.input_ids, 1, row.reference) for row in rows[:2]]
    (whole,) = prove(merged, {"fp32": exported["fp32"]}, longest, LIMITS, 4)
    assert whole.measured.positions == 12
    ends = frozenset({tiny_tokenizer().eos_token_id})
    assert whole.measured.answer_tokens == sum(row.answer_end(ends) - 1 for row in longest) > 12


def test_without_a_row_nothing_is_proven(merged: Path, exported: dict[OnnxPrecision, Path]) -> None:
    with pytest.raises(ValueError, match="found no held-out row with an answer among 1"):
        prove(merged, exported, [ProofRow([1, 2], 2, "")], LIMITS, 4)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([60] * 100, 32),  # one answer of 32 is 0.03 of a metric, of 8 it was nearly the whole of what is allowed
        ([60] * 20, 20),
        ([256] * 100, 16),
        ([4096] * 100, 8),
        ([4096] * 5, 5),
        ([60] * 10 + [4096] * 90, 10),
        ([], 0),
    ],
)
def test_short_rows_are_many_and_long_ones_few(lengths: list[int], expected: int) -> None:
    assert taken(lengths, LIMITS) == expected


def test_reading_a_long_answer_takes_little_beside_its_logits() -> None:
    logits = np.random.default_rng(0).standard_normal((1024, 8192), dtype=np.float32)
    row = ProofRow([position % 8192 for position in range(1024)], 1, "")
    tracemalloc.start()
    found = read(row, logits, Kept(4, 0.01), frozenset())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.losses) == len(found.chosen) == len(found.near) == len(found.hits) == 1023
    assert found.logits.shape == (4, 8192)
    assert peak < logits.nbytes / 8, "several times as much, if it were done at once"
