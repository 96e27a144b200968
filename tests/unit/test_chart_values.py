"""The chart's values: all are described, and what is wrong is refused in words."""

import json
from typing import Any

import pytest
import yaml

from strop.controller.settings import LOG_FORMATS, LOG_LEVELS, PULL_POLICIES
from tests.support.helm import CHART, helm

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
POOL = {"cpuPerNode": "8", "memoryPerNode": "32Gi"}

ACCEPTED: list[dict[str, Any]] = [
    {},
    {"global": {"anything": 1}},
    {"replicas": 2},
    {"image": {"repository": "registry.example:5000/strop/operator", "tag": "v1.2.3"}},
    {"image": {"digest": "sha256:" + "0" * 64}},
    {"trainer": {"imagePullSecrets": ["pull-me"], "networkPolicy": False}},
    {"watchNamespaces": ["team-a", "team-b"]},
    {"logging": {"level": "DEBUG", "format": "text"}},
    {"resources": {"limits": {"memory": "1Gi", "cpu": 1}}},
    {"controller": {"sweepSeconds": 60.5}},
    {"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]},
    {"extraEnv": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]},
    {"tolerations": [{"operator": "Exists"}]},
    {"networkPolicy": {"apiServerCidrs": ["10.0.0.1/32", "fd00::1/128"], "dnsPorts": [53, 5353]}},
    {"registry": {"createClaims": [{"namespace": "a", "size": "1Ti", "accessModes": ["ReadWriteOnce"]}]}},
    {"pools": [{"name": "cpu", "spec": POOL}]},
    {"pools": [{"name": "gpu", "spec": {**POOL, "accelerator": {"resourceName": "nvidia.com/gpu", "memory": "24Gi"}}}]},
]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"replica": 2}, "additional properties 'replica' not allowed"),
    ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
    ({"replicas": 3}, "at '/replicas': maximum: got 3, want 2"),
    ({"replicas": "2"}, "at '/replicas': got string, want integer"),
    ({"image": {"repository": ""}}, "at '/image/repository'"),
    ({"image": {"repository": "strop:1.0"}}, "at '/image/repository': 'strop:1.0' does not match pattern"),
    ({"image": {"tag": 1.0}}, "at '/image/tag': got number, want string"),
    ({"image": {"digest": "latest"}}, "at '/image/digest'"),
    ({"image": {"pullPolicy": "Sometimes"}}, "value must be one of 'Always', 'IfNotPresent', 'Never'"),
    (
        {"trainer": {"imagePullSecrets": [{"name": "pull-me"}]}},
        "at '/trainer/imagePullSecrets/0': got object, want str",
    ),
    ({"imagePullSecrets": ["pull-me"]}, "at '/imagePullSecrets/0': got string, want object"),
    ({"watchNamespaces": "team-a"}, "at '/watchNamespaces': got string, want array"),
    ({"watchNamespaces": ["team-*"]}, "at '/watchNamespaces/0'"),
    ({"watchNamespaces": ["a", "a"]}, "at '/watchNamespaces': items at 0 and 1 are equal"),
    ({"logging": {"level": "info"}}, "value must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR'"),
    ({"logging": {"format": "logfmt"}}, "value must be one of 'text', 'json'"),
    ({"controller": {"workers": 0}}, "at '/controller/workers': minimum: got 0, want 1"),
    ({"controller": {"leaseSeconds": 1}}, "at '/controller/leaseSeconds': minimum: got 1, want 3"),
    ({"resources": {"limits": {"memory": "1 GB"}}}, "at '/resources/limits/memory'"),
    ({"resources": {"limit": {}}}, "additional properties 'limit' not allowed"),
    ({"fullnameOverride": "Strop"}, "at '/fullnameOverride'"),
    ({"serviceAccount": {"create": "yes"}}, "at '/serviceAccount/create': got string, want boolean"),
    ({"podLabels": {"release": 1}}, "at '/podLabels/release': got number, want string"),
    ({"extraEnv": [{"value": "x"}]}, "at '/extraEnv/0': missing property 'name'"),
    ({"networkPolicy": {"apiServerCidrs": ["10.0.0.1"]}}, "at '/networkPolicy/apiServerCidrs/0'"),
    ({"networkPolicy": {"apiServerPorts": []}}, "at '/networkPolicy/apiServerPorts': minItems: got 0, want 1"),
    ({"networkPolicy": {"dnsPorts": [70000]}}, "at '/networkPolicy/dnsPorts/0': maximum"),
    (
        {"metrics": {"serviceMonitor": {"interval": 30}}},
        "at '/metrics/serviceMonitor/interval': got number, want string",
    ),
    ({"registry": {"createClaims": [{"namespace": "a"}]}}, "at '/registry/createClaims/0': missing property 'size'"),
    ({"registry": {"createClaims": [{"namespace": "a", "size": "big"}]}}, "at '/registry/createClaims/0/size'"),
    ({"registry": {"createClaims": [{"namespace": "a", "size": "1Gi", "name": "b"}]}}, "additional properties 'name'"),
    ({"pools": {"cpu": POOL}}, "at '/pools': got object, want array"),
    ({"pools": [{"name": "cpu"}]}, "at '/pools/0': missing property 'spec'"),
    ({"pools": [{"name": "cpu", "spec": {**POOL, "cpuPerNode": True}}]}, "got boolean, want integer"),
    ({"pools": [{"name": "cpu", "spec": {"cpuPerNode": "8"}}]}, "missing property 'memoryPerNode'"),
    ({"pools": [{"name": "cpu", "spec": {**POOL, "nodes": 1}}]}, "additional properties 'nodes' not allowed"),
]


