"""The rules of `spec.distributed`, and what several ranks ask of the other parts of a job."""

from tests.support.crd.cases import RuleCase, not_yet_rule
from tests.support.crd.documents import ABSENT

RULES: tuple[RuleCase, ...] = (
    not_yet_rule(
        ".distributed.nodes",
        "trains in one pod",
        ({"spec.distributed": ABSENT}, {"spec.distributed": {}}, {"spec.distributed": {"nodes": 1}}),
        ({"spec.distributed": {"nodes": 2}},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.distributed",
        ".strategy",
        "none is one rank alone",
        (
            {"spec.distributed": {"processesPerNode": 2}},
            {"spec.distributed": {"processesPerNode": 2, "strategy": "ddp"}},
        ),
        ({"spec.distributed": {"processesPerNode": 2, "strategy": "none"}},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.distributed",
        ".offload",
        "optimizer goes with zero-1, zero-2 and zero-3",
        (
            *({"spec.distributed": {"strategy": f"zero-{n}", "offload": "optimizer"}} for n in (1, 2, 3)),
            {"spec.distributed": {"strategy": "zero-3", "offload": "all"}},
        ),
        (
            {"spec.distributed": {"offload": "optimizer"}},
            {"spec.distributed": {"strategy": "ddp", "offload": "optimizer"}},
            {"spec.distributed": {"strategy": "zero-2", "offload": "all"}},
        ),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".method.type",
        "ranks share the training of full, lora, dora",
        (
            *(
                {"spec.method": {"type": name}, "spec.distributed": {"processesPerNode": 2}}
                for name in ("full", "lora", "dora")
            ),
            {"spec.method": {"type": "ia3"}, "spec.distributed": {"strategy": "none"}},
        ),
        (
            {"spec.method": {"type": "ia3"}, "spec.distributed": {"processesPerNode": 2}},
            {"spec.method": {"type": "qlora"}, "spec.distributed": {"strategy": "ddp"}},
        ),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".distributed",
        "one rank alone trains preference",
        ({"spec.distributed": {"processesPerNode": 2}},),
        ({"spec.task": "preference", "spec.evaluation": ABSENT, "spec.distributed": {"processesPerNode": 2}},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".training.effectiveBatchSize",
        "must be a multiple of distributed.processesPerNode",
        (
            {"spec.distributed": {"processesPerNode": 4}},
            {"spec.distributed": {"processesPerNode": 3}, "spec.training.effectiveBatchSize": ABSENT},
            {
                "spec.distributed": {"processesPerNode": 16},
                "spec.training.effectiveBatchSize": 16,
                "spec.training.microBatchSize": ABSENT,
            },
        ),
        (
            {"spec.distributed": {"processesPerNode": 8}},
            {"spec.distributed": {"processesPerNode": 3}, "spec.training.microBatchSize": ABSENT},
        ),
    ),
)
