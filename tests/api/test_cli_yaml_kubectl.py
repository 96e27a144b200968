"""The table of YAML scalars is what kubectl really makes of them."""

import json
import subprocess

import pytest

from tests.support.paths import binaries
from tests.support.yaml_cases import differences, manifest

pytestmark = pytest.mark.api


def kubectl_reads(text: str) -> subprocess.CompletedProcess[str]:
    command = [str(binaries() / "kubectl"), "annotate", "--local", "-f", "-", "a=b", "-o", "json"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)


def test_the_table_is_kubectls() -> None:
    answer = kubectl_reads(manifest())
    assert answer.returncode == 0, answer.stderr
    assert differences(json.loads(answer.stdout)["spec"]) == {}


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_kubectl_refuses_what_json_cannot_hold(value: str) -> None:
    answer = kubectl_reads(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n  a: {value}\n")
    assert answer.returncode != 0
    assert "unsupported value" in answer.stderr
