"""FineTuneJob: model, data and method in; a proven version in the registry out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from strop.api.base import (
    DNS_NAME,
    ApiModel,
    Column,
    CpuQuantity,
    DnsLabel,
    DnsName,
    Found,
    ImageReference,
    LocalReference,
    MemoryQuantity,
    MetricName,
    Resource,
    ResourceType,
    Revision,
    Rule,
    Sha256,
    StageName,
    StatusCondition,
    StatusModel,
    Timestamp,
)
from strop.api.distributed import SHARED_RULES, DistributedSpec
from strop.api.forms import Form, data_source_hint, model_source_hint, name_hint, size_hint
from strop_trainer.plan import (
    INITIALIZATIONS,
    LABEL_METHODS,
    LABEL_TASKS,
    LORA_METHODS,
    METRIC_RANGES,
    METRICS,
    ONNX_ADAPTER_METHODS,
    ONNX_ADAPTER_MODULES,
    PROMPT_METHODS,
    TEMPLATE_TASKS,
    Initialization,
    MethodType,
    OnnxForm,
    OnnxPrecision,
    Task,
    TaskMetrics,
)

_HUB_NAME = r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+"
# No user:password@ in front of the host: a job is no place for credentials.
_HTTPS = r"https://[A-Za-z0-9.-]+(:[0-9]+)?/[!-~]+"
_CLAIM_PATH = rf"pvc://{DNS_NAME}/[!-~]+"
MODEL_SOURCE = Form(
    rf"hf://{_HUB_NAME}|{_CLAIM_PATH}|{_HTTPS}",
    "hf://owner/name, pvc://claim/path or https://host/archive.tar.gz",
    model_source_hint,
)
DATA_SOURCE = Form(
    rf"configmap://{DNS_NAME}/[-._a-zA-Z0-9]+|{_CLAIM_PATH}|hf://datasets/{_HUB_NAME}/[!-~]+|{_HTTPS}",
    "configmap://name/key, pvc://claim/path, hf://datasets/owner/name/path or https://host/file",
    data_source_hint,
)

JOB_NAME_LENGTH = 50
"""Characters: the names of the job's pods and Service add to it and must stay DNS labels of 63."""

SUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {
    "training.precision": ("auto", "bf16", "fp32"),
}
"""Field of the spec → the values of its enumeration that this version can do."""

"""Methods that put trainable tokens in front of each row."""


