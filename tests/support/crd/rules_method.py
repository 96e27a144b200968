"""The rules of `spec.method`, and what a method asks of the other parts of a job."""

from tests.support.crd.cases import RuleCase
from tests.support.crd.documents import ABSENT, PROMPTS, with_method

RULES: tuple[RuleCase, ...] = (
    RuleCase(
        "FineTuneJob",
        "spec.method",
        ".lora",
        "only for type lora, qlora or dora",
        tuple(with_method(method, lora={}) for method in ("lora", "qlora", "dora")),
        tuple(with_method(method, lora={}) for method in ("full", "ia3", *PROMPTS)),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.method",
        ".prompt",
        "only for type prompt-tuning",
        tuple(with_method(method, prompt={}) for method in PROMPTS),
        tuple(with_method(method, prompt={}) for method in ("full", "lora", "qlora", "dora", "ia3")),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.method",
        ".lora.initialization",
        "pissa and olora are for type lora",
        (
            *tuple(with_method("lora", lora={"initialization": name}) for name in ("default", "pissa", "olora")),
            with_method("qlora", lora={}),
            with_method("dora"),
        ),
        (
            *tuple(with_method(method, lora={"initialization": "pissa"}) for method in ("qlora", "dora")),
            with_method("dora", lora={"initialization": "olora"}),
        ),
    ),
    RuleCase(
        "FineTuneJob",
        "spec.method",
        ".lora.initialization",
        "loftq is for type qlora",
        (with_method("qlora", lora={"initialization": "loftq"}), with_method("lora", lora={})),
        tuple(with_method(method, lora={"initialization": "loftq"}) for method in ("lora", "dora")),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".output.onnx",
        "Strop exports no ONNX of",
        (
            *(with_method(method) for method in PROMPTS),
            with_method("p-tuning") | {"spec.output": {"onnx": {"enabled": False}}},
            with_method("ia3") | {"spec.output": {"onnx": {"enabled": True}}},
        ),
        tuple(
            with_method(method) | {"spec.output": {"onnx": onnx}}
            for method in PROMPTS
            for onnx in ({"enabled": True}, {})
        ),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".output.merged",
        "there is no merged model",
        (
            with_method("ia3") | {"spec.output.merged": True},
            with_method("p-tuning") | {"spec.output": {"merged": False}},
        ),
        tuple(with_method(method) | {"spec.output": {"merged": True}} for method in PROMPTS),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".training.packing",
        "rows cannot share a forward pass",
        (
            with_method("full") | {"spec.training.packing": True},
            with_method("p-tuning") | {"spec.training.packing": False},
        ),
        tuple(with_method(method) | {"spec.training.packing": True} for method in PROMPTS),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".training.gradientCheckpointing",
        "not with prefix-tuning",
        (
            with_method("prefix-tuning") | {"spec.training.gradientCheckpointing": ABSENT},
            with_method("prefix-tuning") | {"spec.training.gradientCheckpointing": False},
            with_method("p-tuning") | {"spec.training.gradientCheckpointing": True},
        ),
        (with_method("prefix-tuning") | {"spec.training.gradientCheckpointing": True},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".output.merged",
        "full has no adapter",
        (
            with_method("full") | {"spec.output": ABSENT},
            with_method("full") | {"spec.output": {}},
            with_method("full") | {"spec.output": {"onnx": {"enabled": False}, "merged": True}},
            with_method("full") | {"spec.output": {"onnx": {}}},
            with_method("ia3") | {"spec.output": {"onnx": {"enabled": False}}},
        ),
        (with_method("full") | {"spec.output": {"onnx": {"enabled": False}}},),
    ),
)
