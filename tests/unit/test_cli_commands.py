"""`strop` as a shell meets it: what it prints, and its exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from strop.cli import machine
from strop.planning.inputs import Job, Pool
from strop.planning.resolve import resolve
from strop_trainer.exit_codes import ExitCode
from strop_trainer.manifest import Manifest, dump_manifest, list_files
from strop_trainer.plan import load_plan
from tests.support.cli import Answer, Strop, config_map, rows, runner, write
from tests.support.jobs import termination
from tests.support.planning import manifest_of, pool_of

POOL: dict[str, Any] = {
    "apiVersion": "strop.dev/v1alpha1",
    "kind": "ComputePool",
    "metadata": {"name": "cpu"},
    "spec": {"cpuPerNode": 2, "memoryPerNode": "8Gi"},
}

# A trainer that shows what it was given, and ends as told.
FAKE_TRAINER = """
import json, os, pathlib, signal, sys, threading
work = pathlib.Path(os.environ["STROP_WORK"])
(work / "seen.json").write_text(json.dumps({k: v for k, v in os.environ.items() if k.startswith("STROP_")}))
mode = os.environ.get("FAKE_MODE", "")
def stop(*_):
    (work / "checkpoint").write_text("saved")
    (work / "signals").open("a").write("x")
    sys.exit(75)
if mode == "wait":
    signal.signal(signal.SIGTERM, stop)
    print("training", flush=True)
    threading.Event().wait(60)
if mode == "crash":
    os.kill(os.getpid(), signal.SIGKILL)
if "LAST_WORD" in os.environ:
    pathlib.Path(os.environ["STROP_TERMINATION_LOG"]).write_text(os.environ["LAST_WORD"])
