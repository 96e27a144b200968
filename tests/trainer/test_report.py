"""What a version says of itself: read by people, by the hub's own library, and by the code that its card shows."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub._eval_results import parse_eval_result_entries
from transformers import AutoTokenizer

from strop_trainer.curves import loss_curves
from strop_trainer.documents import DatasetDocument, ProofDocument, TrainingDocument
from strop_trainer.export.genai import export_onnx
from strop_trainer.export.runners import AnswerRunner
from strop_trainer.lengths import measure_lengths
from strop_trainer.model_card import metric_rows
from strop_trainer.plan import DataFile, MethodPlan
from strop_trainer.proof import ProofResult
from strop_trainer.provenance import Statement
from strop_trainer.report import library_versions, write_reports
from strop_trainer.vllm import Verdict, judge_config
from tests.support.models import tiny_llama
from tests.support.records import make_plan, make_record, make_sample

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

NASTY = '</pre><script>alert(1)</script> & "quotes" {{ 7 * 7 }} | *bold*'


class Links(HTMLParser):
    """Collects what a page would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "object", "embed", "form"}:
            self.found.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (name in {"href", "src", "xlink:href"} and not (value or "").startswith("#")):
                self.found.append(f"{tag} {name}={value}")


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    folder = tmp_path / "stage"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def test_all_documents_are_there_and_valid(stage: Path, tmp_path: Path) -> None:
    write_reports(stage, make_record(tmp_path / "metrics.jsonl"))
    assert sorted(path.name for path in stage.iterdir() if path.is_file()) == [
        "MLmodel",
        "README.md",
        "dataset.json",
        "eval_results.yaml",
        "metrics.jsonl",
        "proof.json",
        "provenance.json",
        "report.html",
        "training.json",
    ]
    training = TrainingDocument.model_validate_json((stage / "training.json").read_bytes())
    assert (training.steps, training.base_model.parameters, training.metrics_tuned["exact_match"]) == (20, 1000, 0.95)
    assert training.plan == make_plan().training
    assert training.libraries["torch"] == library_versions()["torch"]
    assert DatasetDocument.model_validate_json((stage / "dataset.json").read_bytes()).train_rows == 80
    (proof,) = ProofDocument.model_validate_json((stage / "proof.json").read_bytes()).results
    assert (proof.artifact, proof.passed, proof.perplexity_ratio) == ("onnx", True, 1.0)
    assert (stage / "metrics.jsonl").read_text() == (tmp_path / "metrics.jsonl").read_text()


