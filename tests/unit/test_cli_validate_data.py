"""`strop validate --data` as a shell meets it: rows and model folder are checked without a cluster."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from strop.cli import rows_as_tokens
from strop_trainer.termination import TerminationMessage
from tests.support.cli import Answer, Strop, config_map, job_file, model_folder, rows, write
from tests.support.planning import manifest_of

CONFIGS = {
    name: json.dumps({"model_type": name, "architectures": [architecture], "max_position_embeddings": 128})
    for name, architecture in {
        "bert": "BertForMaskedLM",
        "falcon": "FalconForCausalLM",
        "llama": "LlamaForCausalLM",
    }.items()
}


@pytest.fixture(autouse=True)
def _without_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows as tokens are tried in tests/trainer; these folders have no tokenizer that could be loaded."""
    monkeypatch.setattr("strop.cli.process.find_spec", lambda name: None if name == "peft" else name)


def test_validate_data_checks_the_rows(strop: Strop, tmp_path: Path) -> None:
    model_folder(tmp_path)
    answer = strop("validate", "--data", job_file(tmp_path), "--volume", f"base-models={tmp_path}/models")
    assert answer.code == 0, answer.err
    assert "11 rows to learn from, 1 held out; model LlamaForCausalLM, 3 MB of weights" in answer.out
    assert answer.out.endswith("; rows not tried as tokens: the trainer is not installed here\n")


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no weights: found nothing, expected model.safetensors"),
        ("tokenizer_config.json", "has no tokenizer"),
    ],
)
def test_validate_data_checks_the_model_s_folder(strop: Strop, tmp_path: Path, missing: str, words: str) -> None:
    (model_folder(tmp_path) / missing).unlink()
    answer = strop("validate", "--data", job_file(tmp_path), "--volume", f"base-models={tmp_path}/models")
    assert (answer.code, answer.out) == (66, "")
    assert words in answer.err
    assert answer.err.count("\n") == 1


