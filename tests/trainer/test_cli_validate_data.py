"""`strop validate --data` with the trainer: rows are tried as the model's tokens, and no weights are read."""

import json
from pathlib import Path
from typing import Any

import pytest

from strop.cli import rows_as_tokens
from strop_trainer.exit_codes import ExitCode
from tests.support.cli import Answer, Strop, config_map, runner, write
from tests.support.data import chat_row, chat_rows, preference_rows
from tests.support.models import CHAT_TEMPLATE, tiny_encoder, tiny_encoder_decoder, tiny_images, tiny_llama
from tests.support.planning import manifest_of

pytestmark = pytest.mark.trainer

KNOWS_NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + (
    CHAT_TEMPLATE
)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A claim of models; what stands in the place of their weights cannot be read."""
    volume = tmp_path_factory.mktemp("models")
    for make, name in ((tiny_llama, "llama"), (tiny_encoder, "bert")):
        make(volume / name)
    tiny_encoder_decoder(volume / "nllb", "nllb")
    tiny_images(volume / "images")
    (tiny_llama(volume / "strict") / "chat_template.jinja").write_text(KNOWS_NO_SYSTEM, encoding="utf-8")
    for name in ("llama", "bert", "nllb", "strict"):
        (volume / name / "model.safetensors").write_bytes(b"no weights")
    return volume


@pytest.fixture
def strop(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Strop:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return runner(monkeypatch, capfd)


def validate(strop: Strop, volume: Path, folder: Path, model: str, rows: list[dict[str, Any]], **fields: Any) -> Answer:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    fields = {"model__source": f"pvc://models/{model}", "model__parameters": "1M", "training__maxLength": 64} | fields
    file = write(folder / "job.yaml", manifest_of(**fields), config_map(train__jsonl=lines))
    return strop("validate", "--data", file, "--volume", f"models={volume}")


def test_the_lengths_of_rows_are_told_and_how_many_exceed_the_maximum(
    strop: Strop, volume: Path, tmp_path: Path
) -> None:
    rows = [*chat_rows(18), *(chat_row(f"What is {n}?", "red " * 100) for n in range(2))]
    answer = validate(strop, volume, tmp_path, "llama", rows, dataset__validationSplit=0.1)
    assert answer.code == 0, answer
    assert answer.out.startswith("team-a/job: valid; ")
    assert "; half of the 18 sequences have up to " in answer.out
    assert "exceed the maximum of 64, by " in answer.out
    assert answer.out.count("\n") == 1  # of what the trainer says on the way, nothing
    assert answer.err == ""


def test_rows_for_several_ranks_are_tried_in_one_process(strop: Strop, volume: Path, tmp_path: Path) -> None:
    ranks = {"processesPerNode": 2, "strategy": "zero-3"}
    answer = validate(strop, volume, tmp_path, "llama", chat_rows(20), distributed=ranks)
    assert answer.code == 0, answer
    assert answer.out.count("; half of the 18 sequences") == 1
    assert answer.out.endswith("; none is longer than the maximum of 64\n")


def test_a_row_that_the_chat_template_refuses_is_told_by_its_line(strop: Strop, volume: Path, tmp_path: Path) -> None:
    rows = [*chat_rows(11), chat_row("What is red?", "red", system="Be brief."), *chat_rows(4, seed=1)]
    answer = validate(strop, volume, tmp_path, "strict", rows)
    assert (answer.code, answer.out) == (ExitCode.BAD_DATA, ""), answer
    assert answer.err.startswith("team-a/job: ")
    assert "line 12: the model's chat template refuses a row: no system here" in answer.err
    assert "configmap://rows/train.jsonl" in answer.err


def test_pairs_that_are_alike_within_the_maximum_are_told_by_their_line(
    strop: Strop, volume: Path, tmp_path: Path
) -> None:
    alike = {"prompt": "Which?", "chosen": "red " * 100 + "yes", "rejected": "red " * 100 + "no"}
    answer = validate(strop, volume, tmp_path, "llama", [*preference_rows(9), alike], task="preference")
    assert (answer.code, answer.out) == (ExitCode.BAD_DATA, ""), answer
    assert "line 10: chosen and rejected: found no difference in the first 64 tokens (training.maxLength)" in answer.err


def test_prompts_that_leave_no_room_for_an_answer_are_told(strop: Strop, volume: Path, tmp_path: Path) -> None:
    rows = [chat_row(f"{n} " + "What is red? " * 100, "red") for n in range(20)]
    answer = validate(strop, volume, tmp_path, "llama", rows)
    assert (answer.code, answer.out) == (ExitCode.BAD_DATA, ""), answer
    assert "line 1: found 5" in answer.err
    assert "tokens in front of the first answer, expected fewer than 64 (training.maxLength)" in answer.err


def test_a_language_that_the_model_lacks_is_told_by_its_line(strop: Strop, volume: Path, tmp_path: Path) -> None:
    rows = [
        {"source": f"the red fox {n}", "target": f"one fox {n}", "source_language": "en", "target_language": "de"}
        for n in range(10)
    ]
    answer = validate(strop, volume, tmp_path, "nllb", rows, task="translation")
    assert answer.code == 0, answer
    assert "none is longer than the maximum of 64" in answer.out
    answer = validate(strop, volume, tmp_path, "nllb", [*rows, rows[0] | {"target_language": "fr"}], task="translation")
    assert (answer.code, answer.out) == (ExitCode.BAD_DATA, ""), answer
    assert "line 11: target_language: " in answer.err


def test_rows_with_labels_are_tried_as_tokens(strop: Strop, volume: Path, tmp_path: Path) -> None:
    rows = [{"text": f"the red fox {n}", "label": "fox" if n % 2 else "dog"} for n in range(20)]
    answer = validate(strop, volume, tmp_path, "bert", rows, task="text-classification")
    assert answer.code == 0, answer
    assert "; half of the 18 sequences have up to 6 tokens, " in answer.out
    assert "; none is longer than the maximum of 64" in answer.out


def test_a_text_part_is_not_cut_out_to_try_rows(strop: Strop, volume: Path, tmp_path: Path) -> None:
    answer = validate(strop, volume, tmp_path, "images", chat_rows(20))
    assert answer.code == 0, answer
    assert "; rows not tried as tokens: the text part of the model would have to be cut out" in answer.out
    assert "sequences" not in answer.out


def test_a_trainer_that_ends_without_a_word_is_told_with_what_it_said(
    strop: Strop, volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_as_tokens, "MODULE", "no_such_module")
    answer = validate(strop, volume, tmp_path, "llama", chat_rows(20))
    assert (answer.code, answer.out) == (1, ""), answer
    assert "team-a/job: rows as tokens: the trainer ended with 1 and no last word" in answer.err
    assert "No module named no_such_module" in answer.err