def _quoted(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


def _has_dots(source: str) -> bool:
    return "/../" in source or source.endswith("/..")


HTTPS_NEEDS_HASH = Rule(
    "!self.source.startsWith('https://') || has(self.sha256)",
    "an https:// source needs its hash, so that what is trained on is what was meant",
    ".sha256",
    "FieldValueRequired",
    lambda self: not self.source.startswith("https://") or self.sha256 is not None,
)
HASH_IS_HTTPS = Rule(
    "!has(self.sha256) || self.source.startsWith('https://')",
    "only an https:// source is checked against a hash",
    ".sha256",
    "FieldValueForbidden",
    lambda self: self.sha256 is None or self.source.startswith("https://"),
)
NO_DOTS = Rule(
    "!self.source.contains('/../') && !self.source.endsWith('/..')",
    "must not climb out of its folder by '..'",
    ".source",
    check=lambda self: not _has_dots(self.source),
)
REVISION_IS_HF = Rule(
    "!has(self.revision) || self.source.startsWith('hf://')",
    "only an hf:// source has revisions",
    ".revision",
    "FieldValueForbidden",
    lambda self: self.revision is None or self.source.startswith("hf://"),
)
REVISION_NO_DOTS = Rule(
    "!has(self.revision) || !self.revision.contains('..')",
    "must not contain '..'",
    ".revision",
    check=lambda self: self.revision is None or ".." not in self.revision,
)
_SOURCE_RULES = (HTTPS_NEEDS_HASH, HASH_IS_HTTPS, NO_DOTS, REVISION_IS_HF, REVISION_NO_DOTS)


class ModelSpec(ApiModel):
    """The base model."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *_SOURCE_RULES,
        Rule(
            "!has(self.chatTemplate) || self.chatTemplate.contains('messages')",
            "must be the text of a Jinja template, which renders `messages`; a path or a name is none",
            ".chatTemplate",
            check=lambda self: self.chat_template is None or "messages" in self.chat_template,
        ),
    )

    source: Annotated[str, Field(min_length=1, max_length=1024), MODEL_SOURCE] = Field(
        description="Where the base model's Hugging Face folder is: hf://owner/name, pvc://claim/path, "
        "or https://… (a .tar.gz of the folder). Weights must be safetensors.",
    )
    revision: Revision | None = Field(
        default=None,
        description="Commit, tag or branch of an hf:// source; pin a commit to repeat a run exactly. Left out: the "
        "commit that the model's preset pins, else main.",
    )
    sha256: Sha256 | None = Field(default=None, description="Hash of an https:// archive, in hex.")
    parameters: (
        Annotated[
            str,
            Field(min_length=2, max_length=16),
            Form(
                r"([1-9][0-9]*(\.[0-9]+)?|0\.[0-9]*[1-9][0-9]*)[MB]",
                "a number with M or B, such as 135M or 8B",
                size_hint,
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Size, such as 135M or 8B, for the memory estimate of a model that Strop has no preset for.",
    )
    chat_template: Annotated[str, Field(min_length=8, max_length=65536)] | None = Field(
        default=None,
        description="Text of a Jinja chat template to be used in place of the model's own: in training and evaluation, "
        "and published with the model. Left out: the model's; where it has none, chat refuses it and other tasks take "
        "Alpaca's headings.",
    )


class DataSource(ApiModel):
    """One file of rows, or a folder of them."""

    rules: ClassVar[tuple[Rule, ...]] = _SOURCE_RULES

    source: Annotated[str, Field(min_length=1, max_length=1024), DATA_SOURCE] = Field(
        description="configmap://name/key (small data), pvc://claim/path, hf://datasets/owner/name/path or https://….",
    )
    revision: Revision | None = Field(default=None, description="Commit, tag or branch of an hf:// source.")
    sha256: Sha256 | None = Field(default=None, description="Hash of the file, in hex; required for https://.")


ColumnName = Annotated[
    str, Field(min_length=1, max_length=128), Form(r"[^\x00-\x1f]+", "text without control characters")
]
ModuleName = Annotated[
    str,
    Field(min_length=1, max_length=128),
    Form(r"[A-Za-z0-9_.-]+", "the name of a layer, such as q_proj: letters, digits, '-', '_' and '.'"),
]


class DatasetSpec(ApiModel):
    """What to learn from, and what to hold out."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.validation) && has(self.validationSplit))",
            "not together with validation, which already names the held-out rows",
            ".validationSplit",
            "FieldValueForbidden",
            lambda self: self.validation is None or self.validation_split is None,
        ),
    )

    train: Annotated[list[DataSource], Field(min_length=1, max_length=64)] = Field(description="Training rows.")
    validation: Annotated[list[DataSource], Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="Held-out rows. Left out, a part of the training rows is held out."
    )
    validation_split: Annotated[float, Field(gt=0, le=0.5)] | None = Field(
        default=None,
        description="Fraction of the training rows that is held out, by a hash of the seed and each row's content: "
        "equal rows are on one side. Left out: 0.1.",
    )
    format: Literal["auto", "jsonl", "csv", "parquet", "text"] = Field(
        default="auto",
        description="Format of the files: jsonl (also JSON lists), csv (with a header; comma, semicolon or tab), "
        "parquet, or text (for text-generation: two empty lines set documents apart). auto: by suffix and content.",
    )
    columns: Annotated[dict[ColumnName, ColumnName], Field(max_length=32)] | None = Field(
        default=None, description="Name that the task expects → name in the files. Left out: none."
    )
    max_rows: Annotated[int, Field(ge=2, le=100_000_000)] | None = Field(
        default=None, description="At most so many training rows are used. Left out: all."
    )


class LoraSpec(ApiModel):
    """Low-rank adaptation. What is left out is chosen; `strop plan` says why."""

    rank: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None,
        description="Rank r of the adapter's matrices: higher learns more and costs more. Left out: 16; up to 128 "
        "where dataset.maxRows lets the rows tell more than its parameters hold.",
    )
    alpha: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None,
        description="Scale: the adapter's output is multiplied by alpha / rank. Left out: 32; with useRslora 8; with "
        "initialization pissa or olora the rank.",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None,
        description="Dropout on the adapter's input while training. Left out: 0.",
    )
    target_modules: Annotated[list[ModuleName], Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="Names of the linear layers to adapt. Left out: all linear layers but the head."
    )
    modules_to_save: Annotated[list[ModuleName], Field(max_length=16)] | None = Field(
        default=None,
        description="Further modules that are trained in full and saved beside the adapter. Left out: none.",
    )
    use_rslora: bool = Field(default=False, description="Scale by alpha / sqrt(rank) instead (rank-stabilised LoRA).")
    initialization: Initialization = Field(
        default="default",
        description="How the adapter starts: default at no effect; pissa and olora (type lora) at the principal part "
        "of the weights, loftq (type qlora) at what quantization has lost. The published adapter fits the base model "
        "as it is, with twice the rank where it did not start at no effect.",
    )
    plus_ratio: Annotated[float, Field(ge=1, le=1024)] | None = Field(
        default=None,
        description="Learning rate of the adapter's B matrices over that of A (LoRA+), such as 16. Left out: 1.",
    )


class PromptSpec(ApiModel):
    """Options of prompt-, prefix- and p-tuning."""

    virtual_tokens: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="Trainable tokens in front of each prompt. Left out: 20."
    )


