"""The rules of `spec.training`."""

from strop_trainer.plan import METRICS
from tests.support.crd.cases import RuleCase, not_yet_rule
from tests.support.crd.documents import ABSENT, with_task

_BATCH = ("spec.training.effectiveBatchSize", "spec.training.microBatchSize")

RULES: tuple[RuleCase, ...] = (
    not_yet_rule(
        ".training.precision",
        "trains in auto, bf16, fp32",
        ({"spec.training": ABSENT}, {"spec.training": {}}, {"spec.training.precision": "fp32"}),
        ({"spec.training.precision": "fp16"},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.training",
        ".maxSteps",
        "not together with epochs",
        ({"spec.training.epochs": ABSENT, "spec.training.maxSteps": 5},),
        ({"spec.training.maxSteps": 5},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.training",
        ".effectiveBatchSize",
        "must be a multiple of microBatchSize",
        tuple(dict(zip(_BATCH, sizes, strict=True)) for sizes in ((8, 8), (8, 2), (8, ABSENT), (ABSENT, 3))),
        tuple(dict(zip(_BATCH, sizes, strict=True)) for sizes in ((8, 3), (2, 4))),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".training.preferenceBeta",
        "only for task preference",
        (
            {"spec.task": "preference", "spec.evaluation": ABSENT, "spec.training.preferenceBeta": 0.3},
            {"spec.task": "preference", "spec.evaluation": ABSENT, "spec.training": ABSENT},
        ),
        tuple(
            {**with_task(task), "spec.evaluation": ABSENT, "spec.training.preferenceBeta": 0.1}
            for task in METRICS
            if task != "preference"
        ),
    ),
)