def test_validate_data_tells_a_wrong_row_and_a_missing_model_at_once(strop: Strop, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    file = write(tmp_path / "job.yaml", manifest_of(), config_map(train__jsonl=rows(3) + "{broken\n"))
    answer = strop("validate", "--data", file, "--volume", f"base-models={tmp_path}/models")
    assert answer.code == 65
    assert "line 4" in answer.err
    assert manifest_of()["spec"]["model"]["source"] in answer.err


def test_validate_data_goes_through_all_jobs_and_names_those_that_are_wrong(strop: Strop, tmp_path: Path) -> None:
    model_folder(tmp_path)
    other = [{"source": "configmap://other/train.jsonl"}]
    jobs = [manifest_of("one"), manifest_of("two", dataset__train=other), manifest_of("three")]
    maps = [config_map(train__jsonl="{broken\n" + rows(3)), config_map("other")]
    file = write(tmp_path / "jobs.yaml", *jobs, *maps)
    answer = strop("validate", "--data", file, "--volume", f"base-models={tmp_path}/models")
    assert answer.code == 65
    assert re.findall(r"^team-a/(\w+): valid", answer.out, flags=re.MULTILINE) == ["two"]
    assert re.findall(r"^team-a/(\w+): .*line 1", answer.err, flags=re.MULTILINE) == ["one", "three"]


def test_validate_data_tries_a_given_chat_template(strop: Strop, tmp_path: Path) -> None:
    source = "hf://meta-llama/Llama-3.2-1B-Instruct"
    file = job_file(tmp_path, model__source=source, model__chatTemplate="{{ messages | nothing }}")
    answer = strop("validate", "--data", file)
    assert answer.code == 78
    assert "model.chatTemplate: it does not render a question (line 1): No filter named 'nothing'" in answer.err


def test_validate_data_does_not_fetch_a_model(strop: Strop, tmp_path: Path) -> None:
    source = "hf://meta-llama/Llama-3.2-1B-Instruct"
    answer = strop("validate", "--data", job_file(tmp_path, model__source=source))
    assert answer.code == 0, answer.err
    assert f"model not checked: {source} would have to be fetched" in answer.out
    assert answer.out.endswith("; rows not tried as tokens: that needs the model\n")


def test_validate_data_names_the_line_of_a_wrong_row(strop: Strop, tmp_path: Path) -> None:
    model_folder(tmp_path)
    broken = rows(3) + '{"messages": [{"role": "user", "content": "no answer"}]}\n' + "{broken\n"
    file = write(tmp_path / "job.yaml", manifest_of(), config_map(train__jsonl=broken))
    answer = strop("validate", "--data", file, "--volume", f"base-models={tmp_path}/models")
    assert answer.code == 65
    assert "line 4" in answer.err
    assert "line 5" in answer.err
    assert "Traceback" not in answer.err


def test_validate_data_counts_what_is_one_and_what_are_several(strop: Strop, tmp_path: Path) -> None:
    model_folder(tmp_path)
    volume = ("--volume", f"base-models={tmp_path}/models")
    source = [{"source": "configmap://rows/train.jsonl"}]
    job = manifest_of(task="preference", dataset__train=source, dataset__validation=source)
    pair = '{"prompt": "ask", "chosen": "yes", "rejected": "no"}\n'

    def notes(content: str) -> str:
        file = write(tmp_path / "job.yaml", job, config_map(train__jsonl=content))
        return strop("validate", "--data", file, *volume).out

    assert "; 1 held-out row is also a training row; 1 held-out prompt is also a training prompt" in notes(pair)
    assert "; 1 duplicate; 2 held-out rows are also training rows; 2 held-out prompts are also training prompts" in (
        notes(pair * 2)
    )
    assert "; 2 duplicates; " in notes(pair * 3)


def test_validate_data_checks_pairs(strop: Strop, tmp_path: Path) -> None:
    model_folder(tmp_path)
    good = "".join(f'{{"prompt": "ask {n}", "chosen": "yes", "rejected": "no"}}\n' for n in range(3))
    volume = ("--volume", f"base-models={tmp_path}/models")
    job = manifest_of(task="preference", training__preferenceBeta=0.2)
    file = write(tmp_path / "job.yaml", job, config_map(train__jsonl=good))
    assert "2 rows to learn from, 1 held out" in strop("validate", "--data", file, *volume).out
    equal = '{"prompt": "ask", "chosen": "yes", "rejected": "yes"}\n{"prompt": "ask", "chosen": "yes"}\n'
    file = write(tmp_path / "job.yaml", job, config_map(train__jsonl=good + equal))
    answer = strop("validate", "--data", file, *volume)
    assert answer.code == 65
    assert "line 4: rejected: equal to chosen, expected another answer" in answer.err
    assert "line 5: rejected: missing; found prompt, chosen" in answer.err


LABELLED = '{"text": "a film", "label": "good"}\n{"text": "a flop", "label": "bad"}\n' * 3 + (
    '{"text": "a hit", "label": "good"}\n{"text": "a miss", "label": "bad"}\n'
)


SPANS = '{"question": "Who?", "context": "we said that he is", "answer": "he"}\n'
SPANS += SPANS.replace("Who", "What").replace('"he"', '"is"')


QUESTIONS = "question-answering"


@pytest.mark.parametrize(
    ("config", "fields", "data", "words"),
    [
        (
            "bert",
            {"task": "text-classification", "training__maxLength": 512},
            LABELLED,
            "training.maxLength: found 512",
        ),
        ("bert", {"task": QUESTIONS, "method": {"type": "prompt-tuning"}}, SPANS, "method.type: found prompt-tuning"),
        ("bert", {"task": QUESTIONS, "output__onnx": {"precisions": ["int4"]}}, SPANS, "precisions: found int4"),
        ("bert", {"task": QUESTIONS, "output__onnx": {"form": "adapter"}}, SPANS, "onnx.form: found adapter"),
        ("bert", {"task": QUESTIONS, "model__chatTemplate": "{{ messages }}"}, SPANS, "model.chatTemplate: found one"),
        ("bert", {}, None, "unsupported architecture BertForMaskedLM for task chat: no causal language model"),
        (
            "falcon",
            {"output__onnx": {"enabled": True}},
            None,
            "FalconForCausalLM, ONNX export supports",
        ),
        ("llama", {"training__maxLength": 4096}, None, "found 4096, allowed: up to 128, the positions that this model"),
        (
            "bert",
            {"task": "text-classification", "evaluation": {"minimum": {"f1_micro": 0.5}}},
            LABELLED,
            "evaluation.minimum.f1_micro: not measured of these labels",
        ),
        (
            "llama",
            {"task": QUESTIONS, "evaluation": {"minimum": {"f1": 0.5}, "generateRows": 0}},
            SPANS,
            "evaluation.minimum.f1: needs evaluation.generateRows of at least 1",
        ),
    ],
)
def test_validate_data_refuses_what_the_trainer_would_of_the_folder(  # noqa: PLR0917 - one a case
    strop: Strop, tmp_path: Path, config: str, fields: dict[str, Any], data: str | None, words: str
) -> None:
    folder = model_folder(tmp_path)
    (folder / "config.json").write_text(CONFIGS[config])
    folder.rename(folder.with_name("mine"))  # that no preset knows
    fields |= {"model__source": "pvc://base-models/mine", "model__parameters": "20M"}
    maps = config_map() if data is None else config_map(train__jsonl=data)
    file = write(tmp_path / "job.yaml", manifest_of(**fields), maps)
    answer = strop("validate", "--data", file, "--volume", f"base-models={tmp_path}/models")
    assert (answer.code, answer.out) == (78, ""), answer
    assert words in answer.err


def test_validate_data_cuts_a_length_that_the_job_left_open_to_the_model_s_positions(
    strop: Strop, tmp_path: Path
) -> None:
    (model_folder(tmp_path) / "config.json").write_text(CONFIGS["llama"])
    answer = strop("validate", "--data", job_file(tmp_path), "--volume", f"base-models={tmp_path}/models")
    assert answer.code == 0, answer.err
    assert "training.maxLength: 128 in place of 1024, the positions that this model has" in answer.out


@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        (
            '{"question": "Who?", "context": "we said that he is", "answers": {"text": ["he"], "answer_start": [3]}}\n',
            65,
            "line 3: answers.text[0]: 'he' is not at character 3",
        ),
        ('{"question": "Who?", "answer": "he"}\n', 0, "an encoder refuses them: "),
    ],
)
def test_validate_data_reads_questions_as_both_kinds_where_the_model_is_not_here(
    strop: Strop, tmp_path: Path, wrong: str, code: int, words: str
) -> None:
    job = manifest_of(task=QUESTIONS, model__source="hf://google-bert/bert-base-uncased")
    file = write(tmp_path / "job.yaml", job, config_map(train__jsonl=SPANS + wrong))
    answer = strop("validate", "--data", file)
    assert answer.code == code, answer
    assert words in answer.out + answer.err