def _start_rule(starts: tuple[Initialization, ...], why: str) -> Rule:
    """Return the rule that an adapter starts in these ways with the one method that has them."""
    (method,) = (method for method, allowed in INITIALIZATIONS.items() if set(starts) <= set(allowed))
    return Rule(
        f"!has(self.lora) || !(self.lora.initialization in {_quoted(starts)}) || self.type == '{method}'",
        f"{' and '.join(starts)} {'are' if len(starts) > 1 else 'is'} for type {method}: {why}",
        ".lora.initialization",
        check=lambda self: self.lora is None or self.lora.initialization not in starts or self.type == method,
    )


class MethodSpec(ApiModel):
    """How the model is tuned."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.lora) || self.type in ['lora', 'qlora', 'dora']",
            "only for type lora, qlora or dora",
            ".lora",
            "FieldValueForbidden",
            lambda self: self.lora is None or self.type in LORA_METHODS,
        ),
        Rule(
            "!has(self.prompt) || self.type in ['prompt-tuning', 'prefix-tuning', 'p-tuning']",
            "only for type prompt-tuning, prefix-tuning or p-tuning",
            ".prompt",
            "FieldValueForbidden",
            lambda self: self.prompt is None or self.type in PROMPT_METHODS,
        ),
        _start_rule(
            ("pissa", "olora"), "they take their part out of weights that are neither quantized nor decomposed"
        ),
        _start_rule(("loftq",), "it makes up for what quantization loses"),
    )

    type: MethodType = Field(
        default="lora",
        description="Fine-tuning method: full trains all weights; lora, dora and ia3 a small adapter; qlora an adapter "
        "on weights of 4 bits; prompt-tuning, prefix-tuning and p-tuning tokens in front of each row, which are "
        "published without ONNX.",
    )
    lora: LoraSpec | None = Field(default=None, description="Options of lora, qlora and dora.")
    prompt: PromptSpec | None = Field(default=None, description="Options of prompt-, prefix- and p-tuning.")


class TrainingSpec(ApiModel):
    """Hyperparameters. What is left out is chosen by the task, the model, the method and maxRows: see `strop plan`."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.epochs) && has(self.maxSteps))",
            "not together with epochs: one of them says when training ends",
            ".maxSteps",
            "FieldValueForbidden",
            lambda self: self.epochs is None or self.max_steps is None,
        ),
        Rule(
            "!has(self.microBatchSize) || !has(self.effectiveBatchSize) || "
            "self.effectiveBatchSize % self.microBatchSize == 0",
            "must be a multiple of microBatchSize",
            ".effectiveBatchSize",
            check=lambda self: (
                self.micro_batch_size is None
                or self.effective_batch_size is None
                or self.effective_batch_size % self.micro_batch_size == 0
            ),
            found=Found(
                None,
                lambda self: f"{self.effective_batch_size} with microBatchSize {self.micro_batch_size}",
            ),
        ),
    )

    epochs: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None,
        description="Passes over the training rows. Left out: 3, or 1 for preference, unless maxSteps is given.",
    )
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None, description="Optimizer steps, in place of epochs."
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Peak learning rate: a number, such as 0.0002 or 2e-4. Left out: by the method and the model's "
        "width.",
    )
    scheduler: Literal["linear", "cosine", "constant"] | None = Field(
        default=None, description="Learning rate schedule. Left out: linear."
    )
    warmup_ratio: Annotated[float, Field(ge=0, le=0.5)] | None = Field(
        default=None,
        description="Fraction of the steps in which the learning rate rises. Left out: 0.03, and 0.1 in a short run "
        "and for preference.",
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="AdamW weight decay. Left out: 0."
    )
    max_grad_norm: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None, description="Gradient clipping norm. Left out: 1."
    )
    effective_batch_size: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        default=None,
        description="Rows in one optimizer step over all ranks. Left out: 16, and 8 where maxRows is small.",
    )
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None,
        description="Rows in one forward pass of one rank; accumulation makes up the rest. Left out: by maxLength.",
    )
    max_length: Annotated[int, Field(ge=16, le=1_048_576)] | None = Field(
        default=None,
        description="Tokens a row may have; longer rows are truncated, and how many were is reported. Left out: "
        "1024; 256 for tasks of labels; 384 for question-answering by what may be an encoder; 512 for translation by "
        "what may be a model of encoder and decoder; never more than the model reads.",
    )
    packing: bool | None = Field(
        default=None,
        description="Rows share a forward pass without padding, kept apart. Left out: true; false for tasks of labels "
        "and for methods that put tokens in front of each row. Encoders, and models of encoder and decoder, have their "
        "rows padded in any case.",
    )
    precision: Literal["auto", "bf16", "fp32", "fp16"] | None = Field(
        default=None,
        description="Compute precision; auto: bf16, or fp32 where a CPU is faster in it and the pod has the memory, as "
        "is measured before training, or where an accelerator has no bf16. Left out: auto.",
    )
    gradient_checkpointing: bool | None = Field(
        default=None,
        description="Recompute activations: less memory, more time. Left out: true over 1B parameters or of unknown "
        "size; false for prefix-tuning, and for tasks of labels by models of unknown size.",
    )
    seed: Annotated[int, Field(ge=0, le=4_294_967_295)] | None = Field(
        default=None, description="Seed of all randomness. Left out: 42."
    )
    deterministic: bool | None = Field(
        default=None,
        description="The same seed gives the same weights, bit for bit, also across a restart, on the same kind of "
        "machine and number of threads. Left out: true.",
    )
    preference_beta: Annotated[float, Field(gt=0, le=10)] | None = Field(
        default=None,
        description="DPO's beta, of task preference: the higher, the nearer the model is held to the base model. "
        "Left out: 0.1.",
    )


