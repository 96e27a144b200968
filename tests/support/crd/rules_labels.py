"""What a task of labels asks of the other parts of a job."""

from strop_trainer.plan import Task
from tests.support.crd.cases import RuleCase
from tests.support.crd.documents import ABSENT, with_method, with_task


def _labels(task: Task) -> tuple[RuleCase, ...]:
    """The rules on the other parts of a job whose model puts out labels."""
    free = {**with_task(task), "spec.evaluation": ABSENT}
    lora = "spec.method.lora.initialization"
    return (
        RuleCase(
            "FineTuneJob",
            "spec",
            ".method.type",
            "text-classification and token-classification take lora, qlora, dora, ia3, full: tokens in front of a row "
            "are for models that answer in words",
            tuple(free | with_method(name) for name in ("lora", "qlora", "dora", "ia3", "full")),
            tuple(free | with_method(name) for name in ("prompt-tuning", "prefix-tuning", "p-tuning")),
        ),
        RuleCase(
            "FineTuneJob",
            "spec",
            ".output.onnx.precisions",
            "text-classification and token-classification are exported as fp32 and int8, not int4",
            (
                free | {"spec.output": {"onnx": {"precisions": ["fp32", "int8"]}}},
                free | {"spec.output": {"onnx": {"enabled": True}}},
                free | {"spec.output": {}},
            ),
            (free | {"spec.output": {"onnx": {"precisions": ["fp32", "int4"]}}},),
        ),
        RuleCase(
            "FineTuneJob",
            "spec",
            ".method.lora.initialization",
            "only default for text-classification and token-classification",
            (free | {lora: "default"},),
            (free | {lora: "pissa"},),
        ),
    )


RULES: tuple[RuleCase, ...] = (*_labels("token-classification"),)