sys.exit(int(mode or 0))
"""


@pytest.fixture
def strop(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Strop:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("STROP_VOLUMES", raising=False)
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capfd)


@pytest.fixture
def fake_trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    package = tmp_path / "fake" / "strop_trainer"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FAKE_TRAINER, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    (tmp_path / "home/.local/share/strop/volumes/base-models").mkdir(parents=True)
    return tmp_path / "home/.local/share/strop"


def job_file(tmp_path: Path, *others: dict[str, Any], **fields: Any) -> Path:
    return write(tmp_path / "job.yaml", manifest_of(**fields), config_map(), *others)


def model_folder(tmp_path: Path) -> Path:
    """Make the folder that `manifest_of` names, in a claim `models`."""
    folder = tmp_path / "models" / manifest_of()["spec"]["model"]["source"].removeprefix("pvc://").partition("/")[2]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (folder / "model.safetensors").write_bytes(bytes(3_000_000))
    return folder


CONFIGS = {
    name: json.dumps({"model_type": name, "architectures": [architecture], "max_position_embeddings": 128})
    for name, architecture in {
        "bert": "BertForMaskedLM",
        "falcon": "FalconForCausalLM",
        "llama": "LlamaForCausalLM",
    }.items()
}


def states(data: Path) -> list[Path]:
    return sorted(data.glob("work/team-a/*/state"))


def test_validate_says_what_is_valid(strop: Strop, tmp_path: Path) -> None:
    answer = strop("validate", job_file(tmp_path, POOL))
    assert answer == Answer(0, f"{tmp_path}/job.yaml: valid (2 resources)\n", "")


def test_validate_says_what_is_wrong_on_the_error_stream(strop: Strop, tmp_path: Path) -> None:
    answer = strop("validate", job_file(tmp_path, method__lora__rank=0))
    assert (answer.code, answer.out) == (78, "")
    assert answer.err == f"{tmp_path}/job.yaml: spec.method.lora.rank: found 0, allowed: a whole number, 1 to 1024\n"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"model__source": "hf://allenai/OLMo-2-1124-7B", "output": {"onnx": {"enabled": True}}},
            "spec.output.onnx.enabled: found true, allowed for Olmo2ForCausalLM: false",
        ),
        ({"model__source": "hf://microsoft/Phi-3-small-8k-instruct"}, "it needs remote code"),
        ({"training__maxLength": 9000, "model__source": "hf://HuggingFaceTB/SmolLM2-135M"}, "allowed: up to 8192"),
    ],
)
def test_validate_refuses_what_planning_refuses_without_a_pool(
    strop: Strop, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    answer = strop("validate", job_file(tmp_path, **fields))
    assert answer.code == ExitCode.BAD_CONFIGURATION
    assert answer.out == ""
    assert re.search(rf"^team-a/job: .*{re.escape(words)}", answer.err)


def test_validate_takes_a_job_for_a_pool_that_is_not_here(strop: Strop, tmp_path: Path) -> None:
    assert strop("validate", job_file(tmp_path, compute={"pool": "far-away"})).code == 0


def test_validate_refuses_a_file_without_a_resource_of_strop(strop: Strop, tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", config_map())
    answer = strop("validate", file)
    assert (answer.code, answer.out) == (78, "")
    assert answer.err == f"{file}: no resource of strop.dev in it (found ConfigMap)\n"


def test_validate_of_a_file_of_another_sort_says_so(strop: Strop, tmp_path: Path) -> None:
    answer = strop("validate", write(tmp_path / "values.yaml", {"image": {"tag": "v1"}}))
    assert answer.code == 78
    assert "no resource of strop.dev in it (found an object without kind)" in answer.err


def test_validate_counts_no_file_as_valid_that_has_nothing_to_check(strop: Strop, tmp_path: Path) -> None:
    other = write(tmp_path / "rows.yaml", config_map())
    job = write(tmp_path / "job.yaml", manifest_of())
    answer = strop("validate", other, job)
    assert (answer.code, answer.out) == (0, f"{job}: valid (1 resource)\n")
    assert answer.err == f"note: {other}: no resource of strop.dev in it (found ConfigMap)\n"


def test_validate_data_checks_the_rows(strop: Strop, tmp_path: Path) -> None:
    model_folder(tmp_path)
    answer = strop("validate", "--data", job_file(tmp_path), "--volume", f"base-models={tmp_path}/models")
    assert answer.code == 0, answer.err
    assert "11 rows to learn from, 1 held out; model LlamaForCausalLM, 3 MB of weights" in answer.out


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no weights: expected model.safetensors"),
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


def test_plan_as_json_is_the_plan_that_the_operator_makes(strop: Strop, tmp_path: Path) -> None:
    answer = strop("plan", job_file(tmp_path, POOL), "-o", "json")
    assert answer.code == 0
    assert load_plan(answer.out) == resolve(Job.from_resource(manifest_of()), [Pool.from_resource(POOL)])


def test_plan_on_this_machine_has_the_same_digest_as_in_a_cluster(strop: Strop, tmp_path: Path) -> None:
    answer = strop("plan", job_file(tmp_path, compute={"pool": "far-away"}), "-o", "json")
    here = load_plan(answer.out)
    there = resolve(Job.from_resource(manifest_of()), [Pool.from_resource(POOL)])
    assert here.digest == there.digest
    assert here.placement.pool == machine.NAME
    assert answer.err == (
        "note: team-a/job: spec.compute.pool: found far-away, but no ComputePool was given: planned for this machine; "
        "give the pool with --pools FILE\n"
    )


def test_plan_does_not_speak_of_pools_where_the_job_names_none(strop: Strop, tmp_path: Path) -> None:
    assert strop("plan", job_file(tmp_path)).err == ""
    assert strop("plan", job_file(tmp_path, POOL, compute={"pool": "cpu"})).err == ""


def test_pools_of_a_file_without_any_are_refused(strop: Strop, tmp_path: Path) -> None:
    file = write(tmp_path / "pools.yaml", config_map())
    answer = strop("plan", job_file(tmp_path), "--pools", file)
    assert answer.code == 78
    assert answer.err == f"--pools {file}: found ConfigMap, allowed: a file with ComputePools\n"
    empty = tmp_path / "empty.yaml"
    empty.touch()
    assert "found no object" in strop("plan", job_file(tmp_path), "--pools", empty).err


def test_a_file_of_jobs_and_pools_may_be_named_as_both(strop: Strop, tmp_path: Path) -> None:
    file = job_file(tmp_path, POOL)
    answer = strop("plan", file, "--pools", file, "-o", "json")
    assert load_plan(answer.out).placement.pool == "cpu"


def test_plan_says_what_there_is_where_no_job_is(strop: Strop, tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", POOL, config_map(), config_map("more"))
    answer = strop("plan", file)
    assert answer.code == 78
    assert answer.err == f"{file}: no FineTuneJob in it (found ComputePool, ConfigMap)\n"


@pytest.mark.parametrize("command", [["plan", "none.yaml"], ["models"], ["logs", "job"]])
def test_a_namespace_of_another_form_is_refused(strop: Strop, command: list[str]) -> None:
    answer = strop(*command, "-n", "Bad_NS")
    assert answer.code == 64
    assert answer.err == (
        "--namespace: found 'Bad_NS', allowed: 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends\n"
    )


def test_plan_prints_every_automatic_value_with_its_reason(strop: Strop, tmp_path: Path) -> None:
    answer = strop("plan", job_file(tmp_path, POOL))
    plan = load_plan(strop("plan", job_file(tmp_path, POOL), "-o", "json").out)
    assert plan.digest in answer.out
    for resolution in plan.resolved:
        assert resolution.field in answer.out
    assert "LoRA Without Regret" in answer.out
    assert "GiB = weights" in answer.out


def test_plan_takes_pools_from_another_file(strop: Strop, tmp_path: Path) -> None:
    pools = write(tmp_path / "pools.yaml", POOL)
    answer = strop("plan", job_file(tmp_path), "--pools", pools, "-o", "json")
    assert load_plan(answer.out).placement.pool == "cpu"


def test_plan_shows_all_jobs_or_the_one_that_is_asked_for(strop: Strop, tmp_path: Path) -> None:
    file = write(tmp_path / "jobs.yaml", manifest_of("one"), manifest_of("two"), POOL)
    assert strop("plan", file).out.count("sha256:") == 2
    assert "team-a/two" in strop("plan", file, "--job", "two").out
    assert "team-a/one" not in strop("plan", file, "--job", "two").out
    answer = strop("plan", file, "--job", "three")
    assert answer.code == 78
    assert "no FineTuneJob named three in it (there is one, two)" in answer.err


def test_plan_says_which_job_fits_nowhere(strop: Strop, tmp_path: Path) -> None:
    small = {**POOL, "spec": {**POOL["spec"], "memoryPerNode": "1Gi"}}
    answer = strop("plan", job_file(tmp_path, small))
    assert answer.code == 78
    assert answer.err.startswith("team-a/job: the job fits no pool")
    assert answer.err.count("\n") == 1


def test_plan_of_an_accelerator_pool_names_the_accelerator(strop: Strop, tmp_path: Path) -> None:
    accelerator = {"resourceName": "amd.com/gpu", "memory": "24Gi"}
    pool = {**POOL, "spec": {**POOL["spec"], "accelerator": accelerator}}
    assert "1 amd.com/gpu" in strop("plan", job_file(tmp_path, pool)).out


def test_a_plan_for_this_machine_says_so_where_the_job_wants_what_is_not_here(
    strop: Strop, tmp_path: Path, monkeypatch
) -> None:
    small = Pool(machine.NAME, pool_of(memory_per_node="1Gi").spec)
    monkeypatch.setattr("strop.cli.planned.this_machine", lambda: small)
    answer = strop("plan", job_file(tmp_path, compute={"pool": "gpu"}))
    assert answer.code == 78
    assert "the job asks for pool gpu, but no ComputePool was given; --pools FILE tells of" in answer.err
    monkeypatch.setattr("strop.cli.planned.this_machine", lambda: Pool(machine.NAME, pool_of().spec))
    answer = strop("plan", job_file(tmp_path, compute={"resources": {"accelerators": 1}}))
    assert answer.code == 0
    assert "spec.compute.resources.accelerators: found 1, but no ComputePool was given" in answer.err


def test_memory_below_the_estimate_is_told_with_both_numbers(strop: Strop, tmp_path: Path) -> None:
    file = job_file(tmp_path, POOL, compute={"resources": {"memory": "256Mi"}})
    (estimate,) = re.findall(r"^memory (.* GiB) = ", strop("plan", file).out, flags=re.MULTILINE)
    for command in ("plan", "validate"):
        answer = strop(command, file)
        assert answer.code == 0
        assert answer.err.startswith(
            "note: team-a/job: spec.compute.resources.memory: found 256Mi, but the estimate is "
        )
        assert "leave it out" in answer.err
    assert f"the estimate is {estimate} (by preset smollm2-135m): the pod will be killed" in strop("plan", file).err


def test_validate_tells_for_which_kind_of_pool_memory_is_too_little(strop: Strop, tmp_path: Path) -> None:
    def said(command: str, memory: str, *pools: dict[str, Any]) -> str:
        return strop(command, job_file(tmp_path, *pools, compute={"resources": {"memory": memory}})).err

    both = said("validate", "256Mi")
    on_cpus, beside, needed = re.findall(r"([\d.]+) GiB on CPUs, ([\d.]+) GiB beside .* give (\w+) or", both)[0]
    assert float(beside) < float(on_cpus)
    assert f"give {needed} or" in said("plan", "256Mi", POOL), "validate advises what plan does"
    between = said("validate", "2304Mi")
    assert f"the estimate is {on_cpus} GiB on CPUs (by" in between
    assert f"would probably be killed for want of memory there; give {needed} or leave it out" in between
    assert between.endswith(f"; it is enough beside an accelerator ({beside} GiB)\n")
    assert said("validate", needed) == ""


def test_memory_beside_an_accelerator_is_held_against_what_is_needed_there(strop: Strop, tmp_path: Path) -> None:
    accelerator = {"resourceName": "nvidia.com/gpu", "memory": "800Gi"}
    big = {**POOL, "spec": {**POOL["spec"], "memoryPerNode": "900Gi"}}
    gpu = {**big, "spec": {**big["spec"], "accelerator": accelerator}}
    long = {"maxLength": 8192, "microBatchSize": 4}
    model = {"model__source": "hf://meta-llama/Llama-3.2-1B-Instruct", "training": long}
    memory = load_plan(strop("plan", job_file(tmp_path, gpu, **model), "-o", "json").out).placement.resources.memory
    fields = {**model, "compute": {"resources": {"memory": memory}}}
    assert strop("plan", job_file(tmp_path, gpu, **fields)).err == ""
    assert "it is enough beside an accelerator" in strop("validate", job_file(tmp_path, **fields)).err
    assert f"found {memory}, but the estimate is" in strop("plan", job_file(tmp_path, big, **fields)).err
    none = {**model, "compute": {"resources": {"memory": memory, "accelerators": 0}}}
    assert f"found {memory}, but the estimate is" in strop("validate", job_file(tmp_path, **none)).err


def test_memory_that_is_enough_or_left_out_is_not_spoken_of(strop: Strop, tmp_path: Path) -> None:
    assert strop("validate", job_file(tmp_path)).err == ""
    assert strop("validate", job_file(tmp_path, compute={"resources": {"memory": "6Gi"}})).err == ""


def test_plan_of_a_model_of_unknown_size_asks_for_it(strop: Strop, tmp_path: Path) -> None:
    answer = strop("plan", job_file(tmp_path, POOL, model__source="pvc://models/mystery"))
    assert answer.code == 0
    assert answer.err == (
        "note: team-a/job: spec.model.parameters: missing: there is no preset for pvc://models/mystery, so its size "
        "must be given, such as 135M or 8B; without it there is no memory estimate, and the job takes all of a node\n"
    )


def test_estimate_needs_no_pool(strop: Strop, tmp_path: Path) -> None:
    answer = strop("estimate", job_file(tmp_path, model__source="hf://meta-llama/Llama-3.3-70B-Instruct"))
    assert answer.code == 0
    assert "preset llama-3.1-70b" in answer.out
    assert "On an accelerator" in answer.out


def test_estimate_of_a_model_of_unknown_size_asks_for_it(strop: Strop, tmp_path: Path) -> None:
    answer = strop("estimate", job_file(tmp_path, model__source="pvc://models/mystery"))
    assert answer.code == 78
    assert "spec.model.parameters: missing" in answer.err
    answer = strop("estimate", job_file(tmp_path, training__maxLength=100_000))
    assert answer.code == 78
    assert "spec.training.maxLength" in answer.err


def test_run_gives_the_trainer_its_environment(strop: Strop, tmp_path: Path, fake_trainer: Path, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "66")
    answer = strop("run", job_file(tmp_path))
    assert answer.code == 66
    (state,) = states(fake_trainer)
    seen = json.loads((state / "seen.json").read_text())
    assert load_plan(Path(seen["STROP_PLAN"]).read_bytes()).placement.job == "job"
    assert (Path(seen["STROP_CONFIGMAPS"]) / "rows/train.jsonl").read_text() == rows()
    assert Path(seen["STROP_REGISTRY"]) == fake_trainer / "volumes/strop-models/team-a"
    assert "the trainer ended with 66 and no last word" in answer.out


def test_run_shows_what_was_published_and_forgets_its_work(
    strop: Strop, tmp_path: Path, fake_trainer: Path, monkeypatch
) -> None:
    monkeypatch.setenv("LAST_WORD", termination().dump())
    answer = strop("run", job_file(tmp_path))
    assert answer.code == 0
    assert "exact_match" in answer.out
    assert f"published {fake_trainer}/volumes/strop-models/team-a/support-bot/1" in answer.out
    (state,) = states(fake_trainer)
    assert list(state.iterdir()) == []


@pytest.mark.parametrize("command", ["plan", "run"])
def test_accelerators_that_are_not_here_are_told(
    strop: Strop, tmp_path: Path, fake_trainer: Path, monkeypatch, command: str
) -> None:
    monkeypatch.setattr(machine, "nvidia_accelerator", lambda: None)
    monkeypatch.setenv("LAST_WORD", termination().dump())
    answer = strop(command, job_file(tmp_path, compute={"resources": {"accelerators": 2}}))
    assert answer.code == 0
    assert answer.err == (
        "note: team-a/job: spec.compute.resources.accelerators: found 2, but no ComputePool was given and this machine "
        "has none: planned for CPUs; give the pool with --pools FILE\n"
    )


def test_run_shows_why_it_failed(strop: Strop, tmp_path: Path, fake_trainer: Path, monkeypatch) -> None:
    word = {"stage": "check", "reason": "BadData", "message": "rows line 3: [bold] is no JSON"}
    monkeypatch.setenv("LAST_WORD", json.dumps(word))
    monkeypatch.setenv("FAKE_MODE", "65")
    answer = strop("run", job_file(tmp_path))
    assert answer.code == 65
    assert "BadData in check: rows line 3: [bold] is no JSON (exit 65)" in answer.out


def test_run_passes_a_killed_trainer_on_as_a_shell_would(
    strop: Strop, tmp_path: Path, fake_trainer: Path, monkeypatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "crash")
    assert strop("run", job_file(tmp_path)).code == 128 + signal.SIGKILL


def test_run_stops_at_the_first_job_that_fails(strop: Strop, tmp_path: Path, fake_trainer: Path, monkeypatch) -> None:
    file = write(tmp_path / "jobs.yaml", manifest_of("one"), manifest_of("two"), config_map())
    monkeypatch.setenv("FAKE_MODE", "70")
    assert strop("run", file).code == 70
    assert [state.parent.name.rpartition("-")[0] for state in states(fake_trainer)] == ["one"]
    assert strop("run", file, "--work", tmp_path / "w").code == 64


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_trainer_once_and_the_next_run_goes_on(
    tmp_path: Path, fake_trainer: Path, number: signal.Signals
) -> None:
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "FAKE_MODE": "wait"}
    # The fake stands for the child's trainer alone: this process needs the real package.
    fake = environment.pop("PYTHONPATH")
    code = f"import os; from strop.cli.main import main; os.environ['PYTHONPATH'] = {fake!r}; main()"
    file = job_file(tmp_path)
    command = [sys.executable, "-c", code, "run", str(file)]
    printed = []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path
    ) as child:
        killer = threading.Timer(60, child.kill)
        killer.start()
        assert child.stdout
        for line in child.stdout:
            printed.append(line)
            if line == "training\n":
                # As a terminal does on Ctrl-C: the signal goes to the whole group.
                os.killpg(child.pid, number)
        assert child.wait() == 75
        killer.cancel()
    (state,) = states(fake_trainer)
    assert (state / "signals").read_text() == "x"
    assert (state / "checkpoint").read_text() == "saved"
    assert printed[-1] == f"team-a/job: stopped (exit 75); to go on: strop run {file}\n"
    assert "no last word" not in "".join(printed)


def test_run_without_what_it_needs_says_so(strop: Strop, tmp_path: Path) -> None:
    answer = strop("run", job_file(tmp_path))
    assert answer.code == 66
    assert "claim base-models: no folder" in answer.err


@pytest.mark.parametrize("value", ["nothing", "=x", "name="])
def test_a_mount_of_another_form_is_a_usage_error(strop: Strop, tmp_path: Path, value: str) -> None:
    answer = strop("run", job_file(tmp_path), "--volume", value)
    assert (answer.code, answer.err) == (64, f"--volume: found {value!r}, allowed: NAME=DIR\n")


def test_run_without_the_trainer_says_how_to_get_it(strop: Strop, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    answer = strop("run", job_file(tmp_path))
    assert answer.code == 78
    assert "make env" in answer.err


def published(folder: Path, content: str = "x") -> None:
    """Make a version with one file."""
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(content, encoding="utf-8")
    manifest = Manifest(
        model=folder.parent.name,
        job_uid="uid",
        plan_digest="sha256:0",
        created_at="2026-01-01T00:00:00Z",
        files=list_files(folder),
    )
    (folder / "manifest.json").write_bytes(dump_manifest(manifest))


def test_models_lists_versions_with_their_aliases(strop: Strop, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    for number in (1, 2, 10):
        published(registry / f"team-a/bot/{number}")
    published(registry / "team-b/bot/1")
    (registry / "team-a/bot/.staging-11").mkdir()
    (registry / "team-a/bot/11").mkdir()
    (registry / "team-b/bot/index.json").write_text("{broken", encoding="utf-8")
    (registry / "team-a/bot/index.json").write_text('{"aliases": {"latest": 10, "best": 2}}', encoding="utf-8")
    answer = strop("models", "--registry", registry)
    assert answer.code == 0
    lines = [line.split() for line in answer.out.splitlines() if "bot" in line]
    assert lines == [
        ["team-a", "bot", "1", "2026-01-01T00:00:00Z", "0.0", "MB", "team-a/bot/1"],
        ["team-a", "bot", "2", "best", "2026-01-01T00:00:00Z", "0.0", "MB", "team-a/bot/2"],
        ["team-a", "bot", "10", "latest", "2026-01-01T00:00:00Z", "0.0", "MB", "team-a/bot/10"],
        ["team-b", "bot", "1", "2026-01-01T00:00:00Z", "0.0", "MB", "team-b/bot/1"],
    ]
    assert "team-a" not in strop("models", "--registry", registry, "-n", "team-b").out
    assert "no version in" in strop("models", "--registry", registry, "-n", "team-c").out


def test_models_without_a_registry_says_so(strop: Strop) -> None:
    answer = strop("models")
    assert answer.code == 66
    assert "no such folder" in answer.err


def fake_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")


def test_logs_of_a_job_without_a_pod_are_missing_input(strop: Strop, tmp_path: Path, monkeypatch) -> None:
    fake_kubectl(tmp_path, monkeypatch, "echo 'No resources found in team-a namespace.' >&2")
    answer = strop("logs", "nosuch")
    assert (answer.code, answer.out) == (66, "")
    assert answer.err == (
        "found no pod of a FineTuneJob nosuch in namespace team-a: kubectl get finetunejobs -A lists the jobs there "
        "are; one that waits has no pod yet\n"
    )


def test_logs_without_a_cluster_are_one_clear_line(strop: Strop, tmp_path: Path, monkeypatch) -> None:
    log = """E1125 12:49:38.605655   23896 memcache.go:265] "Unhandled Error" err="could not get API group list\""""
    refused = "The connection to the server localhost:8080 was refused - did you specify the right host or port?"
    fake_kubectl(tmp_path, monkeypatch, f"echo '{log}' >&2\necho '{log}' >&2\necho '{refused}' >&2\nexit 1")
    answer = strop("logs", "bot")
    assert (answer.code, answer.out) == (69, "")
    assert answer.err == f"no cluster answers: kubectl says: {refused}\n"