class ResourcesSpec(ApiModel):
    """Resources of one trainer pod."""

    cpu: CpuQuantity | None = Field(
        default=None, description="CPUs, such as 2 or 1500m. Left out: all that the pool allows."
    )
    memory: MemoryQuantity | None = Field(default=None, description="Memory, such as 8Gi. Left out: by the estimate.")
    accelerators: Annotated[int, Field(ge=0, le=64)] | None = Field(
        default=None,
        description="Accelerators, of the kind that the pool has: none, or one a rank. Left out: one a rank where the "
        "pool has some.",
    )


class ComputeSpec(ApiModel):
    """Where it runs."""

    pool: DnsLabel = Field(
        default="auto", description="A ComputePool by name, or auto: the cheapest that fits and admits the namespace."
    )
    resources: ResourcesSpec | None = Field(default=None, description="Left out: from the memory estimate.")
    image: ImageReference | None = Field(
        default=None, description="Trainer image. Left out: the pool's, else the installation's."
    )


MetricBound = Annotated[float, Field(ge=-1e9, le=1e9)]
METRICS_IN_WORDS = "; ".join(f"{task}: {', '.join(METRICS[task].names)}" for task in METRICS)


def _outside(self: EvaluationSpec, bound: str, names: tuple[str, ...], low: int, high: int) -> dict[str, float]:
    """Return the gates on some metrics that are out of their range."""
    gates: dict[str, float] = getattr(self, bound) or {}
    return {name: value for name, value in gates.items() if name in names and not low <= value <= high}


def _range_rule(bound: str, names: tuple[str, ...], low: int, high: int) -> Rule:
    """Return the rule that gates on some metrics are in the range of what is measured."""
    outside = f"name in {_quoted(names)} && (self.{bound}[name] < {low}.0 || self.{bound}[name] > {high}.0)"
    share = ", a share: 0.8 for 80 %" if (low, high) == (0, 1) else ""
    return Rule(
        f"!has(self.{bound}) || !self.{bound}.exists(name, {outside})",
        f"allowed: {low} to {high} for {', '.join(names)}{share}",
        f".{bound}",
        check=lambda self: not _outside(self, bound, names, low, high),
        found=Found(
            f"self.{bound}.filter(name, {outside})[0]",
            lambda self: ", ".join(
                f"{key}: {value:g}" for key, value in _outside(self, bound, names, low, high).items()
            ),
        ),
    )


class EvaluationSpec(ApiModel):
    """What is measured on held-out rows, and what must be reached to be published."""

    rules: ClassVar[tuple[Rule, ...]] = tuple(
        _range_rule(bound, names, low, high)
        for (low, high), names in METRIC_RANGES.items()
        for bound in ("minimum", "maximum")
    )

    every_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Steps between measurements of the loss. Left out: never, but at the end."
    )
    max_rows: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Held-out rows for the loss. Left out: 200."
    )
    generate_rows: Annotated[int, Field(ge=0, le=10_000)] | None = Field(
        default=None, description="Held-out rows that are answered by generation and compared. Left out: 20."
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] | None = Field(
        default=None,
        description="Longest generated answer, in tokens. Left out: 64; 128 for translation and summarization.",
    )
    minimum: Annotated[dict[MetricName, MetricBound], Field(max_length=16)] | None = Field(
        default=None,
        description="Metric → lowest value with which the result may be published, such as exact_match: 0.8. "
        f"Left out: none. Metrics of {METRICS_IN_WORDS}.",
    )
    maximum: Annotated[dict[MetricName, MetricBound], Field(max_length=16)] | None = Field(
        default=None,
        description="Metric → highest value with which the result may be published, such as eval_loss: 1.2. "
        f"Left out: none. Metrics of {METRICS_IN_WORDS}.",
    )


class CheckpointSpec(ApiModel):
    """When training state is saved."""

    every_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None,
        description="Optimizer steps between checkpoints. Left out: about ten in a run; 50 if its length is not known.",
    )
    keep: Annotated[int, Field(ge=1, le=100)] = Field(default=2, description="Newest checkpoints that are kept.")
    size: MemoryQuantity | None = Field(
        default=None, description="Size of the job's work volume. Left out: from the model's size."
    )
    storage_class_name: DnsName | None = Field(
        default=None, description="Storage class of the work volume. Left out: the pool's, else the cluster's default."
    )


