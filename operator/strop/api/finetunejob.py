"""FineTuneJob: model, data and method in; a proven version in the registry out."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from strop_trainer.plan import DistributedStrategy, MethodType, OnnxPrecision, Task

from strop.api.base import (
    ApiModel,
    DnsLabel,
    DnsName,
    ImageReference,
    LocalReference,
    Quantity,
    Rule,
    Sha256,
    StatusCondition,
    StatusModel,
)

MODEL_SOURCE = r"^(hf://[\w.-]+/[\w.-]+|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[^\s]+|https://[^\s]+)$"
DATA_SOURCE = (
    r"^(configmap://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[-._a-zA-Z0-9]+|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[^\s]+"
    r"|hf://datasets/[\w.-]+/[\w.-]+/[^\s]+|https://[^\s]+)$"
)

SUPPORTED_TASKS: tuple[Task, ...] = ("chat",)
SUPPORTED_METHODS: tuple[MethodType, ...] = ("lora",)
"""What this version trains. The schema holds all that v1alpha1 will; admission refuses the rest in words."""

HTTPS_NEEDS_HASH = Rule(
    "!self.source.startsWith('https://') || has(self.sha256)",
    "sha256: required for an https:// source, so that what is trained on is what was meant",
    ".source",
)
NO_DOTS = Rule(
    "!self.source.contains('/../') && !self.source.endsWith('/..')",
    "source: must not contain '..'",
    ".source",
)
REVISION_IS_HF = Rule(
    "!has(self.revision) || self.source.startsWith('hf://')",
    "revision: only an hf:// source has revisions",
    ".revision",
)


class ModelSpec(ApiModel):
    """The base model."""

    rules: ClassVar[tuple[Rule, ...]] = (HTTPS_NEEDS_HASH, NO_DOTS, REVISION_IS_HF)

    source: Annotated[str, Field(min_length=1, max_length=1024, pattern=MODEL_SOURCE)] = Field(
        description="Where the base model's Hugging Face folder is: hf://owner/name, pvc://claim/path, "
        "or https://… (a .tar.gz of the folder). Weights must be safetensors.",
    )
    revision: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\w./-]+$")] | None = Field(
        default=None, description="Commit, tag or branch of an hf:// source; pin a commit to repeat a run exactly."
    )
    sha256: Sha256 | None = Field(default=None, description="Hash of an https:// archive, in hex.")
    parameters: Annotated[str, Field(max_length=16, pattern=r"^[0-9]+(\.[0-9]+)?[MB]$")] | None = Field(
        default=None,
        description="Size, such as 135M or 8B, for the memory estimate of a model that Strop has no preset for.",
    )


class DataSource(ApiModel):
    """One file of rows, or a folder of them."""

    rules: ClassVar[tuple[Rule, ...]] = (HTTPS_NEEDS_HASH, NO_DOTS, REVISION_IS_HF)

    source: Annotated[str, Field(min_length=1, max_length=1024, pattern=DATA_SOURCE)] = Field(
        description="configmap://name/key (small data), pvc://claim/path, hf://datasets/owner/name/path or https://….",
    )
    revision: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\w./-]+$")] | None = Field(
        default=None, description="Commit, tag or branch of an hf:// source."
    )
    sha256: Sha256 | None = Field(default=None, description="Hash of the file, in hex; required for https://.")


class DatasetSpec(ApiModel):
    """What to learn from, and what to hold out."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.validation) && has(self.validationSplit))",
            "validationSplit: not together with validation, which already names the held-out rows",
            ".validationSplit",
        ),
    )

    train: Annotated[list[DataSource], Field(min_length=1, max_length=64)] = Field(description="Training rows.")
    validation: Annotated[list[DataSource], Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="Held-out rows. Left out, a part of the training rows is held out."
    )
    validation_split: Annotated[float, Field(gt=0, le=0.5)] | None = Field(
        default=None, description="Fraction of the training rows that is held out, by a seeded shuffle. Left out: 0.1."
    )
    format: Literal["auto", "jsonl", "csv", "parquet"] = Field(default="auto", description="Format of the files.")
    columns: Annotated[dict[str, Annotated[str, Field(max_length=253)]], Field(max_length=32)] | None = Field(
        default=None, description="Name that the task expects → name in the files."
    )
    max_rows: Annotated[int, Field(ge=2, le=100_000_000)] | None = Field(
        default=None, description="At most so many training rows are used."
    )


