"""`spec.output`: what is published, in which form and where."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from strop.api.base import ApiModel, DnsLabel, LocalReference, Rule, quoted
from strop.api.forms import Form, name_hint
from strop_trainer.plan import LABEL_TASKS, ONNX_ADAPTER_METHODS, ONNX_ADAPTER_MODULES, OnnxForm, OnnxPrecision


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


def _onnx_form(self: Any) -> str:
    return self.output.onnx.form if self.output and self.output.onnx else "merged"


_MERGED = "!has(self.output) || !has(self.output.onnx) || self.output.onnx.form == 'merged'"
_FORM = ".output.onnx.form"

ONNX_FORM_RULES: tuple[Rule, ...] = (
    Rule(
        f"{_MERGED} || self.method.type in {quoted(ONNX_ADAPTER_METHODS)}",
        f"merged, but for {' and '.join(ONNX_ADAPTER_METHODS)}: other methods have no adapter that a base graph could "
        "take in at run time",
        _FORM,
        check=lambda self: _onnx_form(self) == "merged" or self.method.type in ONNX_ADAPTER_METHODS,
    ),
    Rule(
        f"{_MERGED} || !(self.task in {quoted(LABEL_TASKS)})",
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
        f"self.method.lora.targetModules.all(m, m in {quoted(ONNX_ADAPTER_MODULES)})",
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