class OnnxSpec(ApiModel):
    """The ONNX export."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.precisions) || self.precisions.all(p, self.precisions.exists_one(q, p == q))",
            "each precision once",
            ".precisions",
            check=lambda self: self.precisions is None or len(set(self.precisions)) == len(self.precisions),
        ),
    )

    enabled: bool = Field(default=True, description="Export to ONNX, prove and publish it.")
    precisions: Annotated[list[OnnxPrecision], Field(min_length=1, max_length=3)] | None = Field(
        default=None,
        description="Precisions to export; the first is published as onnx/. Left out: fp32 and int4; fp32 for tasks of "
        "labels; fp32 and int8 for an encoder that marks its answers, and for a model of encoder and decoder.",
    )
    form: OnnxForm = Field(
        default="merged",
        description="merged: the adapter is folded into the model. adapter (methods lora and qlora): it is published "
        "as onnx-adapter/adapter.onnx_adapter, to be switched at run time on a base graph that all adapters of the "
        "same base model and target modules share; the graph is kept once, in _bases/ of the registry. both: either.",
    )


Alias = Annotated[
    str,
    Field(min_length=1, max_length=63),
    Form(
        r"[a-z]([-a-z0-9]*[a-z0-9])?",
        "lower-case letters, digits and '-', beginning with a letter, ending with a letter or digit",
        name_hint,
    ),
]
"""Starts with a letter: a whole number is a version."""


class OutputSpec(ApiModel):
    """What is published, and where."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.aliases) || self.aliases.all(a, self.aliases.exists_one(b, a == b))",
            "each alias once",
            ".aliases",
            check=lambda self: self.aliases is None or len(set(self.aliases)) == len(self.aliases),
        ),
    )

    model: DnsLabel | None = Field(default=None, description="Name in the registry. Left out: the job's name.")
    claim: LocalReference | None = Field(
        default=None, description="Claim that holds the registry. Left out: strop-models."
    )
    onnx: OnnxSpec | None = Field(
        default=None,
        description="The ONNX export. Left out: it is made, but for prompt methods, and for models whose architecture "
        "has no right one: then the adapter is published without it, and the log says so. Given: such a model is "
        "refused.",
    )
    merged: bool | None = Field(
        default=None,
        description="Also publish the merged model (with method full the tuned one) as safetensors. Left out: false; "
        "true for dora, whose adapter vLLM does not load, and for full where the model has no ONNX export.",
    )
    aliases: Annotated[list[Alias], Field(max_length=8)] | None = Field(
        default=None, description="Names in the index that point at the new version, beside latest."
    )


def _not_yet(
    rule: str, message: str, field_path: str, check: Callable[[Any], bool], found: Found | None = None
) -> Rule:
    return Rule(rule, f"this version of Strop {message}", field_path, "FieldValueForbidden", check, found)


def _value_at(model: Any, path: str) -> Any:
    """Return the value of a field, such as `method.type`; None where something on the way is left out."""
    for step in path.split("."):
        if model is None:
            return None
        model = getattr(model, step)
    return model


def _supported(path: str, words: str) -> Rule:
    """Return the rule that a field has one of the values that this version can do."""
    allowed, steps = SUPPORTED[path], path.split(".")
    left_out = "".join(f"!has(self.{'.'.join(steps[:length])}) || " for length in range(1, len(steps) + 1))
    return _not_yet(
        f"{left_out}self.{path} in {_quoted(allowed)}",
        words.format(", ".join(allowed)),
        f".{path}",
        lambda self: _value_at(self, path) in (None, *allowed),
        Found(f"self.{path}", lambda self: str(_value_at(self, path))),
    )


NOT_YET: tuple[Rule, ...] = (
    _not_yet(
        "!has(self.distributed) || !has(self.distributed.nodes) || self.distributed.nodes == 1",
        "trains in one pod: leave it out, or 1; its ranks are processesPerNode",
        ".distributed.nodes",
        lambda self: self.distributed is None or self.distributed.nodes in {None, 1},
    ),
    _supported("training.precision", "trains in {}; other precisions are not there yet"),
)
"""What the schema holds already and this version cannot do."""

TEMPLATE_IS_CONVERSATION = Rule(
    f"!has(self.model.chatTemplate) || self.task in {_quoted(TEMPLATE_TASKS)}",
    f"only for {', '.join(TEMPLATE_TASKS)}: the rows of other tasks are no conversations",
    ".model.chatTemplate",
    "FieldValueForbidden",
    check=lambda self: self.model.chat_template is None or self.task in TEMPLATE_TASKS,
)

TEXT_FILES = Rule(
    "self.dataset.format != 'text' || self.task == 'text-generation'",
    "text is for task text-generation: the rows of other tasks have columns",
    ".dataset.format",
    check=lambda self: self.dataset.format != "text" or self.task == "text-generation",
)

