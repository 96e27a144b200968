"""The documents of a version, written from what the run has to tell."""

from __future__ import annotations

import json
import math
import platform
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from strop_trainer.addresses import published
from strop_trainer.capacity import capacity_note
from strop_trainer.curves import loss_curves
from strop_trainer.documents import (
    BaseModelDocument,
    DatasetDocument,
    Message,
    ProofDocument,
    ProofEntry,
    SampleDocument,
    TrainingDocument,
    dump,
)
from strop_trainer.export.encoder_decoder import DECODER, ENCODER
from strop_trainer.lengths import in_words
from strop_trainer.manifest import FileEntry, file_sha256
from strop_trainer.model_card import merged_in_words, metric_rows, render_card
from strop_trainer.provenance import make_statement
from strop_trainer.shared_bases import ADAPTER_FILE, ADAPTER_FOLDER, REFERENCE_FILE
from strop_trainer.vllm import Verdict, judge_adapter

if TYPE_CHECKING:
    from strop_trainer.evaluation import Sample
    from strop_trainer.record import RunRecord

LIBRARIES = (
    "strop",
    "torch",
    "transformers",
    "peft",
    "safetensors",
    "tokenizers",
    "onnx",
    "onnxruntime",
    "onnxruntime-genai",
    "numpy",
)


def write_reports(stage: Path, record: RunRecord) -> None:
    """Write all documents of a version beside its models.

    Args:
        stage: folder of the version, in which the models (`onnx/`, `adapter/`, …) are already.
        record: the run.
    """
    record = replace(record, plan=published(record.plan))
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    folders = sorted(path.name for path in stage.iterdir() if path.is_dir())
    models = [
        FileEntry(path=path.relative_to(stage).as_posix(), size=path.stat().st_size, sha256=file_sha256(path))
        for folder in folders
        for path in sorted((stage / folder).rglob("*"))
        if path.is_file()
    ]
    training = training_document(record, now)
    # What vLLM does with adapters of a model of encoder and decoder, or of experts, was not read in its loader.
    has_adapter = (stage / "adapter" / "adapter_config.json").is_file()
    served = judge_adapter(stage / "adapter") if has_adapter and not record.encoder_decoder else None
    proof = ProofDocument(
        limits=record.plan.training.artifact.proof,
        results=[ProofEntry.model_validate(result.to_json()) for result in record.proofs],
        adapter=record.reloaded,
        merged=record.merged,
    )
    statement = make_statement(
        record.plan,
        models,
        base_revision=training.base_model.revision,
        base_fingerprint=record.base_fingerprint,
        dataset_fingerprint=record.dataset.fingerprint,
        libraries=training.libraries,
        finished_on=now,
    )
    metrics = record.metrics_file.read_text(encoding="utf-8") if record.metrics_file.exists() else ""
    lines = [json.loads(line) for line in metrics.splitlines() if line]
    texts = {
        "training.json": dump(training),
        "dataset.json": dump(dataset_document(record)),
        "proof.json": dump(proof),
        "provenance.json": dump(statement),
        "metrics.jsonl": metrics,
        "eval_results.yaml": yaml.safe_dump(eval_results(record, now), sort_keys=False, allow_unicode=True),
        "MLmodel": yaml.safe_dump(ml_model(record, folders, training.libraries, now, served), sort_keys=False),
        "README.md": render_card(record, training, folders, served),
        "report.html": render_html(record, training, proof, lines),
    }
    for name, text in texts.items():
        (stage / name).write_text(text, encoding="utf-8")


def training_document(record: RunRecord, now: str) -> TrainingDocument:
    """Return training.json."""
    model = record.plan.training.model
    return TrainingDocument(
        created_at=now,
        plan_digest=record.plan.digest,
        plan=record.plan.training,
        resolved=record.plan.resolved,
        base_model=BaseModelDocument(
            source=model.source,
            revision=record.base_commit or model.revision,
            fingerprint=record.base_fingerprint,
            architecture=record.architecture,
            parameters=record.base_parameters,
        ),
        trainable_parameters=record.trainable_parameters,
        steps=record.steps,
        tokens_per_second=record.tokens_per_second,
        precision=record.precision,
        gradient_checkpointing=record.gradient_checkpointing,
        roofline=record.roofline,
        peak_bytes=record.peak_bytes,
        ranks=record.ranks,
        threads=record.threads,
        packed=record.packed,
        metrics_base=_finite(record.metrics_base),
        metrics_tuned=_finite(record.metrics_tuned),
        stage_seconds=record.stage_seconds,
        samples=[
            SampleDocument(
                messages=[Message(**message) for message in messages_of(sample)],
                reference=sample.reference,
                base=sample.base,
                tuned=sample.tuned,
                merged=sample.merged,
            )
            for sample in record.samples
        ],
        libraries=library_versions(),
        machine=machine(),
    )


