"""`spec.method`: how the model is tuned, and what that asks of the other parts of a job."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from strop.api.base import ApiModel, Rule, quoted
from strop.api.forms import Form
from strop_trainer.plan import (
    INITIALIZATIONS,
    LORA_METHODS,
    PROMPT_METHODS,
    Initialization,
    MethodType,
)

ModuleName = Annotated[
    str,
    Field(min_length=1, max_length=128),
    Form(r"[A-Za-z0-9_.-]+", "the name of a layer, such as q_proj: letters, digits, '-', '_' and '.'"),
]


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
        f"!has(self.lora) || !(self.lora.initialization in {quoted(starts)}) || self.type == '{method}'",
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


def _exports(self: Any) -> bool:
    return self.output is None or self.output.onnx is None or self.output.onnx.enabled


_PROMPTS = f"self.method.type in {quoted(PROMPT_METHODS)}"

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
