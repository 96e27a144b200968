"""What is generated of the chart is up to date; what its pages show works."""

import re
from typing import Any

import pytest
import yaml

from docs import chart_reference
from tests.support.helm import CHART, helm, render
from tests.support.paths import REPOSITORY

HOW_TO = REPOSITORY / "docs" / "how-to"
INSTALL = (HOW_TO / "install.md").read_text()
PAGES = INSTALL + (HOW_TO / "upgrade.md").read_text()
SHOWN = [
    yaml.safe_load(block)
    for block in re.findall(r"```yaml\n(.*?)```", INSTALL, flags=re.DOTALL)
    if block.startswith("# values.yaml\n")
]
NAMED = re.compile(r"`((?:[a-z]+[A-Za-z]*)(?:\.[a-z]+[A-Za-z]*)+)(?:: false)?`")


def test_generated_files_are_up_to_date() -> None:
    manifests = render({"metrics": {"prometheusRule": {"enabled": True}}})
    stale = [path.name for path, text in chart_reference.files(manifests).items() if path.read_text() != text]
    assert stale == [], "run `make docs`"


@pytest.mark.parametrize("values", SHOWN, ids=[", ".join(values) for values in SHOWN])
def test_shown_values_are_accepted(values: dict[str, Any]) -> None:
    assert helm("template", "strop", CHART, values=values).stdout


def test_shown_install_command_is_understood() -> None:
    (command,) = re.findall(r"^helm (install .*)$", PAGES, flags=re.MULTILINE)
    arguments = [CHART if word == "charts/strop" else word for word in command.split()]
    assert "STATUS: pending" in helm(*arguments, "--dry-run=client").stdout


def test_named_values_exist() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    tops = set(values)
    for path in (name.split(".") for name in NAMED.findall(PAGES)):
        if path[0] in tops:
            part = values
            for word in path:
                assert word in part, ".".join(path)
                part = part[word]