BETA_IS_PREFERENCE = Rule(
    "self.task == 'preference' || !has(self.training) || !has(self.training.preferenceBeta)",
    "only for task preference",
    ".training.preferenceBeta",
    "FieldValueForbidden",
    lambda self: self.task == "preference" or self.training is None or self.training.preference_beta is None,
)


def _exports(self: FineTuneJobSpec) -> bool:
    return self.output is None or self.output.onnx is None or self.output.onnx.enabled


_PROMPTS = f"self.method.type in {_quoted(PROMPT_METHODS)}"


def _onnx_form(self: FineTuneJobSpec) -> str:
    return self.output.onnx.form if self.output and self.output.onnx else "merged"


_MERGED = "!has(self.output) || !has(self.output.onnx) || self.output.onnx.form == 'merged'"
_FORM = ".output.onnx.form"

ONNX_FORM_RULES: tuple[Rule, ...] = (
    Rule(
        f"{_MERGED} || self.method.type in {_quoted(ONNX_ADAPTER_METHODS)}",
        f"merged, but for {' and '.join(ONNX_ADAPTER_METHODS)}: other methods have no adapter that a base graph could "
        "take in at run time",
        _FORM,
        check=lambda self: _onnx_form(self) == "merged" or self.method.type in ONNX_ADAPTER_METHODS,
    ),
    Rule(
        f"{_MERGED} || !(self.task in {_quoted(LABEL_TASKS)})",
        f"merged for {' and '.join(LABEL_TASKS)}: their head is new, and no other model's base graph has it",
        _FORM,
        check=lambda self: _onnx_form(self) == "merged" or self.task not in LABEL_TASKS,
    ),
    Rule(
        f"{_MERGED} || !has(self.method.lora) || !has(self.method.lora.modulesToSave) || "
        "size(self.method.lora.modulesToSave) == 0",
        "merged with method.lora.modulesToSave: modules that are trained in full are part of the graph",
        _FORM,
        check=lambda self: _onnx_form(self) == "merged" or not (self.method.lora and self.method.lora.modules_to_save),
    ),
    Rule(
        f"{_MERGED} || !has(self.method.lora) || !has(self.method.lora.targetModules) || "
        f"self.method.lora.targetModules.all(m, m in {_quoted(ONNX_ADAPTER_MODULES)})",
        f"merged, or of method.lora.targetModules only {', '.join(ONNX_ADAPTER_MODULES)}, which a base graph has "
        "inputs for",
        _FORM,
        check=lambda self: (
            _onnx_form(self) == "merged"
            or self.method.lora is None
            or set(self.method.lora.target_modules or ()).issubset(ONNX_ADAPTER_MODULES)
        ),
    ),
)
"""What an adapter in ONNX Runtime's own format asks of the other parts of a job."""

METHOD_RULES: tuple[Rule, ...] = (
    Rule(
        f"!({_PROMPTS}) || !has(self.output) || !has(self.output.onnx) || !self.output.onnx.enabled",
        f"Strop exports no ONNX of {', '.join(PROMPT_METHODS)}: its graphs have no place for their tokens; the "
        "adapter is published without it: leave it out, or set enabled: false",
        ".output.onnx",
        "FieldValueForbidden",
        lambda self: (
            self.method.type not in PROMPT_METHODS
            or self.output is None
            or self.output.onnx is None
            or not self.output.onnx.enabled
        ),
    ),
    Rule(
        f"!({_PROMPTS}) || !has(self.output) || !has(self.output.merged) || !self.output.merged",
        f"there is no merged model with {', '.join(PROMPT_METHODS)}: their tokens cannot be folded into the weights",
        ".output.merged",
        "FieldValueForbidden",
        lambda self: self.method.type not in PROMPT_METHODS or self.output is None or not self.output.merged,
    ),
    Rule(
        f"!({_PROMPTS}) || !has(self.training) || !has(self.training.packing) || !self.training.packing",
        f"rows cannot share a forward pass with {', '.join(PROMPT_METHODS)}, since tokens stand in front of each: "
        "leave it out, or false",
        ".training.packing",
        "FieldValueForbidden",
        lambda self: self.method.type not in PROMPT_METHODS or self.training is None or not self.training.packing,
    ),
    Rule(
        "self.method.type != 'prefix-tuning' || !has(self.training) || !has(self.training.gradientCheckpointing) || "
        "!self.training.gradientCheckpointing",
        "not with prefix-tuning: what is recomputed would not see the prefix; leave it out, or false",
        ".training.gradientCheckpointing",
        "FieldValueForbidden",
        lambda self: (
            self.method.type != "prefix-tuning" or self.training is None or not self.training.gradient_checkpointing
        ),
    ),
    Rule(
        "self.method.type != 'full' || !has(self.output) || (has(self.output.merged) && self.output.merged) || "
        "!has(self.output.onnx) || self.output.onnx.enabled",
        "full has no adapter: without ONNX, merged: true is needed, or nothing would be published",
        ".output.merged",
        "FieldValueRequired",
        lambda self: self.method.type != "full" or _exports(self) or bool(self.output.merged),
    ),
)
"""What a method asks of the other parts of a job."""