class LoraSpec(ApiModel):
    """Low-rank adaptation. What is left out is chosen for the model and the data."""

    rank: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None,
        description="Rank r of the adapter's matrices: higher learns more and costs more. Left out: by data size.",
    )
    alpha: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None, description="Scale: the adapter's output is multiplied by alpha / rank. Left out: 32."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="Dropout on the adapter's input while training. Left out: by data size."
    )
    target_modules: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w.-]+$")]],
            Field(min_length=1, max_length=64),
        ]
        | None
    ) = Field(
        default=None, description="Names of the linear layers to adapt. Left out: all linear layers but the head."
    )
    modules_to_save: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w.-]+$")]], Field(max_length=16)]
        | None
    ) = Field(default=None, description="Further modules that are trained in full and saved beside the adapter.")
    use_rslora: bool = Field(default=False, description="Scale by alpha / sqrt(rank) instead (rank-stabilised LoRA).")
    initialization: Literal["default", "pissa", "olora", "loftq"] = Field(
        default="default", description="How the adapter starts."
    )


class PromptSpec(ApiModel):
    """Options of prompt-, prefix- and p-tuning."""

    virtual_tokens: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="Trainable tokens in front of each prompt. Left out: 20."
    )


class MethodSpec(ApiModel):
    """How the model is tuned."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.lora) || self.type in ['lora', 'qlora', 'dora']",
            "lora: only for type lora, qlora or dora",
            ".lora",
        ),
        Rule(
            "!has(self.prompt) || self.type in ['prompt-tuning', 'prefix-tuning', 'p-tuning']",
            "prompt: only for type prompt-tuning, prefix-tuning or p-tuning",
            ".prompt",
        ),
    )

    type: MethodType = Field(default="lora", description="Fine-tuning method. This version trains: lora.")
    lora: LoraSpec | None = Field(default=None, description="Options of lora, qlora and dora.")
    prompt: PromptSpec | None = Field(default=None, description="Options of prompt-, prefix- and p-tuning.")


class TrainingSpec(ApiModel):
    """Hyperparameters. What is left out is chosen for the model, the data and the method; `strop plan` says why."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!(has(self.epochs) && has(self.maxSteps))", "maxSteps: not together with epochs", ".maxSteps"),
        Rule(
            "!has(self.microBatchSize) || !has(self.effectiveBatchSize) || "
            "self.effectiveBatchSize % self.microBatchSize == 0",
            "effectiveBatchSize: must be a multiple of microBatchSize",
            ".effectiveBatchSize",
        ),
    )

    epochs: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None, description="Passes over the training rows."
    )
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(default=None, description="Optimizer steps.")
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Peak learning rate: a number, such as 0.0002 or 2e-4."
    )
    scheduler: Literal["linear", "cosine", "constant"] | None = Field(
        default=None, description="Learning rate schedule."
    )
    warmup_ratio: Annotated[float, Field(ge=0, le=0.5)] | None = Field(
        default=None, description="Fraction of the steps in which the learning rate rises."
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] | None = Field(default=None, description="AdamW weight decay.")
    max_grad_norm: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None, description="Gradient clipping norm."
    )
    effective_batch_size: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        default=None, description="Rows in one optimizer step over all ranks."
    )
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None, description="Rows in one forward pass of one rank; accumulation makes up the rest."
    )
    max_length: Annotated[int, Field(ge=16, le=1_048_576)] | None = Field(
        default=None, description="Tokens a row may have; longer rows are truncated, and how many were is reported."
    )
    packing: bool | None = Field(default=None, description="Rows share a forward pass without padding, kept apart.")
    precision: Literal["bf16", "fp32", "fp16"] | None = Field(default=None, description="Compute precision.")
    gradient_checkpointing: bool | None = Field(
        default=None, description="Recompute activations: less memory, more time."
    )
    seed: Annotated[int, Field(ge=0, le=4_294_967_295)] | None = Field(
        default=None, description="Seed of all randomness."
    )
    deterministic: bool | None = Field(
        default=None, description="The same seed gives the same weights, bit for bit, also across a restart."
    )


class DistributedSpec(ApiModel):
    """How many pods and ranks share the work."""

    nodes: Annotated[int, Field(ge=1, le=1024)] | None = Field(default=None, description="Trainer pods. Left out: 1.")
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="Ranks in a pod. Left out: one, or one an accelerator."
    )
    strategy: DistributedStrategy | None = Field(default=None, description="How ranks share model state.")


class ResourcesSpec(ApiModel):
    """Resources of one trainer pod."""

    cpu: Quantity | None = Field(default=None, description="CPUs, such as 2 or 1500m.")
    memory: Quantity | None = Field(default=None, description="Memory, such as 8Gi.")
    accelerators: Annotated[int, Field(ge=0, le=64)] | None = Field(
        default=None, description="Accelerators, of the kind that the pool has."
    )