def test_what_rows_and_models_say_is_escaped(stage: Path, tmp_path: Path) -> None:
    samples = [make_sample(NASTY, NASTY, NASTY, NASTY)]
    record = make_record(tmp_path / "metrics.jsonl", samples=samples, metrics_tuned={"<b>": 1.0}, metrics_base={})
    write_reports(stage, record)
    page = (stage / "report.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt; &amp;" in page
    assert "{{ 7 * 7 }}" in page
    assert json.loads((stage / "training.json").read_text())["samples"][0]["tuned"] == NASTY


def test_the_report_needs_nothing_from_outside(stage: Path, tmp_path: Path) -> None:
    write_reports(stage, make_record(tmp_path / "metrics.jsonl", samples=[make_sample("q", "r", "b", "t")]))
    links = Links()
    links.feed((stage / "report.html").read_text())
    assert links.found == []


def test_the_report_shows_curve_metrics_proof_samples_and_time(stage: Path, tmp_path: Path) -> None:
    samples = [make_sample("the question", "the reference", "the base answer", "the tuned answer")]
    write_reports(stage, make_record(tmp_path / "metrics.jsonl", samples=samples))
    page = (stage / "report.html").read_text()
    assert page.count("<svg") == 1
    for expected in (
        '<td>exact_match</td><td class="n">0</td><td class="n">0.95</td>',
        '<td class="ok">proven</td>',
        "the question",
        "the reference",
        "the base answer",
        "the tuned answer",
        '<td class="n">30.0 s</td>',
        "training.epochs",
    ):
        assert expected in page, expected


def test_numbers_that_are_none_do_not_break_a_document(stage: Path, tmp_path: Path) -> None:
    metrics = {"perplexity": math.inf, "eval_loss": math.nan}
    record = make_record(tmp_path / "metrics.jsonl", metrics_tuned=metrics, metrics_base={"only_base": 1.0})
    write_reports(stage, record)
    assert json.loads((stage / "training.json").read_text())["metricsTuned"] == {"eval_loss": None, "perplexity": None}
    assert yaml.safe_load((stage / "eval_results.yaml").read_text()) == []
    assert [row.name for row in metric_rows(record)] == ["perplexity", "eval_loss", "only_base"]
    assert "NaN" not in (stage / "training.json").read_text()


def test_a_run_without_a_step_has_a_report(stage: Path, tmp_path: Path) -> None:
    record = make_record(tmp_path / "metrics.jsonl", steps=0, stage_seconds={}, proofs=[], metrics_tuned={})
    (tmp_path / "metrics.jsonl").unlink()
    write_reports(stage, record)
    assert "Nothing was logged." in (stage / "report.html").read_text()
    assert (stage / "metrics.jsonl").read_text() == ""


def test_the_hub_reads_the_card(stage: Path, tmp_path: Path) -> None:
    write_reports(stage, make_record(tmp_path / "metrics.jsonl"))
    card = ModelCard.load(stage / "README.md", ignore_metadata_errors=False)
    assert card.data.base_model == "owner/base"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.eval_results is not None
    assert {(result.metric_type, result.metric_value) for result in card.data.eval_results} == {
        ("eval_loss", 0.2),
        ("exact_match", 0.95),
    }
    (entry, _) = parse_eval_result_entries(yaml.safe_load((stage / "eval_results.yaml").read_text()))
    assert (entry.task_id, entry.value) == ("eval_loss", 0.2)


def test_a_base_from_a_volume_is_no_model_of_the_hub(stage: Path, tmp_path: Path) -> None:
    plan = make_plan(source="pvc://models/base")
    write_reports(stage, make_record(tmp_path / "metrics.jsonl", plan=plan))
    assert ModelCard.load(stage / "README.md").data.base_model is None


def test_the_card_admits_what_was_not_measured(stage: Path, tmp_path: Path) -> None:
    record = make_record(tmp_path / "metrics.jsonl")
    write_reports(stage, replace(record, dataset=replace(record.dataset, leaked=3)))
    card = (stage / "README.md").read_text()
    assert "With 20 held-out rows, a difference of a few percent may be chance." in card
    assert "the numbers flatter the model" in card
    assert "were not measured" in card


def test_the_report_shows_the_scores_of_what_both_wrote(stage: Path, tmp_path: Path) -> None:
    record = make_record(tmp_path / "metrics.jsonl")
    (proof,) = record.proofs
    assert isinstance(proof, ProofResult)
    scored = replace(proof, scores_pytorch={"bleu": 31.25}, scores_onnx={"bleu": 30.5})
    write_reports(stage, replace(record, proofs=[scored]))
    shown = "1 answers written freely, PyTorch → ONNX: bleu 31.25 → 30.5"
    assert shown in (stage / "report.html").read_text()


def test_report_and_dataset_say_how_long_the_rows_are(stage: Path, tmp_path: Path) -> None:
    lengths = measure_lengths([5, 30, 30, 70], 64)
    write_reports(stage, make_record(tmp_path / "metrics.jsonl", lengths=lengths, truncated=2, dropped=1, shortened=3))
    report = (stage / "report.html").read_text()
    assert "up to 64 (training.maxLength)" in report
    assert "1 (25.0%) exceed the maximum of 64, by 6 tokens in all." in report
    assert "Of the training rows, 2 lost their end, 3 lost the end of their text, so that the answer is whole" in report
    assert "1 have nothing to learn and were left out" in report
    found = json.loads((stage / "dataset.json").read_text())["lengths"]
    assert (found["median"], found["longer"], found["tokensBeyond"]) == (30, 1, 6)
    assert found["buckets"] == [
        {"upTo": bound, "sequences": count} for bound, count in {8: 1, 16: 0, 32: 2, 64: 0, 128: 1}.items()
    ]


def test_the_flavours_point_at_what_is_there(stage: Path, tmp_path: Path) -> None:
    (stage / "onnx").mkdir()
    (stage / "onnx" / "model.onnx").write_bytes(b"graph")
    write_reports(stage, make_record(tmp_path / "metrics.jsonl"))
    flavors: dict[str, Any] = yaml.safe_load((stage / "MLmodel").read_text())["flavors"]
    assert set(flavors) == {"onnx", "onnxruntime_genai", "peft"}
    for flavor in flavors.values():
        assert (stage / flavor["data"]).exists()


def test_the_card_says_how_vllm_loads_the_adapter(stage: Path, tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 12, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none"}
    (stage / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    write_reports(stage, make_record(tmp_path / "metrics.jsonl"))
    command = "vllm serve owner/base --enable-lora --max-lora-rank 16 --lora-modules router=adapter"
    assert command in (stage / "README.md").read_text()
    peft = yaml.safe_load((stage / "MLmodel").read_text())["flavors"]["peft"]
    assert (peft["vllm"], peft["vllm_max_lora_rank"]) == (True, 16)
    (stage / "adapter" / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    write_reports(stage, make_record(tmp_path / "metrics.jsonl"))
    card = (stage / "README.md").read_text()
    assert "vLLM does not load it: it knows no DoRA. Serve the merged model instead" in card
    assert "vllm serve" not in card
    peft = yaml.safe_load((stage / "MLmodel").read_text())["flavors"]["peft"]
    assert peft["vllm"] is False
    assert "vllm_max_lora_rank" not in peft


PLAIN = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj"]}


@pytest.mark.parametrize(
    ("rank", "allowed"), [(1, 1), (2, 8), (8, 8), (9, 16), (128, 128), (257, 320), (321, 512), (512, 512)]
)
def test_the_rank_that_vllm_must_be_started_with(rank: int, allowed: int) -> None:
    assert judge_config(PLAIN | {"r": rank}) == Verdict(allowed)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"peft_type": "IA3"}, "it loads LoRA adapters alone, and this one is of type IA3"),
        ({"use_dora": True}, "it knows no DoRA"),
        ({"modules_to_save": ["lm_head"]}, "it takes no modules that were trained in full, here lm_head"),
        ({"bias": "all"}, "it takes no biases"),
        ({"r": 513}, "it takes ranks up to 512, and this one has 513"),
    ],
)
def test_why_vllm_does_not_load_an_adapter(change: dict[str, Any], reason: str) -> None:
    assert judge_config(PLAIN | change) == Verdict(None, reason)


