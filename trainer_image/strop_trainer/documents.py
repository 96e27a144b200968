"""The JSON documents of a version: one type each, for who writes and for who checks. No torch here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from strop_trainer.lengths import TokenLengths
from strop_trainer.manifest import Manifest
from strop_trainer.plan import (
    DatasetPlan,
    OnnxPrecision,
    PlanModel,
    Precision,
    ProofPlan,
    Resolution,
    TrainingPlan,
)
from strop_trainer.provenance import Statement

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Message(PlanModel):
    """One turn."""

    role: str
    content: str


class SampleDocument(PlanModel):
    """One held-out row, answered before and after."""

    messages: list[Message]
    """The prompt, as it is given to a chat template."""
    reference: str
    base: str
    tuned: str
    merged: str | None = None
    """Of the merged model, where the adapter was trained on other weights than it is merged into."""


class BaseModelDocument(PlanModel):
    """What was tuned."""

    source: str
    revision: str | None = None
    """Commit that was fetched of an hf:// source."""
    fingerprint: str
    """sha256 over weight and configuration files."""
    architecture: str
    parameters: int


class RankUse(PlanModel):
    """What one rank used in training."""

    rank: int
    peak_bytes: int
    """Memory of its process."""
    device_peak_bytes: int | None = None
    """Memory of its accelerator; null on a CPU."""
    cpu_seconds: float = 0.0
    """Processor time of all its threads, in the last attempt; what runs beside it hardly changes it."""


class Roofline(PlanModel):
    """How near training came to what its machine can do."""

    flops_per_second: float
    """Operations of the model's matrix products: 6 a trained weight and token, 4 a frozen one; of all ranks."""
    peak_flops_per_second: float
    """Of a large matrix product in the precision of training, measured before it; of all ranks."""

    @property
    def share(self) -> float:
        """The first over the second."""
        return self.flops_per_second / self.peak_flops_per_second


class TrainingDocument(PlanModel):
    """training.json: what was done, on what, and what came of it."""

    schema_: Literal["strop.dev/training/v1alpha1"] = Field(default="strop.dev/training/v1alpha1", alias="schema")
    created_at: str
    plan_digest: Digest
    plan: TrainingPlan
    """As it ran, but for what its addresses were signed with, which the digest covers and nobody is told."""
    resolved: list[Resolution]
    base_model: BaseModelDocument
    trainable_parameters: int
    steps: int
    tokens_per_second: float
    """Trained, of the last attempt."""
    precision: Precision | None = None
    """That it was computed in, where the plan says auto as well."""
    gradient_checkpointing: bool | None = None
    """Whether activations were recomputed in the last attempt, where the plan says auto as well."""
    roofline: Roofline | None = None
    """Of the last attempt; null where it had nothing left to do."""
    peak_bytes: int
    """Memory of rank 0, all stages included."""
    ranks: list[RankUse] = []
    """Each rank's use in training."""
    threads: int
    packed: bool
    metrics_base: dict[str, float | None]
    """On held-out rows; null for what is not a finite number."""
    metrics_tuned: dict[str, float | None]
    stage_seconds: dict[str, float]
    samples: list[SampleDocument]
    libraries: dict[str, str]
    machine: str


class DatasetDocument(PlanModel):
    """dataset.json: the rows, counted; not the rows themselves."""

    schema_: Literal["strop.dev/dataset/v1alpha1"] = Field(default="strop.dev/dataset/v1alpha1", alias="schema")
    fingerprint: Digest
    """Over the normalised rows."""
    sources: DatasetPlan
    commits: dict[str, str] = {}
    """Of the hub's repositories that rows were fetched from: `hf://datasets/owner/name@revision` → commit."""
    files: list[str]
    train_rows: int
    validation_rows: int
    duplicates: int
    """Training rows that are equal to an earlier one."""
    leaked: int
    """Held-out rows that are also training rows."""
    leaked_prompts: int
    """Held-out rows whose prompt is in the training rows."""
    truncated: int
    dropped: int
    shortened: int = 0
    """Rows whose source lost its end, so that the answer is within the maximum length."""
    tokens: int
    """Of one epoch."""
    target_tokens: int
    """Of one epoch; what is learnt."""
    lengths: TokenLengths | None = None
    """Of the training sequences, before they were cut."""


class AnswerDocument(PlanModel):
    """One prompt, answered freely by PyTorch and by the export."""

    reference: str
    pytorch: str
    onnx: str


