"""`spec.training` and `spec.checkpoint`: hyperparameters, and when training state is saved."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from strop.api.base import ApiModel, DnsName, Found, MemoryQuantity, Rule


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
        description="Recompute activations: less memory, more time. Left out: false up to 1B parameters, for "
        "prefix-tuning, and for tasks of labels by models of unknown size; else false where all activations fit in the "
        "pool's memory by the estimate, with a tenth to spare, and true where they do not or the model has no preset.",
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


BETA_IS_PREFERENCE = Rule(
    "self.task == 'preference' || !has(self.training) || !has(self.training.preferenceBeta)",
    "only for task preference",
    ".training.preferenceBeta",
    "FieldValueForbidden",
    lambda self: self.task == "preference" or self.training is None or self.training.preference_beta is None,
)
