"""The Plan: the contract between whoever resolves a job and the trainer that carries it out.

One JSON document with two parts. *training* says what is computed; *placement* says where. The plan digest covers
*training* alone, so that a laptop and a cluster that compute the same thing agree on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

SCHEMA: Final = "strop.dev/plan/v1alpha1"
CPU_PASS_TOKENS: Final = 512
"""About what a packed forward pass has on a CPU: more are hardly faster, and every token takes memory."""
LOGITS_BYTES: Final = 512 * 2**20
"""fp32 logits of the positions that the loss takes together, at most. What is smaller is computed at once."""
PROOF_LOGITS_BYTES: Final = 256 * 2**20
"""What the kept logits of one side of the proof may take in memory: of longer rows, those of the last positions."""

ZERO_BUCKET: Final = 20_000_000
"""Numbers that ranks of ZeRO exchange at a time; and about as many weights are put together at a time by zero-3."""

Task = Literal[
    "chat",
    "text-generation",
    "instruction",
    "text-classification",
    "token-classification",
    "question-answering",
    "translation",
    "summarization",
    "preference",
]
MethodType = Literal["full", "lora", "qlora", "dora", "ia3", "prompt-tuning", "prefix-tuning", "p-tuning"]
LORA_METHODS: Final[tuple[MethodType, ...]] = ("lora", "qlora", "dora")
PROMPT_METHODS: Final[tuple[MethodType, ...]] = ("prompt-tuning", "prefix-tuning", "p-tuning")
"""Methods that put trainable tokens in front of each row."""
Initialization = Literal["default", "pissa", "olora", "loftq"]
INITIALIZATIONS: Final[Mapping[MethodType, tuple[Initialization, ...]]] = {
    "lora": ("default", "pissa", "olora"),
    "qlora": ("default", "loftq"),
    "dora": ("default",),
}
"""Method → how its adapter may start."""
ONNX_ADAPTER_METHODS: Final[tuple[MethodType, ...]] = ("lora", "qlora")
"""Methods whose adapter a base graph has inputs for."""
ONNX_ADAPTER_MODULES: Final = (
    "q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj",
)  # fmt: skip
"""Layers that a base graph has inputs for."""
LABEL_TASKS: Final[tuple[Task, ...]] = ("text-classification", "token-classification")
"""Tasks whose model puts out labels, and is given a new head for them."""
TEMPLATE_TASKS: Final[tuple[Task, ...]] = (
    "chat", "instruction", "question-answering", "translation", "summarization", "preference"
)  # fmt: skip
"""Tasks whose rows are rendered by a chat template."""
LABEL_METHODS: Final[tuple[MethodType, ...]] = ("lora", "qlora", "dora", "ia3", "full")
"""Methods that go with a new head: all but those that put tokens in front of each row."""
Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""auto: bf16, or fp32 where the CPU that it is computed on is faster in it and the pod has the memory, or where the
accelerator has no bf16."""
OnnxPrecision = Literal["fp32", "int8", "int4"]
OnnxForm = Literal["merged", "adapter", "both"]
DistributedStrategy = Literal["none", "ddp", "zero-1", "zero-2", "zero-3"]
Offload = Literal["optimizer", "all"]
SHARED_METHODS: Final[tuple[MethodType, ...]] = ("full", "lora", "dora")
"""Methods whose training several ranks can share."""
UNSHARED_TASKS: Final[tuple[Task, ...]] = ("preference",)
"""Tasks that one rank alone trains."""