@pytest.mark.parametrize("values", ACCEPTED, ids=json.dumps)
def test_accepts(values: dict[str, Any]) -> None:
    assert helm("template", "strop", CHART, values=values).stdout


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[json.dumps(values) for values, _ in REFUSED])
def test_refuses_with_a_clear_message(values: dict[str, Any], message: str) -> None:
    refused = helm("template", "strop", CHART, values=values, check=False)
    assert refused.returncode != 0
    assert message in refused.stderr


def differences(schema: dict[str, Any], values: dict[str, Any], path: str = "") -> list[str]:
    """Names that only one of schema and values has; freeform objects are left alone."""
    described = set(schema["properties"]) - {"global"}
    found = [f"{path}.{name}" for name in described ^ set(values)]
    for name in described & set(values):
        inner = schema["properties"][name]
        if "properties" in inner:
            found += differences(inner, values[name], f"{path}.{name}")
    return found


def undescribed(schema: Any, path: str = "") -> list[str]:
    """Parts of a schema that have a type and no description, or objects of known shape that take anything."""
    if not isinstance(schema, dict):
        return []
    found = []
    for name, inner in schema.get("properties", {}).items():
        if not inner.get("description", "").endswith("."):
            found.append(f"{path}.{name}: no description")
        found += undescribed(inner, f"{path}.{name}")
    if "properties" in schema and schema.get("additionalProperties") is not False:
        found.append(f"{path}: takes unknown properties")
    return found + undescribed(schema.get("items"), f"{path}[]")


def test_schema_and_values_have_the_same_names() -> None:
    assert differences(SCHEMA, VALUES) == []


def test_every_value_is_described() -> None:
    assert undescribed(SCHEMA) == []


def test_schema_offers_what_the_operator_accepts() -> None:
    properties = SCHEMA["properties"]
    logging = properties["logging"]["properties"]
    assert logging["level"]["enum"] == list(LOG_LEVELS)
    assert logging["format"]["enum"] == list(LOG_FORMATS)
    assert properties["trainer"]["properties"]["image"]["properties"]["pullPolicy"]["enum"] == list(PULL_POLICIES)