class ComputeSpec(ApiModel):
    """Where it runs."""

    pool: DnsName = Field(
        default="auto", description="A ComputePool by name, or auto: the cheapest that fits and admits the namespace."
    )
    resources: ResourcesSpec | None = Field(default=None, description="Left out: from the memory estimate.")
    image: ImageReference | None = Field(
        default=None, description="Trainer image. Left out: the pool's, else the installation's."
    )


class EvaluationSpec(ApiModel):
    """What is measured on held-out rows, and what must be reached to be published."""

    every_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Steps between measurements of the loss. Left out: at the end of each epoch."
    )
    max_rows: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Held-out rows for the loss. Left out: 200."
    )
    generate_rows: Annotated[int, Field(ge=0, le=10_000)] | None = Field(
        default=None, description="Held-out rows that are answered by generation and compared. Left out: 20."
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] | None = Field(
        default=None, description="Longest generated answer, in tokens. Left out: 64."
    )
    minimum: Annotated[dict[str, float], Field(max_length=16)] | None = Field(
        default=None,
        description="Metric → lowest value with which the result may be published, such as exact_match: 0.8.",
    )
    maximum: Annotated[dict[str, float], Field(max_length=16)] | None = Field(
        default=None,
        description="Metric → highest value with which the result may be published, such as eval_loss: 1.2.",
    )


class CheckpointSpec(ApiModel):
    """When training state is saved."""

    every_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Optimizer steps between checkpoints. Left out: about ten in a run."
    )
    keep: Annotated[int, Field(ge=1, le=100)] = Field(default=2, description="Newest checkpoints that are kept.")
    size: Quantity | None = Field(
        default=None, description="Size of the job's work volume. Left out: from the model's size."
    )
    storage_class_name: DnsName | None = Field(
        default=None, description="Storage class of the work volume. Left out: the pool's, else the cluster's default."
    )


class OnnxSpec(ApiModel):
    """The ONNX export."""

    enabled: bool = Field(default=True, description="Export to ONNX, prove and publish it.")
    precisions: Annotated[list[OnnxPrecision], Field(min_length=1, max_length=3)] = Field(
        default=["fp32", "int4"], description="Precisions to export; the first is published as onnx/."
    )


class OutputSpec(ApiModel):
    """What is published, and where."""

    model: DnsLabel | None = Field(default=None, description="Name in the registry. Left out: the job's name.")
    claim: LocalReference | None = Field(
        default=None, description="Claim that holds the registry. Left out: strop-models."
    )
    onnx: OnnxSpec | None = Field(default=None, description="The ONNX export. Left out: fp32 and int4.")
    merged: bool = Field(default=False, description="Also publish the merged model as safetensors.")
    aliases: Annotated[list[DnsLabel], Field(max_length=8)] | None = Field(
        default=None, description="Names in the index that point at the new version, beside latest."
    )