class ProofEntry(PlanModel):
    """One export, as measured. Shares are in 0..1; null is what is not a finite number."""

    artifact: str
    precision: OnnxPrecision
    passed: bool
    reasons: list[str]
    judged_by: list[str] = []
    """Numbers with their limits, in words."""
    rows: int
    positions: int
    answer_tokens: int
    finite: bool
    max_logit_difference: float | None
    token_agreement: float | None
    greedy_agreement: float | None
    perplexity_pytorch: float | None
    perplexity_onnx: float | None
    perplexity_ratio: float | None
    exact_match_pytorch: float | None
    exact_match_onnx: float | None
    token_accuracy_pytorch: float | None
    token_accuracy_onnx: float | None
    metrics_pytorch: dict[str, float | None] = {}
    """The task's metrics, where it is one of labels."""
    metrics_onnx: dict[str, float | None] = {}
    scores_pytorch: dict[str, float | None] = {}
    """The task's metrics of `answers`, where it is one of words; no export is judged by so few."""
    scores_onnx: dict[str, float | None] = {}
    chat_template: str | None = None
    """Why ONNX Runtime GenAI renders a prompt otherwise than transformers; empty where it does not, null: not tried."""
    answers: list[AnswerDocument]


class AdapterProof(PlanModel):
    """The saved adapter, loaded again onto the base model, against the model that was trained."""

    passed: bool
    logit_difference: float | None
    """Norm of the difference over the norm of the logits, the largest of any pass; null where it is no number."""
    limit: float
    passes: int
    """Forward passes over held-out rows that were compared."""


class MergedProof(PlanModel):
    """The merged model, in fp32, against the two that it is made from. Differences are as of `AdapterProof`."""

    passed: bool
    logit_difference: float | None
    """From the adapter beside the same base."""
    limit: float
    trained_difference: float | None
    """From the model that was trained; null where the weights of its base were others, be it only rounded to bf16."""
    trained_limit: float | None


class ProofDocument(PlanModel):
    """proof.json: each export against PyTorch in fp32, on held-out rows."""

    schema_: Literal["strop.dev/proof/v1alpha1"] = Field(default="strop.dev/proof/v1alpha1", alias="schema")
    limits: ProofPlan
    results: list[ProofEntry]
    adapter: AdapterProof | None = None
    """Absent without an adapter, and where it was trained on another base than it is published for: there, the metrics
    that end in `_merged` tell what the published one does."""
    merged: MergedProof | None = None
    """Absent where no adapter was merged."""


DOCUMENTS: dict[str, type[BaseModel]] = {
    "training.json": TrainingDocument,
    "dataset.json": DatasetDocument,
    "proof.json": ProofDocument,
    "provenance.json": Statement,
}
MODEL_FILES = ("/genai_config.json", "/model.onnx", "/encoder_model.onnx", "/adapter_config.json", "merged/config.json")
"""What makes a folder a model."""
TEXTS = ("README.md", "report.html", "MLmodel", "metrics.jsonl", "eval_results.yaml")


def dump(document: BaseModel) -> str:
    """Return a document as it is written."""
    return document.model_dump_json(by_alias=True, exclude_none=isinstance(document, Statement), indent=1) + "\n"


def check_documents(version: Path, manifest: Manifest) -> list[str]:
    """Return what is wrong with a version's documents, one sentence each."""
    problems = [f"{name}: missing" for name in (*DOCUMENTS, *TEXTS) if not (version / name).is_file()]
    for name, model in DOCUMENTS.items():
        problems += _problems(version / name, model.model_validate_json)
    problems += _problems(version / "metrics.jsonl", _json_lines)
    for name in ("eval_results.yaml", "MLmodel"):
        problems += _problems(version / name, yaml.safe_load)
    if not any(entry.path.endswith(MODEL_FILES) for entry in manifest.files):
        problems.append("onnx/, adapter/, merged/: found none, expected at least one model")
    problems += _provenance_problems(version, manifest)
    proof = version / "proof.json"
    if proof.is_file() and not problems:
        failed = [
            entry.artifact
            for entry in ProofDocument.model_validate_json(proof.read_bytes()).results
            if not entry.passed
        ]
        problems += [f"{artifact}: was published without passing its proof" for artifact in failed]
    return problems


def _problems(path: Path, read: Callable[[bytes], object]) -> list[str]:
    if not path.is_file():
        return []
    try:
        read(path.read_bytes())
    except ValidationError as error:
        return [
            f"{path.name}: {'.'.join(map(str, detail['loc'])) or 'document'}: {detail['msg']}"
            for detail in error.errors()
        ]
    except (ValueError, yaml.YAMLError) as error:
        return [f"{path.name}: {error}".replace("\n", " ")]
    return []


def _json_lines(content: bytes) -> None:
    for number, line in enumerate(content.splitlines(), 1):
        try:
            json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error


def _provenance_problems(version: Path, manifest: Manifest) -> list[str]:
    path = version / "provenance.json"
    try:
        statement = Statement.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return []
    known = {entry.path: entry.sha256 for entry in manifest.files}
    return [
        f"provenance.json: subject {subject.name} has another digest than the manifest"
        for subject in statement.subject
        if known.get(subject.name or "") != subject.digest.get("sha256")
    ]
