"""A run's record and a published version, without training anything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from strop_trainer import registry
from strop_trainer.documents import RankUse
from strop_trainer.evaluation import Sample
from strop_trainer.plan import (
    CheckpointPlan,
    DataFile,
    DatasetPlan,
    Hyperparameters,
    LoraPlan,
    MethodPlan,
    ModelSource,
    OutputPlacement,
    PlacementPlan,
    Plan,
    Resolution,
    ResourcesPlacement,
    TrainingPlan,
    plan_digest,
)
from strop_trainer.proof import Answer, Measured, ProofResult
from strop_trainer.record import RunRecord
from strop_trainer.registry import PublishedLocation
from strop_trainer.report import write_reports
from strop_trainer.tasks.base import DatasetStatistics


def make_plan(*, model: str = "router", source: str = "hf://owner/base") -> Plan:
    """Return a plan for LoRA on chat rows."""
    training = TrainingPlan(
        task="chat",
        model=ModelSource(source=source, revision="main" if source.startswith("hf://") else None),
        dataset=DatasetPlan(train=[DataFile(source="configmap://rows/train.jsonl")]),
        method=MethodPlan(type="lora", lora=LoraPlan(rank=8, alpha=16, dropout=0.0, target_modules="all-linear")),
        hyperparameters=Hyperparameters(
            learning_rate=1e-3,
            scheduler="linear",
            warmup_ratio=0.1,
            weight_decay=0.0,
            max_grad_norm=1.0,
            optimizer="adamw",
            epochs=1.0,
            effective_batch_size=4,
            micro_batch_size=4,
            max_length=64,
            packing=False,
            precision="fp32",
            gradient_checkpointing=False,
            seed=0,
            deterministic=True,
        ),
        checkpoint=CheckpointPlan(every_steps=10),
    )
    return Plan(
        digest=plan_digest(training),
        training=training,
        placement=PlacementPlan(
            namespace="team",
            job="job",
            pool="cpu",
            resources=ResourcesPlacement(cpu="2", memory="4Gi"),
            output=OutputPlacement(claim="models", model=model),
        ),
        resolved=[Resolution(field="training.epochs", value=1.0, reason="enough")],
    )


MEASURED = Measured(
    rows=2,
    positions=40,
    answer_tokens=10,
    finite=True,
    max_logit_difference=1e-4,
    token_agreement=1.0,
    greedy_agreement=1.0,
    perplexity_pytorch=1.2,
    perplexity_onnx=1.2,
    exact_match_pytorch=0.5,
    exact_match_onnx=0.5,
    token_accuracy_pytorch=0.9,
    token_accuracy_onnx=0.9,
)


def make_record(metrics_file: Path, **changes: Any) -> RunRecord:
    """Return a record of a run of 20 steps; writes its metrics file."""
    lines = [{"step": step, "loss": 2.0 / step, "learning_rate": 1e-3} for step in range(1, 21)]
    lines.append({"step": 20, "eval_loss": 0.2})
    metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    record = RunRecord(
        plan=make_plan(),
        dataset=DatasetStatistics(
            fingerprint="sha256:" + "a" * 64,
            train_rows=80,
            validation_rows=20,
            duplicates=1,
            leaked=0,
            leaked_prompts=0,
            files=["train.jsonl"],
        ),
        truncated=0,
        dropped=0,
        shortened=0,
        tokens=4000,
        target_tokens=800,
        base_fingerprint="b" * 64,
        architecture="LlamaForCausalLM",
        total_parameters=1100,
        base_parameters=1000,
        trainable_parameters=100,
        steps=20,
        tokens_per_second=300.0,
        peak_bytes=2 * 10**9,
        ranks=[RankUse(rank=0, peak_bytes=2 * 10**9)],
        threads=2,
        packed=True,
        metrics_base={"eval_loss": 2.0, "exact_match": 0.0},
        metrics_tuned={"eval_loss": 0.2, "exact_match": 0.95},
        samples=[],
        proofs=[ProofResult("onnx", "fp32", MEASURED, (), (Answer("yes", "yes", "yes"),))],
        stage_seconds={"train": 30.0, "export": 5.0},
        metrics_file=metrics_file,
    )
    return replace(record, **changes)


def make_sample(prompt: str, reference: str, base: str, tuned: str) -> Sample:
    """Return a sample whose prompt is one user message."""
    return Sample(prompt, reference, base, tuned, [{"role": "user", "content": prompt}])


def publish_version(registry_folder: Path, scratch: Path, *, uid: str = "uid-1", **changes: Any) -> PublishedLocation:
    """Publish a version with all its documents and a small adapter."""
    record = make_record(scratch / f"metrics-{uid}.jsonl", **changes)

    def fill(stage: Path) -> None:
        (stage / "adapter").mkdir()
        (stage / "adapter" / "adapter_config.json").write_text("{}")
        (stage / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
        write_reports(stage, record)

    return registry.publish(
        registry_folder, record.plan.placement.output.model, uid, fill, plan_digest=record.plan.digest
    )
