"""The dashboard and the alerts ask for what the operator counts."""

import json
import re
from typing import Any

import pytest

from strop.progress.metrics import PHASES, Metrics
from tests.support.helm import NAMESPACE, only, render

VALUES = {"metrics": {"dashboard": {"enabled": True}, "prometheusRule": {"enabled": True}}}
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",), "gauge": ("",)}


def counted() -> dict[str, str]:
    """Returns every time series that the operator shows, with the text that explains it."""
    metrics = Metrics()
    metrics.observe_queue(lambda: 0, {})
    return {
        family.name + suffix: family.documentation
        for family in metrics.registry.collect()
        for suffix in SUFFIXES[family.type]
    }


def dashboard() -> dict[str, Any]:
    config_map = only(render(VALUES), "ConfigMap")
    found: dict[str, Any] = json.loads(config_map["data"]["strop.json"])
    return found


def alerts() -> list[dict[str, Any]]:
    (group,) = only(render(VALUES), "PrometheusRule")["spec"]["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def expressions() -> list[str]:
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return shown + [rule["expr"] for rule in alerts()]


@pytest.mark.parametrize("expression", expressions())
def test_series_and_label_values_exist(expression: str) -> None:
    series = counted()
    names = re.findall(r"\b(?:strop|process)_\w+", expression)
    assert names
    for name in names:
        assert name in series, expression
    explained = " ".join(series[name] for name in names) + " ".join(PHASES)
    for values in re.findall(r'\b(?:outcome|result|phase)[=!]~?"([^"]+)"', expression):
        for value in values.split("|"):
            assert value in explained, expression
    for label in re.findall(r"\bby \((\w+)\)", expression):
        assert label in {*re.findall(r"\w+", explained), "le", "pod"}, expression


def test_every_metric_of_the_operator_is_shown() -> None:
    shown = " ".join(expressions())
    families = {re.sub(r"_(bucket|count|sum|total)$", "", name) for name in counted() if name.startswith("strop_")}
    assert [name for name in sorted(families) if name not in shown] == []


def test_alerts_ask_for_this_installation_alone() -> None:
    manifests = render(VALUES, release="other")
    service = only(manifests, "Service", "other-strop-metrics")["metadata"]["name"]
    (group,) = only(manifests, "PrometheusRule")["spec"]["groups"]
    for rule in group["rules"]:
        selectors = re.findall(r"\bstrop_\w+\{([^}]*)\}", rule["expr"])
        assert len(selectors) == len(re.findall(r"\bstrop_\w+", rule["expr"]))
        for selector in selectors:
            assert selector.startswith(f'namespace="{NAMESPACE}", job="{service}"')


def test_alerts_say_what_happened_and_what_it_means() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}


@pytest.mark.parametrize(("seconds", "window"), [(30, "600s"), (300, "1200s"), (600.5, "2404s")])
def test_sweep_alert_allows_for_the_sweep_s_pause(seconds: float, window: str) -> None:
    (group,) = only(render(VALUES | {"controller": {"sweepSeconds": seconds}}), "PrometheusRule")["spec"]["groups"]
    (rule,) = [each for each in group["rules"] if each["alert"] == "StropDoesNotSweep"]
    assert f"[{window}]" in rule["expr"]


def test_panels_do_not_overlap_and_say_what_they_show() -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        assert panel["description"].endswith(".")
        taken |= cells
