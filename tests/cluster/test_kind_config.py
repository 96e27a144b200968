"""kind itself reads kind-config.yaml: a docker that creates nothing takes it as far as kubeadm's configuration."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import REPOSITORY, binaries

pytestmark = pytest.mark.cluster

CONFIG = REPOSITORY / "kind-config.yaml"
FAKE_DOCKER = """#!/bin/bash
nodes=$(dirname "$0")/nodes
case "$*" in
-v) echo "Docker version 28.0.0" ;;
"info "*) echo '{"CgroupDriver": "systemd", "CgroupVersion": "2", "MemoryLimit": true, "PidsLimit": true}' ;;
"network ls "*) echo kind ;;
"network inspect "*) echo '[{"Name": "kind", "Id": "kind", "Created": "2026-01-01T00:00:00Z"}]' ;;
"ps "*) [ ! -e "$nodes" ] || cat "$nodes" ;;
"run "*)
    while [ $# -gt 0 ]; do
        if [ "$1" = --name ]; then echo "$2" >>"$nodes"; fi
        shift
    done ;;
"inspect --type=image"*) ;;
inspect*role*control-plane) echo control-plane ;;
inspect*role*) echo worker ;;
inspect*) echo 172.18.0.2, ;;
"logs "*) echo "Reached target Multi-User System." ;;
"exec "*" cat /kind/version") echo v1.37.0 ;;
"exec "*" kubeadm "*) echo "this docker starts nothing" >&2; exit 1 ;;
"exec "*) cat >/dev/null ;;
esac
"""


def create_cluster(config: Path, folder: Path) -> str:
    """Returns what ``kind create cluster`` says on its way to kubeadm, where the fake docker ends it."""
    docker = folder / "docker"
    docker.write_text(FAKE_DOCKER)
    docker.chmod(0o755)
    result = subprocess.run(
        [binaries() / "kind", "create", "cluster", "--config", config, "--retain", "--verbosity=2"],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "KUBECONFIG": str(folder / "kubeconfig")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode != 0
    return result.stderr


def join_configurations(log: str) -> dict[str, dict[str, Any]]:
    """Returns the part of kubeadm's configuration that makes a node join, by the name of the node."""
    found = re.findall(r"kubeadm config for node (\S+):\n(.*?)(?=\n(?:DEBUG|ERROR| ✓| ✗))", log, flags=re.DOTALL)
    return {
        node: next(each for each in yaml.safe_load_all(text) if each["kind"] == "JoinConfiguration")
        for node, text in found
    }


def test_kind_makes_a_cpu_pool_and_a_tainted_gpu_pool(tmp_path: Path) -> None:
    log = create_cluster(CONFIG, tmp_path)
    assert "this docker starts nothing" in log
    registrations = {node: each["nodeRegistration"] for node, each in join_configurations(log).items()}
    assert set(registrations) == {"strop-control-plane", "strop-worker", "strop-worker2"}

    def labels(node: str) -> str:
        arguments = {each["name"]: each["value"] for each in registrations[node]["kubeletExtraArgs"]}
        return str(arguments.get("node-labels"))

    assert labels("strop-worker") == "strop.dev/pool=cpu"
    assert not registrations["strop-worker"].get("taints")
    assert labels("strop-worker2") == "strop.dev/pool=gpu"
    assert registrations["strop-worker2"]["taints"] == [
        {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    ]


def test_kind_refuses_a_field_it_does_not_know(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(CONFIG.read_text().replace("labels:", "label:", 1))
    assert "field label not found" in create_cluster(broken, tmp_path)


def test_no_node_image_is_pinned() -> None:
    nodes = yaml.safe_load(CONFIG.read_text())["nodes"]
    assert all("image" not in node for node in nodes)