def test_provenance_names_model_base_and_data(stage: Path, tmp_path: Path) -> None:
    write_reports(stage, make_record(tmp_path / "metrics.jsonl"))
    statement = json.loads((stage / "provenance.json").read_text())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert [subject["name"] for subject in statement["subject"]] == ["adapter/adapter_model.safetensors"]
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["method"]["lora"]["rank"] == 8
    assert [(one["uri"], one["digest"]["sha256"]) for one in definition["resolvedDependencies"]] == [
        ("hf://owner/base@main", "b" * 64),
        ("configmap://rows/train.jsonl", "a" * 64),
    ]
    Statement.model_validate(statement)


def test_a_version_names_the_commits_that_were_fetched(stage: Path, tmp_path: Path) -> None:
    commit, rows = "c" * 40, {"hf://datasets/owner/rows": "d" * 40}
    write_reports(stage, make_record(tmp_path / "metrics.jsonl", base_commit=commit, dataset_commits=rows))
    assert json.loads((stage / "training.json").read_text())["baseModel"]["revision"] == commit
    assert json.loads((stage / "dataset.json").read_text())["commits"] == rows
    assert f"at `{commit}`" in (stage / "README.md").read_text()
    assert f"@{commit}" in (stage / "provenance.json").read_text()


def test_the_same_numbers_give_the_same_curve() -> None:
    lines = [{"step": step, "loss": 1 / step} for step in range(1, 9)]
    first = loss_curves([*lines, {"step": 8, "eval_loss": 0.3}])
    assert first == loss_curves([*lines, {"step": 8, "eval_loss": 0.3}])
    assert first.startswith("<svg")
    assert "held out" in first
    assert "held out" not in loss_curves(lines)
    assert loss_curves([]) == ""


