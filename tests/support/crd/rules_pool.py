"""The rules of a ComputePool."""

from tests.support.crd.cases import RuleCase, key_rules

RULES: tuple[RuleCase, ...] = (
    RuleCase(
        "ComputePool",
        "",
        ".metadata.name",
        "a pool's name is a label",
        tuple({"metadata.name": name} for name in ("a", "0", "autos", "a" * 63)),
        tuple({"metadata.name": name} for name in ("auto", "a.b", "a" * 64)),
    ),
    key_rules(
        "ComputePool",
        "spec.nodeSelector",
        "a",
        ("a", "strop.dev/pool", "a" * 253 + "/" + "b" * 63),
        ("", "a" * 254 + "/" + "b" * 63, "a b", "b" * 64),
    ),
    RuleCase(
        "ComputePool",
        "spec.tolerations[]",
        ".value",
        "not together with operator Exists",
        (
            {"spec.tolerations": [{"key": "a", "operator": "Exists"}]},
            {"spec.tolerations": [{"key": "a", "value": "b"}]},
        ),
        ({"spec.tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},),
    ),
    RuleCase(
        "ComputePool",
        "spec.tolerations[]",
        ".key",
        "may be left out with operator Exists only",
        ({"spec.tolerations": [{"operator": "Exists"}]}, {"spec.tolerations": [{"key": "a"}]}),
        ({"spec.tolerations": [{"value": "b"}]}, {"spec.tolerations": [{"operator": "Equal"}]}),
    ),
)