@dataclass(frozen=True)
class TaskMetrics:
    """Names of the metrics of one task: what `evaluation.minimum` and `maximum` may bound."""

    held_out: tuple[str, ...]
    """Measured by one pass over the held-out rows."""
    generated: tuple[str, ...] = ()
    """Measured on answers that are generated, so only where `evaluation.generateRows` is at least 1."""
    by_model: bool = False
    """Whether some models answer without generating: only the trainer, which has the model, can tell."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.held_out, *self.generated)


METRICS: Final[Mapping[str, TaskMetrics]] = {
    "chat": TaskMetrics(held_out=("eval_loss", "perplexity", "token_accuracy"), generated=("exact_match",)),
    "instruction": TaskMetrics(held_out=("eval_loss", "perplexity", "token_accuracy"), generated=("exact_match",)),
    "text-generation": TaskMetrics(held_out=("eval_loss", "perplexity", "token_accuracy")),
    "translation": TaskMetrics(held_out=("eval_loss", "perplexity", "token_accuracy"), generated=("bleu", "chrf")),
    "summarization": TaskMetrics(
        held_out=("eval_loss", "perplexity", "token_accuracy"), generated=("rouge1", "rouge2", "rougeL")
    ),
    "question-answering": TaskMetrics(
        held_out=("eval_loss", "perplexity", "token_accuracy"), generated=("exact_match", "f1"), by_model=True
    ),
    "text-classification": TaskMetrics(
        held_out=("eval_loss", "accuracy", "f1", "mcc", "exact_match", "f1_micro"),
    ),
    "token-classification": TaskMetrics(held_out=("eval_loss", "precision", "recall", "f1", "accuracy")),
    "preference": TaskMetrics(held_out=("eval_loss", "reward_accuracy", "reward_margin", "chosen_likelier")),
}
"""Task → its metrics. Admission, the planner and the trainer read it here; every task that is trained has a line."""

METRIC_RANGES: Final[Mapping[tuple[int, int], tuple[str, ...]]] = {
    (0, 1): (
        "token_accuracy",
        "exact_match",
        "rouge1",
        "rouge2",
        "rougeL",
        "accuracy",
        "f1",
        "f1_micro",
        "precision",
        "recall",
        "reward_accuracy",
        "chosen_likelier",
    ),
    (0, 100): ("bleu", "chrf"),
    (-1, 1): ("mcc",),
}
"""(least, most) that is measured → metrics; losses, perplexity and margins have no range of use."""


class PlanModel(BaseModel):
    """Base of all parts: camelCase on the wire, nothing unknown, nothing changed after loading."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class ModelSource(PlanModel):
    """The base model: where its Hugging Face folder comes from."""

    source: str
    """hf://owner/name, pvc://claim/path or https://… (a folder, or a .tar.gz of one)."""
    revision: str | None = None
    """Commit, tag or branch; for hf:// only."""
    sha256: str | None = None
    """Of the archive; required for https://."""
    chat_template: str | None = None
    """Jinja text in place of the model's own template."""


class DataFile(PlanModel):
    """One file (or, for pvc://, a folder of files) of rows."""

    source: str
    """configmap://name/key, pvc://claim/path, hf://datasets/owner/name/path or https://…."""
    revision: str | None = None
    sha256: str | None = None


class DatasetPlan(PlanModel):
    """Rows to learn from and rows held out."""

    train: list[DataFile]
    validation: list[DataFile] = []
    """Held-out rows. Where empty, `validation_split` of the training rows is held out."""
    validation_split: float = 0.1
    """Fraction of the rows, by a seeded shuffle; at least one row."""
    format: Literal["auto", "jsonl", "csv", "parquet", "text"] = "auto"
    columns: dict[str, str] = {}
    """Name the task expects → name in the file."""
    max_rows: int | None = None


class LoraPlan(PlanModel):
    """Low-rank adaptation (LoRA, QLoRA, DoRA)."""

    rank: int
    alpha: int
    dropout: float
    target_modules: list[str] | Literal["all-linear"]
    modules_to_save: list[str] = []
    use_rslora: bool = False
    initialization: Initialization = "default"
    plus_ratio: float | None = None
    """Learning rate of B over that of A (LoRA+, Hayou et al. 2024); None: the same."""


class MethodPlan(PlanModel):
    """The fine-tuning method with its own options.

    `lora` is set for lora, qlora and dora; `virtual_tokens` for prompt-tuning, prefix-tuning and p-tuning.
    """

    type: MethodType
    lora: LoraPlan | None = None
    virtual_tokens: int | None = None
    """Trainable tokens in front of each row."""