def _quoted(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


_MUTABLE = ("suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished")
_FIXED_REQUIRED = ("task", "model", "dataset", "method", "compute", "backoffLimit")
_FIXED_OPTIONAL = ("training", "distributed", "evaluation", "checkpoint", "output", "credentials")


class FineTuneJobSpec(ApiModel):
    """A fine-tuning job. Fixed once created, but for suspend, activeDeadlineSeconds and ttlSecondsAfterFinished."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.task in {_quoted(SUPPORTED_TASKS)}",
            f"task: this version of Strop trains {', '.join(SUPPORTED_TASKS)}; the other tasks are not there yet",
            ".task",
        ),
        Rule(
            f"self.method.type in {_quoted(SUPPORTED_METHODS)}",
            f"method.type: this version of Strop trains {', '.join(SUPPORTED_METHODS)}; "
            "the other methods are not there yet",
            ".method.type",
        ),
        Rule(
            "!has(self.method.lora) || self.method.lora.initialization == 'default'",
            "method.lora.initialization: this version of Strop has only default",
            ".method.lora.initialization",
        ),
        Rule(
            "!has(self.distributed) || ((!has(self.distributed.nodes) || self.distributed.nodes == 1) && "
            "(!has(self.distributed.processesPerNode) || self.distributed.processesPerNode == 1) && "
            "(!has(self.distributed.strategy) || self.distributed.strategy == 'none'))",
            "distributed: this version of Strop trains in one process (nodes 1, processesPerNode 1, strategy none)",
            ".distributed",
        ),
        Rule(
            "!has(self.dataset.format) || self.dataset.format in ['auto', 'jsonl']",
            "dataset.format: this version of Strop reads jsonl",
            ".dataset.format",
        ),
        Rule("!has(self.dataset.columns)", "dataset.columns: chat rows have no columns to map", ".dataset.columns"),
        Rule(
            "!has(self.training) || !has(self.training.precision) || self.training.precision in ['bf16', 'fp32']",
            "training.precision: this version of Strop trains in bf16 or fp32",
            ".training.precision",
        ),
        *(
            Rule(
                f"self.{name} == oldSelf.{name}",
                f"{name}: fixed once the job is created; delete the job or give a new one another name",
                f".{name}",
            )
            for name in _FIXED_REQUIRED
        ),
        *(
            Rule(
                f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})",
                f"{name}: fixed once the job is created; delete the job or give a new one another name",
                f".{name}",
            )
            for name in _FIXED_OPTIONAL
        ),
    )

    task: Task = Field(description="What the model learns to do. This version trains: chat.")
    model: ModelSpec = Field(description="The base model.")
    dataset: DatasetSpec = Field(description="The rows.")
    method: MethodSpec = Field(default_factory=MethodSpec, description="How the model is tuned. Left out: lora.")
    training: TrainingSpec | None = Field(
        default=None, description="Hyperparameters. Left out: chosen, see `strop plan`."
    )
    distributed: DistributedSpec | None = Field(default=None, description="Several pods or ranks.")
    compute: ComputeSpec = Field(
        default_factory=ComputeSpec, description="Where it runs. Left out: the cheapest pool that fits."
    )
    evaluation: EvaluationSpec | None = Field(default=None, description="Measurements and gates on held-out rows.")
    checkpoint: CheckpointSpec | None = Field(default=None, description="When training state is saved.")
    output: OutputSpec | None = Field(default=None, description="What is published, and where.")
    credentials: LocalReference | None = Field(
        default=None,
        description="Secret with credentials for remote sources (key HF_TOKEN), given to the trainer as environment.",
    )
    suspend: bool = Field(default=False, description="Pause: the pods stop with a checkpoint, and go on when unset.")
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = Field(
        default=None, description="Seconds from the start after which the job is failed."
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = Field(
        default=None, description="Seconds after its end until the job is deleted; published versions stay."
    )
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = Field(
        default=3, description="Further attempts after a failure that may pass by itself."
    )


class Progress(StatusModel):
    """How far training is."""

    stage: str = Field(
        default="", max_length=32, description="check, fetch, prepare, train, evaluate, export, prove or publish."
    )
    step: int | None = Field(default=None, ge=0, description="Optimizer steps done.")
    total_steps: int | None = Field(default=None, ge=0, description="Optimizer steps in all.")
    percent: int | None = Field(default=None, ge=0, le=100, description="Of the optimizer steps.")
    epoch: float | None = Field(default=None, ge=0, description="Passes over the rows done.")
    loss: str | None = Field(default=None, max_length=16, description="Training loss, rounded for display.")
    eval_loss: str | None = Field(default=None, max_length=16, description="Loss on held-out rows.")
    learning_rate: str | None = Field(default=None, max_length=16, description="Current learning rate.")
    tokens_per_second: int | None = Field(default=None, ge=0, description="Tokens trained a second.")
    eta_seconds: int | None = Field(default=None, ge=0, description="Estimated seconds until training ends.")
    updated_at: str | None = Field(
        default=None, max_length=64, description="When the trainer last reported (RFC 3339)."
    )


class VersionReference(StatusModel):
    """The version that this job published."""

    name: str = Field(max_length=253, description="Name of the ModelVersion.")
    version: int = Field(ge=1, description="Number in the registry.")
    path: str = Field(max_length=512, description="<namespace>/<model>/<N> in the registry volume.")
    claim: str = Field(max_length=253, description="Claim that holds the registry.")


class FineTuneJobStatus(StatusModel):
    """What is known of the job. Level-based: derived anew from what is there."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="Generation of the spec that this speaks of."
    )
    phase: str | None = Field(default=None, max_length=32, description="One-word summary of the conditions.")
    conditions: Annotated[list[StatusCondition], Field(max_length=16)] = Field(default=[], description="Conditions.")
    message: str | None = Field(default=None, max_length=2048, description="Why it waits, runs or failed, in words.")
    plan_digest: str | None = Field(default=None, max_length=80, description="sha256 of what is computed.")
    pool: str | None = Field(default=None, max_length=253, description="The ComputePool that was chosen.")
    progress: Progress | None = Field(default=None, description="How far training is.")
    attempts: int | None = Field(default=None, ge=0, description="Trainer pods started so far.")
    stage_seconds: dict[str, float] | None = Field(default=None, description="Seconds in each finished stage.")
    model_version: VersionReference | None = Field(default=None, description="What was published.")
    metrics: dict[str, str] | None = Field(default=None, description="Metrics on held-out rows, base → tuned.")
    start_time: str | None = Field(default=None, max_length=64, description="When the first trainer pod started.")
    completion_time: str | None = Field(default=None, max_length=64, description="When the job ended.")
