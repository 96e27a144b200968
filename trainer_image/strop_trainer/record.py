"""All that a run has to tell, for the reports of its version."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from strop_trainer.evaluation import Sample
from strop_trainer.plan import Plan, Precision
from strop_trainer.tasks.base import DatasetStatistics

if TYPE_CHECKING:
    from strop_trainer.documents import AdapterProof, MergedProof, RankUse, Roofline
    from strop_trainer.lengths import TokenLengths
    from strop_trainer.proof import Proof


@dataclass(frozen=True)
class RunRecord:
    """One run, told after its proof."""

    plan: Plan
    dataset: DatasetStatistics
    truncated: int
    """Sequences that lost their end to the maximum length."""
    dropped: int
    """Sequences that had nothing left to learn."""
    shortened: int
    """Rows whose source lost its end, so that the answer is within the maximum length."""
    tokens: int
    """Of one epoch."""
    target_tokens: int
    """Of one epoch; what the assistant says."""
    base_fingerprint: str
    """sha256 over the base model's files."""
    architecture: str
    total_parameters: int
    base_parameters: int
    trainable_parameters: int
    steps: int
    tokens_per_second: float
    """Trained, of the last attempt; 0 where nothing was left to train."""
    peak_bytes: int
    """Memory of the process."""
    ranks: list[RankUse]
    """Each rank's peak in training, without what loading took."""
    threads: int
    packed: bool
    metrics_base: dict[str, float]
    metrics_tuned: dict[str, float]
    samples: list[Sample]
    proofs: list[Proof]
    stage_seconds: dict[str, float]
    """Stages that are done: all but publish."""
    metrics_file: Path
    """JSON lines: step, epoch, loss, learning_rate, grad_norm, tokens, tokens_per_second, rss_bytes, peak_bytes; and of
    evaluations on held-out rows step, epoch, eval_loss, perplexity, token_accuracy."""
    lengths: TokenLengths | None = None
    """Of the training sequences, before they were cut."""
    base_commit: str | None = None
    """That was fetched of an hf:// model."""
    dataset_commits: dict[str, str] = field(default_factory=dict)
    """The same of the hub's datasets, by source."""
    encoder_decoder: bool = False
    """Whether the model reads one text and writes another, and its ONNX export is two graphs."""
    text_part: bool = False
    """Whether the model is the text part of one that reads images beside text."""
    precision: Precision | None = None
    """That it was computed in."""
    gradient_checkpointing: bool | None = None
    """Whether activations were recomputed, in the last attempt."""
    roofline: Roofline | None = None
    reloaded: AdapterProof | None = None
    """The adapter, loaded again; None without one, and where it was trained on another base."""
    merged: MergedProof | None = None
    """The merged model; None where no adapter was merged."""