LABEL_RULES: tuple[Rule, ...] = (
    Rule(
        f"!(self.task in {_quoted(LABEL_TASKS)}) || self.method.type in {_quoted(LABEL_METHODS)}",
        f"{' and '.join(LABEL_TASKS)} take {', '.join(LABEL_METHODS)}: tokens in front of a row are for models that "
        "answer in words",
        ".method.type",
        "FieldValueForbidden",
        lambda self: self.task not in LABEL_TASKS or self.method.type in LABEL_METHODS,
        Found("self.method.type", lambda self: str(self.method.type)),
    ),
    Rule(
        f"!(self.task in {_quoted(LABEL_TASKS)}) || !has(self.output) || !has(self.output.onnx) || "
        "!has(self.output.onnx.precisions) || !('int4' in self.output.onnx.precisions)",
        f"{' and '.join(LABEL_TASKS)} are exported as fp32 and int8, not int4",
        ".output.onnx.precisions",
        "FieldValueForbidden",
        lambda self: (
            self.task not in LABEL_TASKS
            or self.output is None
            or self.output.onnx is None
            or "int4" not in (self.output.onnx.precisions or ())
        ),
        Found("'int4'", lambda self: ", ".join(self.output.onnx.precisions)),
    ),
    Rule(
        f"!(self.task in {_quoted(LABEL_TASKS)}) || !has(self.method.lora) || "
        "self.method.lora.initialization == 'default'",
        f"only default for {' and '.join(LABEL_TASKS)}",
        ".method.lora.initialization",
        "FieldValueForbidden",
        lambda self: (
            self.task not in LABEL_TASKS or self.method.lora is None or self.method.lora.initialization == "default"
        ),
    ),
)
"""What a head for labels asks of the other parts of a job."""


def _gates(self: FineTuneJobSpec, bound: str) -> list[str]:
    return list((getattr(self.evaluation, bound) if self.evaluation else None) or {})


def _generates(self: FineTuneJobSpec) -> bool:
    return self.evaluation is None or self.evaluation.generate_rows != 0


def _metric_rules(task: Task, metrics: TaskMetrics, bound: Literal["minimum", "maximum"]) -> Iterator[Rule]:
    """Yield the rules that gates name what is measured for a task, and what is measured in this job."""
    gates = f"self.evaluation.{bound}"
    left_out = f"self.task != '{task}' || !has(self.evaluation) || !has({gates}) || "
    known, generated = set(metrics.names), set(metrics.generated)
    yield Rule(
        f"{left_out}{gates}.all(name, name in {_quoted(metrics.names)})",
        f"{task} is measured by {', '.join(metrics.names)}",
        f".evaluation.{bound}",
        check=lambda self: self.task != task or known.issuperset(_gates(self, bound)),
        found=Found(
            f"{gates}.filter(name, !(name in {_quoted(metrics.names)}))[0]",
            lambda self: ", ".join(name for name in _gates(self, bound) if name not in known),
        ),
    )
    if generated and not metrics.by_model:
        yield Rule(
            f"{left_out}!has(self.evaluation.generateRows) || self.evaluation.generateRows > 0 || "
            f"!{gates}.exists(name, name in {_quoted(metrics.generated)})",
            f"must be at least 1 for {', '.join(metrics.generated)} in evaluation.{bound}: {task} measures it on "
            "generated answers",
            ".evaluation.generateRows",
            check=lambda self: self.task != task or _generates(self) or generated.isdisjoint(_gates(self, bound)),
        )


_BOUNDS: Final[tuple[Literal["minimum", "maximum"], ...]] = ("minimum", "maximum")
METRIC_RULES: tuple[Rule, ...] = tuple(
    rule for task, metrics in METRICS.items() for bound in _BOUNDS for rule in _metric_rules(task, metrics, bound)
)
"""What the gates of `evaluation` may name."""

_FIXED = "fixed once the job is created; delete the job, or give a new one another name"
_FIXED_REQUIRED = ("task", "model", "dataset", "method", "compute", "backoffLimit")
_FIXED_OPTIONAL = ("training", "distributed", "evaluation", "checkpoint", "output", "credentials")
_IMMUTABLE: tuple[Rule, ...] = (
    *(Rule(f"self.{name} == oldSelf.{name}", _FIXED, f".{name}", "FieldValueForbidden") for name in _FIXED_REQUIRED),
    *(
        Rule(
            f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})",
            _FIXED,
            f".{name}",
            "FieldValueForbidden",
        )
        for name in _FIXED_OPTIONAL
    ),
)


