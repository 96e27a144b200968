"""The rules of `spec.output`."""

from typing import Any

from strop_trainer.plan import LABEL_TASKS
from tests.support.crd.cases import RuleCase
from tests.support.crd.documents import ABSENT, with_method


def _form(form: str, *precisions: str) -> dict[str, Any]:
    """An ONNX export of some form."""
    return {"spec.output": {"onnx": {"form": form, "precisions": list(precisions or ("fp32",))}}}


RULES: tuple[RuleCase, ...] = (
    RuleCase(
        "FineTuneJob",
        "spec",
        ".output.onnx.form",
        "merged, but for lora and qlora",
        (
            with_method("qlora") | _form("both"),
            with_method("lora") | _form("adapter"),
            with_method("dora") | _form("merged"),
        ),
        (
            with_method("dora") | _form("adapter"),
            with_method("full") | _form("both"),
            with_method("ia3") | _form("adapter"),
        ),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".output.onnx.form",
        "merged for text-classification",
        (with_method("lora") | _form("adapter"),),
        tuple(
            with_method("lora") | {"spec.task": task, "spec.evaluation": ABSENT} | _form("adapter", "int8")
            for task in LABEL_TASKS
        ),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".output.onnx.form",
        "merged with method.lora.modulesToSave",
        (
            with_method("lora", lora={"modulesToSave": []}) | _form("adapter"),
            with_method("lora", lora={"modulesToSave": ["norm"]}) | _form("merged"),
        ),
        (with_method("lora", lora={"modulesToSave": ["norm"]}) | _form("adapter"),),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".output.onnx.form",
        "merged, or of method.lora.targetModules only",
        (
            with_method("lora", lora={"targetModules": ["q_proj", "gate_up_proj"]}) | _form("adapter"),
            with_method("lora", lora={"targetModules": ["lm_head"]}) | _form("merged"),
        ),
        (with_method("lora", lora={"targetModules": ["q_proj", "lm_head"]}) | _form("both"),),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.output",
        ".aliases",
        "each alias once",
        ({"spec.output.aliases": ["a", "b"]}, {"spec.output.aliases": ABSENT}),
        ({"spec.output.aliases": ["a", "b", "a"]},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.output.onnx",
        ".precisions",
        "each precision once",
        ({"spec.output.onnx.precisions": ["int4", "fp32"]}, {"spec.output.onnx.precisions": ABSENT}),
        ({"spec.output.onnx.precisions": ["fp32", "fp32"]},),
    ),
)
