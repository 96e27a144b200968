"""The rules of `spec.model` and `spec.dataset`."""

from typing import Any

from tests.support.crd.cases import RuleCase, key_rules
from tests.support.crd.documents import ABSENT, HASH, with_task


def _source_rules(path: str, https: str, hub: str, other: str) -> tuple[RuleCase, ...]:
    """The rules that a model and a file of rows share."""

    def at(**fields: Any) -> dict[str, Any]:
        return {f"{path}.{name}": fields.get(name, ABSENT) for name in ("source", "revision", "sha256")}

    # A model's hf:// source has no path.
    paths = ("//etc/a", "/a//b", "/a/") if hub.startswith("hf://datasets/") else ()
    empty = tuple(at(source=f"hf://datasets/owner/name{path}") for path in paths)
    return (
        RuleCase(
            "FineTuneJob",
            path,
            ".sha256",
            "an https:// source needs its hash",
            (at(source=https, sha256=HASH), at(source=hub)),
            (at(source=https),),
        ),
        RuleCase(
            "FineTuneJob",
            path,
            ".sha256",
            "only an https:// source is checked",
            (at(source=https, sha256=HASH),),
            (at(source=other, sha256=HASH), at(source=hub, sha256=HASH)),
        ),
        RuleCase(
            "FineTuneJob",
            path,
            ".source",
            "must not climb out of its folder",
            (at(source=f"{other}/a..b"), at(source=f"{other}/..."), at(source=f"{other}/.b")),
            (at(source=f"{other}/../b"), at(source=f"{other}/.."), at(source="pvc://a/../b")),
        ),
        RuleCase(
            "FineTuneJob",
            path,
            ".source",
            "must have no empty part in its path",
            (at(source=f"{other}/"), at(source=f"{https}//a//b", sha256=HASH)),
            (at(source=f"{other}//b"), at(source="pvc://claim//etc/b"), at(source=f"{other}//"), *empty),
        ),
        RuleCase(
            "FineTuneJob",
            path,
            ".revision",
            "only an hf:// source has revisions",
            (at(source=hub, revision="v1"), at(source=other)),
            (at(source=other, revision="v1"), at(source=https, revision="v1", sha256=HASH)),
        ),
        RuleCase(
            "FineTuneJob",
            path,
            ".revision",
            "must not contain '..'",
            (at(source=hub, revision="v1.0"),),
            (at(source=hub, revision="a/../../b"), at(source=hub, revision="a..b")),
        ),
    )


RULES: tuple[RuleCase, ...] = (
    RuleCase(
        "FineTuneJob",
        "spec.model",
        ".chatTemplate",
        "must be the text of a Jinja template",
        ({"spec.model.chatTemplate": "{% for message in messages %}{{ message }}{% endfor %}"},),
        ({"spec.model.chatTemplate": "chat_template.jinja"},),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".model.chatTemplate",
        "only for chat, instruction",
        (
            {"spec.model.chatTemplate": "{{ messages }}"},
            {"spec.task": "instruction", "spec.model.chatTemplate": "{{ messages }}"},
        ),
        tuple(
            {**with_task(task), "spec.evaluation": ABSENT, "spec.model.chatTemplate": "{{ messages }}"}
            for task in ("text-generation", "text-classification")
        ),
    ),
    RuleCase(
        "FineTuneJob",
        "spec",
        ".dataset.format",
        "text is for task text-generation",
        (
            {"spec.dataset.format": "csv"},
            {"spec.task": "text-generation", "spec.dataset.format": "text", "spec.evaluation": ABSENT},
        ),
        ({"spec.dataset.format": "text"},),
    ),
    *_source_rules("spec.model", "https://host.example/m.tar.gz", "hf://owner/name", "pvc://claim/folder"),
    *_source_rules(
        "spec.dataset.train[]", "https://host.example/rows.jsonl", "hf://datasets/owner/name/file", "pvc://claim/folder"
    ),
    *_source_rules(
        "spec.dataset.validation[]",
        "https://host.example/rows.jsonl",
        "hf://datasets/owner/name/file",
        "pvc://claim/folder",
    ),
    RuleCase(
        "FineTuneJob",
        "spec.dataset",
        ".validationSplit",
        "not together with validation",
        ({"spec.dataset.validation": ABSENT, "spec.dataset.validationSplit": 0.1},),
        ({"spec.dataset.validationSplit": 0.1},),
    ),
    key_rules("FineTuneJob", "spec.dataset.columns", "a", ("question", "a" * 128), ("", "a" * 129, "a\tb")),
)
