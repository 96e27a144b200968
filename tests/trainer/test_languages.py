"""Languages of rows as tokens: NLLB, M2M100, mBART and mBART-50."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.export.encoder_decoder import export_encoder_decoder, keep_begin
from strop_trainer.heads.encoder_decoder_proof import prove_encoder_decoder
from strop_trainer.methods import load_tokenizer
from strop_trainer.plan import ProofPlan
from strop_trainer.sources.model_folder import check_model_folder
from strop_trainer.tasks import task_named
from strop_trainer.tasks.base import Encoded
from strop_trainer.tasks.by_model import task_for
from strop_trainer.tasks.languages import FLORES, language_code
from strop_trainer.tasks.prompted import LANGUAGES
from strop_trainer.tasks.rows import UnfitRowsError
from tests.support.models import tiny_encoder_decoder

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]

CODES = ["ace_Arab", "ace_Latn", "deu_Latn", "eng_Latn", "zho_Hans", "zho_Hant"]


def row(source: str | None, target: str | None) -> bytes:
    """Return a row of translation in its normal form."""
    found = task_named("translation").rules.check(  # type: ignore[attr-defined]
        {"source": "the red fox", "target": "one fox", "source_language": source, "target_language": target}
    )
    return json.dumps(found).encode()


def task_and_tokenizer(path: Path, architecture: str, **configuration: Any) -> tuple[Any, Any]:
    folder = check_model_folder(tiny_encoder_decoder(path, architecture, **configuration), "pvc://m/x", chat=False)
    return task_for(task_named("translation"), folder), load_tokenizer(folder.path, fast=False)


@pytest.mark.parametrize(
    ("architecture", "read", "given", "languages"),
    [
        ("nllb", ["eng_Latn", "…", "</s>"], ["</s>", "deu_Latn"], ("eng_Latn", "deu_Latn")),
        ("m2m_100", ["__en__", "…", "</s>"], ["</s>", "__de__"], ("en", "de")),
        ("mbart-50", ["en_XX", "…", "</s>"], ["</s>", "de_DE"], ("en_XX", "de_DE")),
        ("mbart", ["…", "</s>", "en_XX"], ["de_DE"], ("en_XX", "de_DE")),
    ],
)
def test_a_text_carries_its_language_and_an_answer_begins_with_its_own(
    tmp_path: Path, architecture: str, read: list[str], given: list[str], languages: tuple[str, str]
) -> None:
    task, tokenizer = task_and_tokenizer(tmp_path / "tiny", architecture)
    # German first, so that what is left of one row would be seen in the next.
    encoded: Encoded = task.encode([row("de", "en"), row("en", "de")], tokenizer, 64)
    other, example = encoded.examples
    tokens = tokenizer.convert_ids_to_tokens(example.input_ids)
    at = read.index("…")
    assert tokens[:at] == read[:at]
    assert tokens[at - len(read) + 1 :] == read[at + 1 :]
    assert tokenizer.convert_ids_to_tokens(list(example.given)) == given
    assert (example.languages, other.languages) == (languages, languages[::-1])
    assert other.given != example.given
    # What is learnt is the text and the end, as transformers' own labels have it behind the language.
    own = tokenizer(text_target="one fox")["input_ids"]
    assert list(example.target_ids) == [token for token in own if token != example.given[-1]]
    (question,) = task.questions([row("en", "de")], tokenizer, 64, 1)
    assert (question.prompt_ids, question.given) == (list(example.input_ids), example.given)
    assert question.row_ids == [*example.given, *example.target_ids]
    # A source that is cut keeps the tokens of its language and its end.
    cut = list(task.encode([row("en", "de")], tokenizer, 5).examples[0].input_ids)
    assert len(cut) == 5
    assert tokenizer.convert_ids_to_tokens(cut)[:at] == read[:at]
    assert tokenizer.convert_ids_to_tokens(cut)[at - len(read) + 1 :] == read[at + 1 :]


@pytest.mark.parametrize(
    ("languages", "words"),
    [
        (("en", None), "target_language: missing, expected deu_Latn, eng_Latn, zho_Hans, zho_Hant"),
        ((None, None), "source_language: missing, expected deu_Latn"),
        (("en", "sv"), "target_language: found sv, expected deu_Latn, eng_Latn"),
        (("zho", "en"), "source_language: found zho, expected zho_Hans, zho_Hant"),
    ],
)
def test_a_row_of_a_language_that_the_model_lacks_is_refused(
    tmp_path: Path, languages: tuple[str | None, str | None], words: str
) -> None:
    task, tokenizer = task_and_tokenizer(tmp_path / "tiny", "nllb")
    wrong = row(*languages)
    for ask in (lambda: task.encode([wrong], tokenizer, 64), lambda: task.questions([wrong], tokenizer, 64, 1)):
        with pytest.raises(UnfitRowsError) as refused:
            ask()
        assert words in refused.value.rows[0][1]


@pytest.mark.parametrize(
    ("language", "code"), [("de", "deu_Latn"), ("deu", "deu_Latn"), ("deu_Latn", "deu_Latn"), ("zh", "zho_Hans")]
)
def test_a_short_code_is_the_tokenizers_own(language: str, code: str) -> None:
    assert language_code("source_language", language, CODES) == code


def test_short_codes_are_of_languages_that_nllb_has() -> None:
    assert set(FLORES.values()) <= set(FAIRSEQ_LANGUAGE_CODES)
    assert set(LANGUAGES) <= set(FLORES)


def test_tokenizers_of_another_kind_or_without_languages_are_refused(tmp_path: Path) -> None:
    task, tokenizer = task_and_tokenizer(tmp_path / "nllb", "nllb")
    _, other = task_and_tokenizer(tmp_path / "bart", "bart")
    with pytest.raises(TrainerError, match=r"tokenizer_class \w+, allowed for m2m_100: NllbTokenizer, M2M100Tokenizer"):
        task.encode([row("en", "de")], other, 64)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "nllb" / name).unlink()
    mbart = tmp_path / "mbart"
    tiny_encoder_decoder(mbart, "mbart")
    (tmp_path / "nllb" / "sentencepiece.bpe.model").write_bytes((mbart / "sentencepiece.bpe.model").read_bytes())
    (tmp_path / "nllb" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "NllbTokenizer"}))
    bare = load_tokenizer(tmp_path / "nllb", fast=False)
    del tokenizer
    with pytest.raises(TrainerError, match=r"model: found no tokens of languages in its tokenizer, a NllbTokenizer"):
        task.encode([row("en", "de")], bare, 64)


@pytest.mark.parametrize("architecture", ["nllb", "mbart-50"])
def test_tasks_whose_rows_tell_no_language_are_refused(tmp_path: Path, architecture: str) -> None:
    folder = check_model_folder(tiny_encoder_decoder(tmp_path / "tiny", architecture), "pvc://m/x", chat=False)
    with pytest.raises(TrainerError) as refused:
        task_for(task_named("summarization"), folder)
    assert refused.value.exit_code == ExitCode.BAD_CONFIGURATION
    assert "task: found summarization, allowed for " in refused.value.message
    assert refused.value.message.endswith("whose texts carry the tokens of languages: translation")


def test_the_first_mbart_needs_no_start_and_mbart_50_does(tmp_path: Path) -> None:
    for architecture in ("mbart", "mbart-50"):
        task, tokenizer = task_and_tokenizer(tmp_path / architecture, architecture, decoder_start_token_id=None)
        if architecture == "mbart":
            assert task.encode([row("en", "de")], tokenizer, 64).examples
        else:
            with pytest.raises(TrainerError, match="has a decoder_start_token_id"):
                task.encode([row("en", "de")], tokenizer, 64)


@pytest.mark.parametrize("architecture", ["nllb", "m2m_100", "mbart-50", "mbart", "mt5", "pegasus"])
def test_an_export_answers_as_pytorch_and_its_tokenizer_knows_the_languages(tmp_path: Path, architecture: str) -> None:
    task, tokenizer = task_and_tokenizer(tmp_path / "tiny", architecture)
    (question,) = task.questions([row("de", "en")], tokenizer, 64, 1)
    keep_begin(tmp_path / "tiny", question.given, question.languages)
    export_encoder_decoder(tmp_path / "tiny", tmp_path / "onnx", "fp32")
    limits = ProofPlan(rows=1)
    (proof,) = prove_encoder_decoder(tmp_path / "tiny", {"fp32": tmp_path / "onnx"}, [question], limits, 6)
    assert proof.passed, proof
    # Asked as the model card asks: with what stands in the folder, and nothing else.
    again = load_tokenizer(tmp_path / "onnx", fast=False)
    assert again(question.prompt)["input_ids"] == question.prompt_ids
    settings = json.loads((tmp_path / "onnx" / "generation_config.json").read_text())
    begin = [settings.get(name) for name in ("decoder_start_token_id", "forced_bos_token_id")]
    assert [token for token in begin if token is not None] == list(question.given)