@pytest.mark.trainer
def test_the_code_on_the_card_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "card"
    card.mkdir()
    export_onnx(tiny_llama(tmp_path / "model"), card / "onnx", "fp32")
    write_reports(card, make_record(tmp_path / "metrics.jsonl"))
    (code,) = re.findall(r"```python\n(.*?)```", (card / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(card)
    capsys.readouterr()  # what libraries said on the way
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - the card's own code
    tokenizer = AutoTokenizer.from_pretrained(card / "onnx")
    messages = [{"role": "user", "content": "…"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    expected = tokenizer.decode(AnswerRunner(card / "onnx", 1).greedy(prompt, 64), skip_special_tokens=True)
    assert capsys.readouterr().out.strip() == expected.strip()


@pytest.mark.parametrize(
    ("tokens", "change", "told"),
    [
        (2001, {}, True),
        (2000, {}, False),
        (2001, {"task": "preference"}, False),
        (2001, {"method": MethodPlan(type="full")}, False),
    ],
)
def test_rows_that_tell_more_than_an_adapter_holds_are_noted(
    stage: Path, tmp_path: Path, tokens: int, change: dict[str, Any], told: bool
) -> None:
    plan = make_plan()
    plan = plan.model_copy(update={"training": plan.training.model_copy(update=change)})
    record = make_record(tmp_path / "metrics.jsonl", plan=plan)
    write_reports(stage, replace(record, target_tokens=tokens, trainable_parameters=1000))
    words = f"{tokens:,} learnt tokens are more than an adapter of 1,000 parameters holds"
    assert [words in (stage / name).read_text() for name in ("README.md", "report.html")] == [told, told]


@pytest.mark.parametrize(
    ("licence", "front"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("Llama 3.1 Community License", {"license": "llama3.1"}),
        ("Qwen Research License", {"license": "other", "license_name": "qwen-research-license"}),
        ("Apache-2.0 and MIT", {}),
        (None, {}),
    ],
)
def test_the_card_names_the_licence_where_it_is_known(
    stage: Path, tmp_path: Path, licence: str | None, front: dict[str, str]
) -> None:
    plan = make_plan().model_copy(update={"licence": licence})
    write_reports(stage, make_record(tmp_path / "metrics.jsonl", plan=plan))
    found = yaml.safe_load((stage / "README.md").read_text().split("---")[1])
    assert {name: found[name] for name in ("license", "license_name") if name in found} == front


def test_adapted_ends_of_the_model_load_in_vllm_on_a_condition(stage: Path, tmp_path: Path) -> None:
    config = PLAIN | {"target_modules": ["q_proj", "lm_head"]}
    verdict = judge_config(config)
    assert verdict.loads
    assert verdict.condition.startswith("lm_head adapted: it takes that of architectures whose class")
    assert judge_config(PLAIN).condition == ""
    (stage / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    write_reports(stage, make_record(tmp_path / "metrics.jsonl"))
    assert verdict.condition in (stage / "README.md").read_text()
    assert yaml.safe_load((stage / "MLmodel").read_text())["flavors"]["peft"]["vllm_condition"] == verdict.condition


def test_adapters_of_experts_are_not_judged(stage: Path, tmp_path: Path) -> None:
    config = PLAIN | {"target_parameters": ["gate_up_proj", "down_proj"]}
    (stage / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    write_reports(stage, make_record(tmp_path / "metrics.jsonl"))
    assert "vLLM" not in (stage / "README.md").read_text()
    assert "vllm" not in yaml.safe_load((stage / "MLmodel").read_text())["flavors"]["peft"]


def test_no_document_tells_what_an_address_is_signed_with(stage: Path, tmp_path: Path) -> None:
    plan = make_plan(source="https://host.example/m.tar.gz?signature=hidden")
    train = [DataFile(source="https://host.example/rows.jsonl?signature=hidden", sha256="a" * 64)]
    dataset = plan.training.dataset.model_copy(update={"train": train, "validation": train})
    plan = plan.model_copy(update={"training": plan.training.model_copy(update={"dataset": dataset})})
    write_reports(stage, make_record(tmp_path / "metrics.jsonl", plan=plan))
    texts = {path.name: path.read_text() for path in stage.iterdir() if path.is_file()}
    assert [name for name, text in texts.items() if "hidden" in text] == []
    for name in ("training.json", "provenance.json", "README.md", "report.html"):
        assert "https://host.example/m.tar.gz" in texts[name]
    assert "https://host.example/rows.jsonl" in texts["dataset.json"]
    assert json.loads(texts["training.json"])["planDigest"] == plan.digest
