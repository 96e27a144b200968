"""Tasks of labels: what a head for labels asks of the other parts of a job."""

from __future__ import annotations

from strop.api.base import Found, Rule, quoted
from strop_trainer.plan import LABEL_METHODS, LABEL_TASKS

LABEL_RULES: tuple[Rule, ...] = (
    Rule(
        f"!(self.task in {quoted(LABEL_TASKS)}) || self.method.type in {quoted(LABEL_METHODS)}",
        f"{' and '.join(LABEL_TASKS)} take {', '.join(LABEL_METHODS)}: tokens in front of a row are for models that "
        "answer in words",
        ".method.type",
        "FieldValueForbidden",
        lambda self: self.task not in LABEL_TASKS or self.method.type in LABEL_METHODS,
        Found("self.method.type", lambda self: str(self.method.type)),
    ),
    Rule(
        f"!(self.task in {quoted(LABEL_TASKS)}) || !has(self.output) || !has(self.output.onnx) || "
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
        f"!(self.task in {quoted(LABEL_TASKS)}) || !has(self.method.lora) || "
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
