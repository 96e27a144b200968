"""A job on its way through the stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop_trainer.context import Clock, Settings, StopRequest
from strop_trainer.device import CPU
from strop_trainer.documents import Roofline
from strop_trainer.plan import OnnxPrecision, Plan, TrainingPlan
from strop_trainer.progress import Progress
from strop_trainer.ranks.team import Team
from strop_trainer.sources.model_folder import ModelFolder
from strop_trainer.tasks.base import Dataset, Encoded, Question, Task
from strop_trainer.termination import PublishedVersion

if TYPE_CHECKING:
    from strop_trainer.batches import Batch
    from strop_trainer.documents import AdapterProof, MergedProof
    from strop_trainer.evaluation import Sample
    from strop_trainer.heads.base import Head
    from strop_trainer.methods import LoadedModel
    from strop_trainer.proof import Proof
    from strop_trainer.roofline import Work
    from strop_trainer.training import TrainResult


@dataclass
class Run:
    """A job on its way: each stage reads what the ones before it have found out."""

    settings: Settings
    plan: Plan
    """As it is computed: from `prepare` on, neither its precision nor its gradient checkpointing is auto; without ONNX
    where the model has no export."""
    task: Task
    threads: int
    stop: StopRequest
    clock: Clock
    progress: Progress
    dataset: Dataset = field(init=False)
    model: ModelFolder = field(init=False)
    head: Head = field(init=False)
    base_fingerprint: str = field(init=False)
    loaded: LoadedModel = field(init=False)
    device: str = CPU
    """What it is computed on, by torch's name; exported and proven is on the CPU."""
    team: Team = field(default_factory=Team)
    """The ranks that train together."""
    total_parameters: int = 0
    base_parameters: int = 0
    trainable_parameters: int = 0
    encoded: Encoded = field(init=False)
    held_out: list[Batch] = field(init=False)
    questions: list[Question] = field(init=False)
    chat_template: str | None = None
    """That rows were rendered by: the job's, the model's, or the plain one that its task gave it."""
    packed: bool = field(init=False)
    set_pass: Callable[[int, int], None] = field(init=False)
    given: Plan | None = None
    """The plan as it came, where it left something open, ONNX was left out, or its rows longer than the model reads."""
    peak_rate: float = 0.0
    """Operations a second of a matrix product in the plan's precision, of all ranks together, as measured here."""
    work: Work | None = None
    """What training costs in such operations; None before it begins."""
    result: TrainResult = field(init=False)
    loading_peak_bytes: int = 0
    """The most memory of this process before training."""
    use: list[list[float]] = field(default_factory=list)
    """Of each rank, in training: bytes of memory, and of its accelerator's, and seconds of processor time."""
    metrics_base: dict[str, float] = field(default_factory=dict)
    metrics_tuned: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    exports: dict[OnnxPrecision, Path] = field(default_factory=dict)
    bases: dict[OnnxPrecision, Path] = field(default_factory=dict)
    """Base graphs that the adapter's file is for."""
    reloaded: AdapterProof | None = None
    merged: MergedProof | None = None
    proofs: list[Proof] = field(default_factory=list)
    published: PublishedVersion | None = None

    @property
    def roofline(self) -> Roofline | None:
        """How near training came to what this machine can do; None where no work was done."""
        done = self.result.attempt
        if self.work is None or not done.seconds or not self.peak_rate:
            return None
        rate = self.work.of(done.tokens, done.predicted) / done.seconds
        return Roofline(flops_per_second=rate, peak_flops_per_second=self.peak_rate)

    def settle(self, training: TrainingPlan) -> None:
        """Go on by what was found out; the digest and the reports stay those of the plan that was given."""
        self.given, self.plan = self.given or self.plan, self.plan.model_copy(update={"training": training})

    def leave_out_onnx(self) -> None:
        """Go on without ONNX: the adapter is published alone, and with method full the tuned model."""
        training = self.plan.training
        left: dict[str, Any] = {
            "onnx": [],
            "onnx_encoder": None,
            "merged": training.artifact.merged or training.method.type == "full",
        }
        self.settle(training.model_copy(update={"artifact": training.artifact.model_copy(update=left)}))

    @property
    def apart(self) -> bool:
        """Whether the model's weights are dealt out among the ranks now."""
        return self.plan.training.distributed.partitions_weights and self.team.joined

    @property
    def output(self) -> str:
        """Name of the model in the registry."""
        return self.plan.placement.output.model

    def artifact(self, name: str) -> Path:
        """Return where a part of the version is made."""
        return self.settings.artifacts / name