def test_logs_hand_on_what_else_kubectl_says(strop: Strop, tmp_path: Path, monkeypatch) -> None:
    fake_kubectl(tmp_path, monkeypatch, "echo a line\necho one >&2\necho error: two >&2\nexit 1")
    assert strop("logs", "bot") == Answer(1, "a line\n", "one\nerror: two\n")


def test_logs_asks_kubectl_for_the_jobs_pods(strop: Strop, tmp_path: Path, monkeypatch) -> None:
    fake_kubectl(tmp_path, monkeypatch, 'echo "$@"\nexit 3')
    answer = strop("logs", "bot", "-n", "team-a", "-f", "--timestamps")
    assert answer.code == 3
    assert "logs --selector strop.dev/job=bot" in answer.out
    assert "--namespace team-a --follow --timestamps" in answer.out


def test_logs_without_kubectl_says_so(strop: Strop, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/none")
    answer = strop("logs", "bot")
    assert (answer.code, answer.err) == (66, "kubectl: not found on PATH\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["plan"], "Missing argument 'FILE'"),
        (["plan", "a", "-o", "yaml"], "--output: found 'yaml', allowed: text, json\n"),
        (["plan", "a", "--quick"], "No such option: --quick"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_64(strop: Strop, arguments: list[str], words: str) -> None:
    answer = strop(*arguments)
    assert answer.code == 64
    assert words in answer.err
    assert answer.err.count("\n") == 1


def test_version(strop: Strop) -> None:
    answer = strop("--version")
    assert (answer.code, answer.out.split()[0]) == (0, "strop")


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    # More than a pipe holds.
    file = write(tmp_path / "jobs.yaml", POOL, *(manifest_of(f"job-{number}") for number in range(40)))
    command = f"{sys.executable} -c 'from strop.cli.main import main; main()' plan {file} -o json | head -1"
    answer = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert answer.stderr == ""
    assert answer.stdout == "{\n"


def test_this_machine_is_no_larger_than_its_container(tmp_path: Path) -> None:
    limit = tmp_path / "sys/fs/cgroup/memory.max"
    limit.parent.mkdir(parents=True)
    limit.write_text("max\n", encoding="ascii")
    whole = machine.memory_bytes(tmp_path)
    limit.write_text(f"{1 << 28}\n", encoding="ascii")
    assert machine.memory_bytes(tmp_path) == 1 << 28 < whole
    assert machine.this_machine(tmp_path).spec.memory_per_node == "256Mi"


@pytest.mark.parametrize(
    ("script", "memory"),
    [("echo 24576; echo 16384", "16384Mi"), ("exit 9", None), ("echo no devices", None), ("sleep", None)],
)
def test_accelerators_are_those_that_nvidia_smi_names(
    tmp_path: Path, monkeypatch, script: str, memory: str | None
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = machine.nvidia_accelerator()
    assert (found.memory if found else None) == memory
