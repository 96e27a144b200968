"""JSON schemas for kubeconform, from the OpenAPI document of a running API server."""

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.kubectl import Kubectl
from tests.support.paths import binaries

LOCATION = "{{ .Group }}/{{ .ResourceAPIVersion }}/{{ .ResourceKind }}.json"

Schema = dict[str, Any]

# What the document calls a string, and a number is taken for as well.
_NUMBER_OR_STRING = {"type": ["string", "number"]}
_BY_NAME: dict[str, Schema] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": _NUMBER_OR_STRING,
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": _NUMBER_OR_STRING,
}


def strict(schema: Schema) -> Schema:
    """Returns an OpenAPI 2 schema as JSON schema in which unknown fields are refused."""
    result = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        result |= _NUMBER_OR_STRING
    if "properties" in schema:
        result["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
        result["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        result["items"] = strict(schema["items"])
    return result


def write_schemas(kubectl: Kubectl, folder: Path) -> str:
    """Writes a schema for every kind that a server has, its custom resources included.

    Args:
        kubectl: The server.
        folder: Where to.

    Returns:
        What kubeconform takes for ``-schema-location``.
    """
    document = json.loads(kubectl("get", "--raw", "/openapi/v2", check=True).stdout)
    definitions = {name: _BY_NAME.get(name) or strict(part) for name, part in document["definitions"].items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "definitions.json").write_text(json.dumps({"definitions": definitions}))
    for name, part in document["definitions"].items():
        for kind in part.get("x-kubernetes-group-version-kind", ()):
            path = folder / (kind["group"] or kind["version"]) / kind["version"] / f"{kind['kind'].lower()}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"$ref": f"file://{folder / 'definitions.json'}#/definitions/{name}"}))
    return f"{folder}/{LOCATION}"


def kubeconform(manifests: Iterable[Mapping[str, Any]], location: str, *args: str) -> tuple[dict[str, int], list[str]]:
    """Validates objects.

    Args:
        manifests: The objects.
        location: What ``write_schemas`` returned.
        *args: Further arguments.

    Returns:
        How many objects were ``valid``, ``invalid``, ``errors`` and ``skipped``; and what is wrong, in words.
    """
    result = subprocess.run(
        [binaries() / "kubeconform", "-summary", "-output=json", f"-schema-location={location}", *args, "-"],
        input="\n---\n".join(json.dumps(each) for each in manifests),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    report = json.loads(result.stdout)
    problems = [f"{each['kind']}/{each['name']}: {each['msg']}" for each in report["resources"]]
    return report["summary"], problems