class Hyperparameters(PlanModel):
    """Everything the optimisation needs, resolved."""

    learning_rate: float
    scheduler: Literal["linear", "cosine", "constant"]
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    optimizer: Literal["adamw"]
    epochs: float
    max_steps: int | None = None
    """Optimizer steps; where set, it wins over `epochs`."""
    effective_batch_size: int
    """Rows in one optimizer step over all ranks = micro batch x gradient accumulation x world size."""
    micro_batch_size: int
    """Rows in one forward pass of one rank."""
    max_length: int
    """Tokens; longer rows are truncated, and how many were is reported."""
    packing: bool
    """Several rows share one forward pass without padding, kept apart by their position ids."""
    preference_beta: float | None = None
    """DPO's beta; for task preference alone."""
    precision: Precision
    """bf16 and fp16 are mixed precision: fp32 master weights for what is trained."""
    gradient_checkpointing: bool | Literal["auto"]
    """Whether activations are recomputed; auto: as `placement` says, which knows the memory that there is."""
    seed: int
    deterministic: bool
    """One seed gives the same weights, bit for bit, on the same machine and number of threads."""


class DistributedPlan(PlanModel):
    """How ranks share the work."""

    strategy: DistributedStrategy = "none"
    """How ranks share the model's state; ddp: each has all of it."""
    world_size: int = 1
    """Ranks: processes that train together."""
    offload: Offload | None = None
    """What ZeRO keeps in the host's memory: what is trained as the optimizer steps on it, and its state; `all`: the
    weights, too."""

    @property
    def zero_stage(self) -> int:
        """Of ZeRO, 1 to 3; 0 for another strategy."""
        name, _, stage = self.strategy.partition("-")
        return int(stage) if name == "zero" else 0

    @property
    def is_zero(self) -> bool:
        """Whether DeepSpeed shares the state."""
        return self.zero_stage > 0

    @property
    def partitions_weights(self) -> bool:
        """Whether no rank has all weights while it trains."""
        return self.zero_stage == 3  # noqa: PLR2004 - ZeRO-3


class EvaluationPlan(PlanModel):
    """What is measured on held-out rows, and what must be reached."""

    every_steps: int | None = None
    """Optimizer steps between evaluations of the loss; None evaluates at the end only."""
    max_rows: int = 200
    """Held-out rows for the loss."""
    generate_rows: int = 20
    """Held-out rows for which an answer is generated and compared."""
    max_new_tokens: int = 64
    minimum: dict[str, float] = {}
    """Metric of the tuned model → lowest value that may be published."""
    maximum: dict[str, float] = {}


class CheckpointPlan(PlanModel):
    """When training state is saved, and how many are kept."""

    every_steps: int
    keep: int = 2


class ProofPlan(PlanModel):
    """What an exported model must show against PyTorch before it is published."""

    rows: int = 32
    """Held-out rows on which both models are run, at most: one answer is 3 % of a metric."""
    tokens: int = 4096
    """Rows behind the eighth are taken while all together have no more tokens than these."""
    fp32_logits_tolerance: float = 5e-3
    """Largest absolute difference of a logit, fp32 export against fp32 PyTorch."""
    fp32_token_agreement: float = 1.0
    """Share of greedy tokens that agree, fp32 export."""
    quantized_perplexity_ratio: float = 1.25
    """Perplexity of a quantized export over PyTorch's, at most."""
    metric_drop: float = 0.15
    """How far a task metric in 0..1 of any export may lie below PyTorch's."""


class ArtifactPlan(PlanModel):
    """What is published."""

    onnx: list[OnnxPrecision] = ["fp32"]
    """Precisions; the first is the default that consumers load. Empty publishes the adapter alone."""
    onnx_encoder: list[OnnxPrecision] | None = None
    """The same where an encoder marks its answer in the text; what a model is, its folder tells. None: as `onnx`."""
    onnx_form: Literal["adapter", "both"] | None = None
    """None: the adapter is folded into the model; adapter: it is a file of its own, for a base graph that it shares
    with the adapters of other jobs; both."""
    onnx_required: bool | None = None
    """True: the job asks for ONNX, and a model that has no export is refused. None: it is the default, and is left out
    with a note where the model's folder tells that there is none."""
    merged: bool = False
    """Also publish the merged model as safetensors."""
    proof: ProofPlan = ProofPlan()


