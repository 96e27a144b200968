"""What is generated of the chart is up to date; what its pages show works."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs import chart_reference
from tests.support.helm import CHART, helm, render
from tests.support.paths import REPOSITORY

HOW_TO = REPOSITORY / "docs" / "how-to"
INSTALL = (HOW_TO / "install.md").read_text()
PAGES = INSTALL + (HOW_TO / "upgrade.md").read_text()
BLOCKS = re.compile(r"```yaml\n(# values.yaml\n.*?)```", flags=re.DOTALL)
SHOWN = [yaml.safe_load(block) for block in BLOCKS.findall(INSTALL)]
NAMED = re.compile(r"`((?:[a-z]+[A-Za-z]*)(?:\.[a-z]+[A-Za-z]*)+)(?:: false)?`")


def test_generated_files_are_up_to_date() -> None:
    manifests = render({"metrics": {"prometheusRule": {"enabled": True}}})
    stale = [path.name for path, text in chart_reference.files(manifests).items() if path.read_text() != text]
    assert stale == [], "run `make docs`"


@pytest.mark.parametrize("values", SHOWN, ids=[", ".join(values) for values in SHOWN])
def test_shown_values_are_accepted(values: dict[str, Any]) -> None:
    assert helm("template", "strop", CHART, values=values).stdout


def test_shown_commands_work_with_the_values_that_are_shown_before_them(tmp_path: Path) -> None:
    before, _, rest = INSTALL.partition("\nhelm install ")
    values = tmp_path / "values.yaml"
    values.write_text("".join(BLOCKS.findall(before)), encoding="utf-8")
    assert {"image", "trainer", "pools", "registry"} <= set(yaml.safe_load(values.read_text()))
    words: dict[str, str | Path] = {"charts/strop": CHART, "values.yaml": values}
    arguments = [words.get(word, word) for word in rest.partition("\n")[0].split()]
    shown = helm("install", *arguments, "--dry-run=client").stdout
    assert "STATUS: pending" in shown
    assert "registry.example/team/strop-operator:dev" in shown
    assert "--values values.yaml" in INSTALL.partition("\nhelm upgrade ")[2].partition("\n")[0]


def test_named_values_exist() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    tops = set(values)
    for path in (name.split(".") for name in NAMED.findall(PAGES)):
        if path[0] in tops:
            part = values
            for word in path:
                assert word in part, ".".join(path)
                part = part[word]