def dataset_document(record: RunRecord) -> DatasetDocument:
    """Return dataset.json."""
    counts = record.dataset
    return DatasetDocument(
        fingerprint=counts.fingerprint,
        sources=record.plan.training.dataset,
        commits=record.dataset_commits,
        files=counts.files,
        train_rows=counts.train_rows,
        validation_rows=counts.validation_rows,
        duplicates=counts.duplicates,
        leaked=counts.leaked,
        leaked_prompts=counts.leaked_prompts,
        truncated=record.truncated,
        dropped=record.dropped,
        shortened=record.shortened,
        tokens=record.tokens,
        target_tokens=record.target_tokens,
        lengths=record.lengths,
    )


def eval_results(record: RunRecord, now: str) -> list[dict[str, Any]]:
    """Return eval_results.yaml in the hub's format: one entry a metric of the tuned model."""
    return [
        {
            "dataset": {"id": "held-out", "task_id": name, "revision": record.dataset.fingerprint},
            "value": value,
            "date": now,
            "notes": f"{record.dataset.validation_rows} held-out rows"
            + (f"; base model: {record.metrics_base[name]}" if name in record.metrics_base else ""),
        }
        for name, value in _finite(record.metrics_tuned).items()
        if value is not None
    ]


def ml_model(
    record: RunRecord, folders: list[str], libraries: dict[str, str], now: str, served: Verdict | None
) -> dict[str, Any]:
    """Return the MLmodel file: which flavours are where."""
    flavors: dict[str, Any] = {}
    if "onnx" in folders and record.encoder_decoder:
        flavors["onnx_encoder_decoder"] = {
            "encoder": f"onnx/{ENCODER}",
            "decoder": f"onnx/{DECODER}",
            "onnx_version": libraries.get("onnx"),
        }
    elif "onnx" in folders:
        flavors["onnx"] = {
            "data": "onnx/model.onnx",
            "onnx_version": libraries.get("onnx"),
            "providers": ["CPUExecutionProvider"],
        }
        if not any("metrics_onnx" in proof.to_json() for proof in record.proofs):  # else its outputs are labels
            flavors["onnxruntime_genai"] = {"data": "onnx", "version": libraries.get("onnxruntime-genai")}
    if ADAPTER_FOLDER in folders:
        flavors["onnxruntime_genai_adapter"] = {
            "data": f"{ADAPTER_FOLDER}/{ADAPTER_FILE}",
            "base": f"{ADAPTER_FOLDER}/{REFERENCE_FILE}",
            "version": libraries.get("onnxruntime-genai"),
        }
    if "adapter" in folders:
        flavors["peft"] = {"data": "adapter", "version": libraries.get("peft")}
        if served is not None:
            flavors["peft"]["vllm"] = served.loads
            flavors["peft"] |= {"vllm_max_lora_rank": served.max_lora_rank} if served.loads else {}
            flavors["peft"] |= {"vllm_condition": served.condition} if served.condition else {}
    if "merged" in folders:
        flavors["transformers"] = {"data": "merged", "version": libraries.get("transformers")}
    return {
        "artifact_path": record.plan.placement.output.model,
        "flavors": flavors,
        "model_uuid": uuid.uuid4().hex,
        "utc_time_created": now,
        "metadata": {"strop.dev/plan-digest": record.plan.digest, "task": record.plan.training.task},
    }


def render_html(
    record: RunRecord, training: TrainingDocument, proof: ProofDocument, metrics: list[dict[str, Any]]
) -> str:
    """Return report.html: one file, no links to the outside, everything from rows and models escaped."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415
    from markupsafe import Markup  # noqa: PLC0415

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: "-" if value is None else f"{value:.4g}"
    template = environment.from_string(
        (Path(__file__).parent / "templates" / "report.html.j2").read_text(encoding="utf-8")
    )
    total = sum(record.stage_seconds.values()) or 1.0
    return template.render(
        name=record.plan.placement.output.model,
        plan=record.plan,
        training=training,
        dataset=record.dataset,
        capacity=capacity_note(record.plan.training, record.trainable_parameters, record.target_tokens),
        lost=lost_in_words(record),
        lengths=record.lengths,
        lengths_in_words=in_words(record.lengths) if record.lengths else "",
        proofs=proof.results,
        limits=proof.limits,
        metrics=metric_rows(record),
        merged=merged_in_words(record),
        stages=[(name, seconds, seconds / total) for name, seconds in record.stage_seconds.items()],
        curves=Markup(loss_curves(metrics)),  # noqa: S704 - drawn from numbers
    )


def lost_in_words(record: RunRecord) -> str:
    """Return how many training rows lost something to the maximum length; "" where none did."""
    parts = (
        (record.truncated, "lost their end"),
        (record.shortened, "lost the end of their text, so that the answer is whole"),
        (record.dropped, "have nothing to learn and were left out"),
    )
    return ", ".join(f"{count:,} {words}" for count, words in parts if count)


def messages_of(sample: Sample) -> list[dict[str, str]]:
    """Return a sample's prompt as messages."""
    return sample.messages or [{"role": "user", "content": sample.prompt}]


def library_versions() -> dict[str, str]:
    """Return name → version of what computed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Return the machine in words: processor, operating system."""
    processor = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = f"{line.partition(':')[2].strip()} ({processor})"
                break
    except OSError:
        pass
    return f"{processor}, {platform.system()} {platform.release()}"


def _finite(metrics: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