class FineTuneJobSpec(ApiModel):
    """A fine-tuning job. Fixed once created, but for suspend, activeDeadlineSeconds and ttlSecondsAfterFinished."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *NOT_YET,
        TEXT_FILES,
        TEMPLATE_IS_CONVERSATION,
        BETA_IS_PREFERENCE,
        *METHOD_RULES,
        *ONNX_FORM_RULES,
        *LABEL_RULES,
        *SHARED_RULES,
        *METRIC_RULES,
        *_IMMUTABLE,
    )

    task: Task = Field(description="What the model learns to do; preference is DPO on pairs of answers.")
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
    display: Annotated[str, Field(max_length=32)] | None = Field(
        default=None, description="For the column: the share done, such as 42%, or the stage outside training."
    )
    step: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Optimizer steps done.")
    total_steps: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Optimizer steps in all.")
    percent: Annotated[int, Field(ge=0, le=100)] | None = Field(default=None, description="Of the optimizer steps.")
    epoch: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Passes over the rows done.")
    loss: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="Training loss, rounded for display."
    )
    eval_loss: Annotated[str, Field(max_length=16)] | None = Field(default=None, description="Loss on held-out rows.")
    learning_rate: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="Current learning rate."
    )
    tokens_per_second: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Tokens trained a second.")
    eta_seconds: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Estimated seconds until training ends."
    )
    eta: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="For the column: the same, such as 3m20s."
    )
    updated_at: Timestamp | None = Field(default=None, description="When the trainer last reported (RFC 3339).")


class VersionReference(StatusModel):
    """The version that this job published."""

    name: DnsName = Field(description="Name of the ModelVersion.")
    version: int = Field(ge=1, description="Number in the registry.")
    path: str = Field(min_length=1, max_length=512, description="<namespace>/<model>/<N> in the registry volume.")
    claim: DnsName = Field(description="Claim that holds the registry.")


class FineTuneJobStatus(StatusModel):
    """What is known of the job. Level-based: derived anew from what is there."""

    observed_generation: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Generation of the spec that this speaks of."
    )
    phase: Annotated[str, Field(max_length=32)] | None = Field(
        default=None, description="One-word summary of the conditions."
    )
    conditions: Annotated[list[StatusCondition], Field(max_length=16)] = Field(
        default=[],
        description="Conditions.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    message: Annotated[str, Field(max_length=2048)] | None = Field(
        default=None, description="Why it waits, runs or failed, in words."
    )
    plan_digest: Annotated[str, Field(max_length=80)] | None = Field(
        default=None, description="sha256 of what is computed."
    )
    pool: Annotated[str, Field(max_length=253)] | None = Field(
        default=None, description="The ComputePool that was chosen."
    )
    progress: Progress | None = Field(default=None, description="How far training is.")
    attempts: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Trainer pods started so far.")
    stage_seconds: Annotated[dict[StageName, Annotated[float, Field(ge=0)]], Field(max_length=32)] | None = Field(
        default=None, description="Seconds in each finished stage."
    )
    model_version: VersionReference | None = Field(default=None, description="What was published.")
    metrics: Annotated[dict[MetricName, Annotated[str, Field(max_length=64)]], Field(max_length=64)] | None = Field(
        default=None, description="Metrics on held-out rows, base → tuned."
    )
    start_time: Timestamp | None = Field(default=None, description="When the first trainer pod started.")
    completion_time: Timestamp | None = Field(default=None, description="When the job ended.")


def _name_is_short_label(self: FineTuneJob) -> bool:
    name = self.metadata.name
    return name is None or (
        len(name) <= JOB_NAME_LENGTH and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) is not None
    )


class FineTuneJob(Resource):
    """Tunes a model on data, proves the result and publishes it as a version in a registry volume."""

    resource: ClassVar[ResourceType] = ResourceType(
        plural="finetunejobs",
        singular="finetunejob",
        short_names=("ftj",),
        namespaced=True,
        columns=(
            Column("Model", ".spec.model.source", "The base model."),
            Column("Method", ".spec.method.type", "The fine-tuning method."),
            Column("Phase", ".status.phase", "One-word summary of the conditions."),
            Column("Progress", ".status.progress.display", "Share of the optimizer steps that are done."),
            Column("Loss", ".status.progress.loss", "Training loss."),
            Column("Version", ".status.modelVersion.version", "The version that was published.", "integer"),
            Column("Pool", ".status.pool", "The ComputePool that was chosen.", wide=True),
            Column("ETA", ".status.progress.eta", "Estimated time until training ends.", wide=True),
            Column("Message", ".status.message", "Why it waits, runs or failed.", wide=True),
            Column("Age", ".metadata.creationTimestamp", "Time since the job was created.", "date"),
        ),
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"size(self.metadata.name) <= {JOB_NAME_LENGTH} && "
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            f"a job's name has at most {JOB_NAME_LENGTH} lower-case letters, digits and hyphens and "
            "starts with a letter, since its pods and its Service are named after it",
            ".metadata.name",
            check=_name_is_short_label,
        ),
    )

    kind: Literal["FineTuneJob"] = "FineTuneJob"
    spec: FineTuneJobSpec = Field(
        description="What is asked for. Fixed once created, but for suspend, deadline and TTL."
    )
    status: FineTuneJobStatus | None = Field(default=None, description="What is known; written by the operator.")