def test_validate_data_reads_questions_as_the_model_will(strop: Strop, tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    asked = '{"question": "Who?", "context": "he said that he is", "answer": "he"}\n'
    twice = asked.replace('"he"', '"is"') + asked
    file = write(tmp_path / "job.yaml", manifest_of(task="question-answering"), config_map(train__jsonl=twice * 3))
    command = ("validate", "--data", file, "--volume", f"base-models={tmp_path}/models")
    assert "rows to learn from" in strop(*command).out
    (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForMaskedLM"]}')
    answer = strop(*command)
    assert answer.code == 65
    assert "line 2: answer: 'he' is 2 times in the context, expected once, or answer_start" in answer.err

    source = "hf://owner/model"
    remote = write(
        tmp_path / "job.yaml",
        manifest_of(task="question-answering", model__source=source),
        config_map(train__jsonl=twice * 3),
    )
    assert f"read as for a language model, as {source} is not here to tell" in strop("validate", "--data", remote).out


def test_validate_data_takes_questions_that_either_kind_of_a_remote_model_takes(strop: Strop, tmp_path: Path) -> None:
    none = '{"question": "Where?", "context": "he said so", "answers": {"text": [], "answer_start": []}}\n'
    there = '{"question": "Who?", "context": "he said so", "answers": {"text": ["he"], "answer_start": [0]}}\n'

    def validate(source: str, rows: str) -> Answer:
        job = manifest_of(task="question-answering", model__source=source)
        return strop("validate", "--data", write(tmp_path / "job.yaml", job, config_map(train__jsonl=rows)))

    encoder = validate("hf://owner/model", (none + there) * 3)
    assert encoder.code == 0, encoder.err
    assert "read as for an encoder, as hf://owner/model is not here to tell; as for a language model: " in encoder.out
    assert "answers: empty, expected at least one answer" in encoder.out
    known = validate("hf://HuggingFaceTB/SmolLM2-135M", (none + there) * 3)
    assert known.code == 65
    assert "answers: empty" in known.err
    assert "not here to tell" not in validate("hf://HuggingFaceTB/SmolLM2-135M", there * 6).out
    neither = validate("hf://owner/model", '{"question": "Who?"}\n')
    assert neither.code == 65
    assert "expected question, answer or question, answers" in neither.err


def test_validate_data_refuses_a_gate_that_an_encoder_has_not(strop: Strop, tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForMaskedLM"]}')
    asked = '{"question": "Who?", "context": "he said so", "answer": "he"}\n'
    asked += asked.replace("Who?", "Who then?")
    job = manifest_of(task="question-answering", evaluation__maximum={"perplexity": 9})
    file = write(tmp_path / "job.yaml", job, config_map(train__jsonl=asked))
    answer = strop("validate", "--data", file, "--volume", f"base-models={tmp_path}/models")
    assert answer.code == 78
    assert "evaluation.maximum.perplexity: not measured where an encoder marks its answer in the text" in answer.err


def test_validate_data_says_what_it_did_not_check(strop: Strop, tmp_path: Path) -> None:
    model_folder(tmp_path)
    source = {"source": "hf://datasets/owner/name/rows.jsonl"}
    file = job_file(tmp_path, dataset__train=[source])
    answer = strop("validate", "--data", file, "--volume", f"base-models={tmp_path}/models")
    assert answer.code == 0
    assert "rows not checked: hf://datasets/owner/name/rows.jsonl" in answer.out
    assert "tokens" not in answer.out
    signed = {"source": "https://host/rows.jsonl?signature=hidden", "sha256": "a" * 64}
    file = job_file(tmp_path, dataset__train=[signed])
    answer = strop("validate", "--data", file, "--volume", f"base-models={tmp_path}/models")
    assert "rows not checked: https://host/rows.jsonl would have to be fetched" in answer.out


@pytest.mark.parametrize(
    ("ended", "said", "code", "told"),
    [
        (65, "dataset: found 2 problems\n  line 1: wrong\n  line 2: wrong", 65, "  line 1: wrong\n  line 2: wrong\n"),
        (70, "unexpected KeyError: 'a'", 70, "job: unexpected KeyError: 'a'\n  on the way\n"),
        (137, None, 137, "job: rows as tokens: the trainer ended with 137 and no last word\n  on the way\n"),
        (75, "stopped in tokens", 130, ""),
        (143, None, 130, ""),
    ],
)
def test_validate_data_ends_as_the_trainer_that_tried_the_rows(  # noqa: PLR0917 - one a case
    strop: Strop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: int, said: str | None, code: int, told: str
) -> None:
    def run_child(_command: Any, environment: dict[str, str], output: Any) -> int:
        output.write(b"on the way\n")
        if said is not None:
            word = TerminationMessage(stage="tokens", reason="Any", message=said)
            Path(environment["STROP_TERMINATION_LOG"]).write_text(word.dump(), encoding="utf-8")
        return ended

    monkeypatch.setattr("strop.cli.process.find_spec", lambda name: name)
    monkeypatch.setattr(rows_as_tokens, "run_child", run_child)
    model_folder(tmp_path)
    answer = strop("validate", "--data", job_file(tmp_path), "--volume", f"base-models={tmp_path}/models")
    assert (answer.code, answer.out) == (code, ""), answer
    assert answer.err.endswith(told)
    assert bool(answer.err) is bool(told)
