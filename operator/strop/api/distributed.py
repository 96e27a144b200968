"""`spec.distributed`: how many ranks train together, and how they share the model's state."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from strop.api.base import ApiModel, Found, Rule
from strop_trainer.plan import SHARED_METHODS, UNSHARED_TASKS, DistributedStrategy, Offload

_IN_WORDS: Final[dict[DistributedStrategy, str]] = {
    "none": "one rank alone",
    "ddp": "each rank has all of it, and they add up their gradients",
    "zero-1": "DeepSpeed ZeRO, the optimizer's state is dealt out",
    "zero-2": "the gradients, too",
    "zero-3": "the weights, too",
}


class DistributedSpec(ApiModel):
    """How many pods and ranks share the work."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.processesPerNode) || self.processesPerNode == 1 || !has(self.strategy) || "
            "self.strategy != 'none'",
            "none is one rank alone: leave it out, or name the way in which the ranks share the work",
            ".strategy",
            check=lambda self: self.processes_per_node in {None, 1} or self.strategy != "none",
        ),
        Rule(
            "!has(self.offload) || (has(self.strategy) && (self.strategy == 'zero-3' || "
            "(self.offload == 'optimizer' && self.strategy in ['zero-1', 'zero-2'])))",
            "optimizer goes with zero-1, zero-2 and zero-3, all with zero-3: the other strategies keep all on the "
            "accelerator",
            ".offload",
            "FieldValueForbidden",
            lambda self: (
                self.offload is None
                or self.strategy == "zero-3"
                or (self.offload == "optimizer" and self.strategy in {"zero-1", "zero-2"})
            ),
        ),
    )

    nodes: Annotated[int, Field(ge=1, le=1024)] | None = Field(default=None, description="Trainer pods. Left out: 1.")
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None,
        description="Ranks: processes that train together in a pod and share its CPUs, or have an accelerator each. "
        "Left out: 1.",
    )
    strategy: DistributedStrategy | None = Field(
        default=None,
        description="How ranks share the model's state. "
        + "; ".join(f"{name}: {words}" for name, words in _IN_WORDS.items())
        + ". Left out: none for one rank, else ddp.",
    )
    offload: Offload | None = Field(
        default=None,
        description="What ZeRO keeps in the pod's memory, where a rank has an accelerator: optimizer (its state, and "
        "its steps are taken there), or all (with zero-3: the weights, too). Slower. Left out: nothing.",
    )


def ranks_of(spec: Any) -> int:
    """Return the ranks that a FineTuneJob's spec asks for."""
    shared = spec.distributed
    return 1 if shared is None else (shared.processes_per_node or 1)


def _shares(spec: Any) -> bool:
    shared = spec.distributed
    return ranks_of(spec) > 1 or (shared is not None and shared.strategy not in {None, "none"})


def _even(spec: Any) -> bool:
    training = spec.training
    if training is None or training.effective_batch_size is None:
        return True
    return bool(training.effective_batch_size % ((training.micro_batch_size or 1) * ranks_of(spec)) == 0)


_SHARES: Final = (
    "has(self.distributed) && ((has(self.distributed.processesPerNode) && self.distributed.processesPerNode > 1) || "
    "(has(self.distributed.strategy) && self.distributed.strategy != 'none'))"
)

SHARED_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        f"!({_SHARES}) || self.method.type in {list(SHARED_METHODS)}",
        f"ranks share the training of {', '.join(SHARED_METHODS)}: name one of them, or leave out distributed",
        ".method.type",
        "FieldValueForbidden",
        lambda self: not _shares(self) or self.method.type in SHARED_METHODS,
        Found("self.method.type", lambda self: str(self.method.type)),
    ),
    Rule(
        f"!({_SHARES}) || !(self.task in {list(UNSHARED_TASKS)})",
        f"one rank alone trains {', '.join(UNSHARED_TASKS)} in this version: leave it out",
        ".distributed",
        "FieldValueForbidden",
        lambda self: not _shares(self) or self.task not in UNSHARED_TASKS,
    ),
    Rule(
        "!has(self.training) || !has(self.training.effectiveBatchSize) || !has(self.distributed) || "
        "!has(self.distributed.processesPerNode) || self.training.effectiveBatchSize % "
        "((has(self.training.microBatchSize) ? self.training.microBatchSize : 1) * self.distributed.processesPerNode) "
        "== 0",
        "must be a multiple of distributed.processesPerNode x microBatchSize, so that each rank has as many rows",
        ".training.effectiveBatchSize",
        check=lambda self: ranks_of(self) == 1 or _even(self),
        found=Found(
            None,
            lambda self: f"{self.training.effective_batch_size} with {ranks_of(self)} ranks",
        ),
    ),
)
"""What several ranks ask of the other parts of a job."""
