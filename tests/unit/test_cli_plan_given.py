"""`strop plan` shows what a job gives beside what Strop chose."""

import re
from pathlib import Path

import pytest
import yaml

from tests.support.cli import runner
from tests.support.paths import REPOSITORY
from tests.support.planning import manifest_of

EVERY_OPTION = REPOSITORY / "examples" / "every-option.yaml"
POOLS = REPOSITORY / "examples" / "pools.yaml"


def rows(text: str) -> dict[str, tuple[str, str]]:
    """Return field → value and reason, of the lines of a plan's table that have all three."""
    found = re.findall(r"^ ([a-z]\S*) {2,}(\S.*?) {2,}(\S.*?) *$", text, flags=re.M)
    return {field: (value, reason) for field, value, reason in found}


def test_each_given_value_is_shown_as_given(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    answer = runner(monkeypatch, capfd)("plan", str(EVERY_OPTION), "--pools", str(POOLS))
    shown = rows(answer.out)
    given = yaml.safe_load(EVERY_OPTION.read_text(encoding="utf-8"))["spec"]["training"]
    assert {field for field in shown if field.startswith("training.")} == {f"training.{name}" for name in given}
    assert shown["training.learningRate"] == ("0.001", "given")
    assert shown["training.deterministic"] == ("true", "given")
    assert shown["dataset.train[0].source"] == ("pvc://team-data/support/train.jsonl", "given")
    assert shown["evaluation.minimum.exact_match"] == ("0.5", "given")
    assert shown["output.onnx.precisions"] == ("fp32, int4", "given")
    assert shown["compute.resources.memory"] == ("6Gi", "given")


def test_a_field_is_either_given_or_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(manifest_of(compute={"pool": "far-away"})), encoding="utf-8")
    text = runner(monkeypatch, capfd)("plan", str(file)).out
    fields = re.findall(r"^ ([a-z]\S*)  ", text, flags=re.M)
    assert len(fields) == len(set(fields))
    assert rows(text)["compute.pool"][0] == "this-machine", "without a pool file, the job's pool does not count"
    assert rows(text)["task"][1] == "given"


def test_a_long_text_is_shown_by_its_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    template = "{% for m in messages %}\n{{ m.content }}\n{% endfor %}"
    file.write_text(yaml.safe_dump(manifest_of(model__chatTemplate=template)), encoding="utf-8")
    assert rows(runner(monkeypatch, capfd)("plan", str(file)).out)["model.chatTemplate"] == (
        "{% for m in messages %} …",
        "given",
    )