class TrainingPlan(PlanModel):
    """What is computed. Its canonical JSON is what the plan digest covers."""

    task: Task
    model: ModelSource
    dataset: DatasetPlan
    method: MethodPlan
    hyperparameters: Hyperparameters
    distributed: DistributedPlan = DistributedPlan()
    evaluation: EvaluationPlan = EvaluationPlan()
    checkpoint: CheckpointPlan
    artifact: ArtifactPlan = ArtifactPlan()


class OutputPlacement(PlanModel):
    """Where the version goes: `<claim>/<namespace>/<model>/<N>`."""

    claim: str
    model: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    aliases: list[str] = []
    """Names that point at the new version in the index, such as `latest`; `latest` always does."""


class ResourcesPlacement(PlanModel):
    """Requests and limits of one trainer pod, as Kubernetes quantities."""

    cpu: str
    memory: str
    accelerator: str | None = None
    """Extended resource, such as nvidia.com/gpu."""
    accelerators: int = 0
    """Per pod."""
    work_volume: str = "10Gi"
    shared_memory: str = "1Gi"


class MemoryEstimate(PlanModel):
    """First estimate of what one rank needs, in bytes."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    overhead: int
    total: int
    basis: str
    """Where the model's shape is from, in words."""


class PlacementPlan(PlanModel):
    """Where it is computed; does not count in the digest."""

    namespace: str
    job: str
    pool: str
    nodes: int = 1
    processes_per_node: int = 1
    image: str | None = None
    resources: ResourcesPlacement
    output: OutputPlacement
    estimate: MemoryEstimate | None = None
    fp32_memory: int | None = None
    """Bytes that all ranks of a pod need in fp32, by the estimate; set where the trainer chooses the precision on CPUs.
    None with a precision that is given, with accelerators, and where nothing tells the size of the model."""
    gradient_checkpointing: bool | None = None
    """Set where `training` says auto: False where all activations fit here by `estimate`, which then counts them all.
    None: `training` says it."""
    claims: list[str] = []
    """Claims that the trainer reads from: `pvc://` sources."""
    config_maps: list[str] = []
    """ConfigMaps that the trainer reads from: `configmap://` sources."""
    secret: str | None = None
    """Secret with credentials for remote sources (keys HF_TOKEN, …), given to the fetch stage as environment."""


class Resolution(PlanModel):
    """One value that was left to Strop, and why it is what it is."""

    field: str
    value: Any
    reason: str


class Plan(PlanModel):
    """A job with everything resolved and nothing left to guess."""

    schema_: Literal["strop.dev/plan/v1alpha1"] = Field(default=SCHEMA, alias="schema")
    digest: str
    """`sha256:<hex>` of the canonical JSON of `training`."""
    training: TrainingPlan
    placement: PlacementPlan
    resolved: list[Resolution] = []
    """Every automatic value with its reason, for people; does not count in the digest."""
    licence: str | None = None
    """Of the base model, where it is known; does not count in the digest."""


def canonical_json(part: BaseModel) -> bytes:
    """Return the one serialisation that digests are taken of: sorted keys, no white space, absent for None."""
    document = part.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def plan_digest(training: TrainingPlan) -> str:
    """Return `sha256:<hex>` of the canonical JSON of a plan's training part."""
    return "sha256:" + hashlib.sha256(canonical_json(training)).hexdigest()


def with_hyperparameters(training: TrainingPlan, **changed: object) -> TrainingPlan:
    """Return what is computed, with some of its hyperparameters changed, which are not validated again."""
    numbers = training.hyperparameters.model_copy(update=changed)
    return training.model_copy(update={"hyperparameters": numbers})


def load_plan(text: str | bytes) -> Plan:
    """Read a Plan and check its digest.

    Raises:
        ValueError: the document is no Plan of this schema, or its digest is not that of its training part.
    """
    plan = Plan.model_validate_json(text)
    found = plan_digest(plan.training)
    if found != plan.digest:
        raise ValueError(f"digest: found {plan.digest}, but the training part has {found}: the plan was edited")
    return plan
