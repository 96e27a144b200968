"""Each rule of the resources: what it takes and what it refuses, for the API server and for pydantic."""

from tests.support.crd import (
    rules_distributed,
    rules_evaluation,
    rules_labels,
    rules_method,
    rules_output,
    rules_pool,
    rules_sources,
    rules_training,
)
from tests.support.crd.cases import RuleCase, key_rules
from tests.support.crd.documents import ABSENT

_MEMORY = "spec.compute.resources.memory"

_JOB: tuple[RuleCase, ...] = (
    RuleCase(
        "FineTuneJob",
        "",
        ".metadata.name",
        "a job's name has at most 50",
        tuple({"metadata.name": name} for name in ("a", "a-0", "a" * 50)),
        tuple({"metadata.name": name} for name in ("0a", "a.b", "a" * 51)),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.compute.resources",
        ".memory",
        "a trainer needs 512Mi before",
        tuple({_MEMORY: size} for size in (ABSENT, "512Mi", "0.5Gi", "537M", "8Gi", "1" * 30 + "Gi")),
        tuple({_MEMORY: size} for size in ("1k", "64Mi", "511Mi", "536M", "0.4Gi")),
    ),
    key_rules("FineTuneJob", "status.stageSeconds", 1, ("train", "a" * 32), ("", "a" * 33, "Train")),
    key_rules("FineTuneJob", "status.metrics", "1", ("a_0", "a" * 64), ("", "a" * 65, "Exact Match")),
)

RULES: tuple[RuleCase, ...] = (
    *_JOB,
    *rules_sources.RULES,
    *rules_method.RULES,
    *rules_labels.RULES,
    *rules_output.RULES,
    *rules_distributed.RULES,
    *rules_training.RULES,
    *rules_evaluation.RULES,
    *rules_pool.RULES,
)
