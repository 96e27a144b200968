import pytest

from strop_trainer.addresses import published, shown
from strop_trainer.plan import DataFile
from tests.support.records import make_plan


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("https://host/a.jsonl?X-Amz-Signature=secret", "https://host/a.jsonl"),
        ("https://user:secret@host:8443/a.jsonl#secret", "https://host:8443/a.jsonl"),
        ("https://host?next=https://secret@other/a", "https://host"),
        ("https://host/a@b.jsonl", "https://host/a@b.jsonl"),
        ("http://u:p@host/a?b#c", "http://host/a"),
        ("pvc://claim/a?b#c@d.jsonl", "pvc://claim/a?b#c@d.jsonl"),
        ("hf://datasets/owner/name/a?b.jsonl", "hf://datasets/owner/name/a?b.jsonl"),
        ("configmap://rows/train.jsonl", "configmap://rows/train.jsonl"),
        ("owner/name?", "owner/name?"),
    ],
)
def test_an_address_is_shown_without_its_secrets(source: str, expected: str) -> None:
    assert shown(source) == expected


def test_the_plan_that_runs_keeps_its_addresses() -> None:
    plan = make_plan(source="https://host/m.tar.gz?hidden")
    train = [DataFile(source="https://host/a.jsonl?hidden", sha256="a" * 64)]
    dataset = plan.training.dataset.model_copy(update={"train": train, "validation": train})
    plan = plan.model_copy(update={"training": plan.training.model_copy(update={"dataset": dataset})})
    told = published(plan)
    assert "hidden" not in told.model_dump_json()
    assert told.digest == plan.digest
    assert plan.model_dump_json().count("hidden") == 3
