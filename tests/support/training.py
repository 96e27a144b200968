"""Plans for the trainer, and the folders around a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strop_trainer.documents import TrainingDocument
from strop_trainer.plan import Plan, plan_digest
from strop_trainer.termination import TerminationMessage
from tests.support.data import chat_rows, write_jsonl
from tests.support.warm import start_warm

REPOSITORY = Path(__file__).resolve().parents[2]


def make_plan(**changes: Any) -> Plan:
    """Return a small plan; `hyperparameters`, `evaluation`, `artifact`, `dataset`, … update parts of its training."""
    training: dict[str, Any] = {
        "task": "chat",
        "model": {"source": "pvc://models/tiny"},
        "dataset": {
            "train": [{"source": "pvc://data/train.jsonl"}],
            "validation": [{"source": "pvc://data/held.jsonl"}],
        },
        "method": {
            "type": "lora",
            "lora": {"rank": 4, "alpha": 8, "dropout": 0.1, "target_modules": "all-linear"},
        },
        "hyperparameters": {
            "learning_rate": 1e-2,
            "scheduler": "cosine",
            "warmup_ratio": 0.1,
            "weight_decay": 0.01,
            "max_grad_norm": 1.0,
            "optimizer": "adamw",
            "epochs": 1.0,
            "max_steps": 6,
            "effective_batch_size": 4,
            "micro_batch_size": 2,
            "max_length": 64,
            "packing": True,
            "precision": "fp32",
            "gradient_checkpointing": False,
            "seed": 7,
            "deterministic": True,
        },
        "evaluation": {"generate_rows": 2, "max_new_tokens": 4},
        "checkpoint": {"every_steps": 2},
        "artifact": {"onnx": []},
    }
    placement = {
        "namespace": "team",
        "job": "job",
        "pool": "cpu",
        "resources": {"cpu": "2", "memory": "4Gi"},
        "output": {"claim": "strop-models", "model": "tuned"},
    }
    for part, change in changes.items():
        training[part] = {**training.get(part, {}), **change} if isinstance(change, dict) else change
    document = {"digest": "", "training": training, "placement": placement}
    plan = Plan.model_validate({**document, "schema": "strop.dev/plan/v1alpha1"})
    return plan.model_copy(update={"digest": plan_digest(plan.training)})


@dataclass
class Surroundings:
    """Folders as the CLI or a pod would give them, and the trainer as a process in them."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    uid: str = "11111111-2222-3333-4444-555555555555"

    def __post_init__(self) -> None:
        """Make the folders."""
        for folder in (self.volumes / "data", self.volumes / "models", self.config_maps, self.registry, self.work):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def config_maps(self) -> Path:
        return self.root / "configmaps"

    @property
    def registry(self) -> Path:
        return self.root / "registry" / "team"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def write_rows(self, train: int = 12, held: int = 4) -> None:
        """Write train.jsonl and held.jsonl to the claim `data`."""
        rows = chat_rows(train + held)
        write_jsonl(self.volumes / "data" / "train.jsonl", rows[:train])
        write_jsonl(self.volumes / "data" / "held.jsonl", rows[train:])

    def variables(self, plan: Plan) -> dict[str, str]:
        """Write the plan and return the environment of the trainer."""
        (self.root / "plan.json").write_text(plan.model_dump_json(by_alias=True, exclude_none=True))
        return {
            **os.environ,
            "STROP_PLAN": str(self.root / "plan.json"),
            "STROP_VOLUMES": str(self.volumes),
            "STROP_CONFIGMAPS": str(self.config_maps),
            "STROP_REGISTRY": str(self.registry),
            "STROP_WORK": str(self.work),
            "STROP_TERMINATION_LOG": str(self.root / "termination"),
            "STROP_JOB_UID": self.uid,
            "STROP_THREADS": "1",
            **self.environment,
        }

    def start(self, plan: Plan) -> subprocess.Popen[str]:
        """Start the trainer."""
        return subprocess.Popen(
            [sys.executable, "-m", "strop_trainer"],
            env=self.variables(plan),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, plan: Plan, timeout: float = 300, *, warm: bool = True) -> Ended:
        """Run the trainer to its end, warm; or from nothing, as with an environment of its own."""
        if warm and not self.environment:
            return self._run_warm(plan, timeout)
        process = self.start(plan)
        try:
            output, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
        return self.ended(process.returncode, output, errors)

    def _run_warm(self, plan: Plan, timeout: float) -> Ended:
        output, errors = self.root / "stdout", self.root / "stderr"
        process = start_warm(self.variables(plan), output, errors)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"the trainer did not end in {timeout} s:\n{output.read_text()}{errors.read_text()}")
        return self.ended(process.exitcode, output.read_text(), errors.read_text())

    def ended(self, code: int, output: str, errors: str) -> Ended:
        """Return how a trainer ended."""
        log = self.root / "termination"
        message = TerminationMessage.model_validate_json(log.read_text()) if log.exists() else None
        return Ended(code, output, errors, message)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl in the work folder."""
        return [json.loads(line) for line in (self.work / "metrics.jsonl").read_text().splitlines()]


@dataclass(frozen=True)
class Ended:
    """How a trainer ended."""

    code: int
    output: str
    errors: str
    message: TerminationMessage | None


def told_of_learnt_and_proven(version: Path) -> TrainingDocument:
    """Return what a version tells of its training; it has learnt something, and is proven in fp32 and int4."""
    told = TrainingDocument.model_validate_json((version / "training.json").read_bytes())
    before, after = (metrics["eval_loss"] for metrics in (told.metrics_base, told.metrics_tuned))
    assert before is not None
    assert after is not None
    assert after < before - 0.5
    results = json.loads((version / "proof.json").read_text())["results"]
    assert [(entry["precision"], entry["passed"]) for entry in results] == [("fp32", True), ("int4", True)]
    assert results[0]["maxLogitDifference"] < 1e-4
    return told
