"""The cluster that the other tests of this folder stand on is what a real one is."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import BASE_IMAGE, CPU_NODE, GPU_NODE, Cluster, image_archive
from tests.support.paths import CLUSTER_SCRIPTS
from tests.support.pods import restricted_pod, run_to_end

pytestmark = pytest.mark.cluster

TOLERATE_GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def node(cluster: Cluster, name: str) -> dict[str, Any]:
    return cluster.kubectl.get("node", name)


def is_ready(node: dict[str, Any]) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])


def test_cpu_node_is_an_open_pool(cluster: Cluster) -> None:
    found = node(cluster, CPU_NODE)
    assert is_ready(found)
    assert found["metadata"]["labels"]["strop.dev/pool"] == "cpu"
    assert "taints" not in found["spec"]
    assert "nvidia.com/gpu" not in found["status"]["capacity"]


def test_gpu_node_is_closed_and_its_gpus_are_called_fake(cluster: Cluster) -> None:
    found = node(cluster, GPU_NODE)
    assert is_ready(found)
    assert found["metadata"]["labels"]["strop.dev/pool"] == "gpu"
    assert found["metadata"]["labels"]["strop.dev/fake-accelerator"] == "true"
    assert found["spec"]["taints"] == [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    assert found["status"]["allocatable"]["nvidia.com/gpu"] == "2"


def test_up_is_safe_to_run_again(cluster: Cluster) -> None:
    before = cluster.enter(CPU_NODE, "pgrep", "-x", "kubelet").stdout
    cluster.up()
    assert cluster.enter(CPU_NODE, "pgrep", "-x", "kubelet").stdout == before


def test_pods_find_services_by_name(cluster: Cluster, namespace: str) -> None:
    script = "import socket; print(socket.gethostbyname('kube-dns.kube-system.svc.cluster.local'))"
    pod = restricted_pod("lookup", ["python3", "-c", script])
    assert run_to_end(cluster.kubectl, namespace, pod).strip() == "10.96.0.10"


def test_pods_of_two_nodes_reach_each_other(cluster: Cluster, namespace: str) -> None:
    headless = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "peers"},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"role": "server"}},
    }
    serve = "import socket; s = socket.create_server(('', 9000)); c, _ = s.accept(); c.sendall(b'hello'); c.close()"
    server = restricted_pod(
        "server",
        ["python3", "-c", serve],
        nodeName=GPU_NODE,
        tolerations=[TOLERATE_GPU_TAINT],
        hostname="server",
        subdomain="peers",
    )
    server["metadata"]["labels"] = {"role": "server"}
    ask = """
import socket, time
end = time.monotonic() + 60
while True:
    try:
        print(socket.create_connection(("server.peers", 9000), 5).recv(10).decode())
        break
    except OSError:
        if time.monotonic() > end:
            raise
        time.sleep(0.5)
"""
    cluster.kubectl.apply(headless, server, arguments=("-n", namespace))
    client = restricted_pod("client", ["python3", "-c", ask], nodeName=CPU_NODE)
    assert run_to_end(cluster.kubectl, namespace, client).strip() == "hello"


@pytest.mark.parametrize(
    ("storage_class", "access_mode"), [("", "ReadWriteOnce"), ("shared", "ReadWriteMany")], ids=["default", "shared"]
)
def test_claims_are_bound_and_keep_what_is_written(
    cluster: Cluster, namespace: str, storage_class: str, access_mode: str
) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": [access_mode],
            "resources": {"requests": {"storage": "1Gi"}},
            **({"storageClassName": storage_class} if storage_class else {}),
        },
    }
    cluster.kubectl.apply(claim, arguments=("-n", namespace))
    volume: dict[str, Any] = {
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    run_to_end(cluster.kubectl, namespace, restricted_pod("writer", ["sh", "-c", "echo kept >/data/file"], **volume))
    # Only the shared class can be read from the other node.
    elsewhere: dict[str, Any] = {"nodeName": GPU_NODE, "tolerations": [TOLERATE_GPU_TAINT]} if storage_class else {}
    reader = restricted_pod("reader", ["cat", "/data/file"], **volume, **elsewhere)
    assert run_to_end(cluster.kubectl, namespace, reader).strip() == "kept"


def test_restricted_namespace_refuses_a_loose_pod(cluster: Cluster, namespace: str) -> None:
    refused = cluster.kubectl("run", "loose", "-n", namespace, f"--image={BASE_IMAGE}")
    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted' in refused.stderr


def test_a_pod_that_asks_for_a_gpu_runs_on_the_gpu_node(cluster: Cluster, namespace: str) -> None:
    pod = restricted_pod(
        "gpu", ["echo", "ran"], resources={"limits": {"nvidia.com/gpu": "2"}}, tolerations=[TOLERATE_GPU_TAINT]
    )
    assert run_to_end(cluster.kubectl, namespace, pod).strip() == "ran"
    assert cluster.kubectl.get("pod", "gpu", "-n", namespace)["spec"]["nodeName"] == GPU_NODE


def test_a_pod_that_asks_for_a_gpu_without_tolerating_the_taint_waits(cluster: Cluster, namespace: str) -> None:
    pod = restricted_pod("closed", ["true"], resources={"limits": {"nvidia.com/gpu": "1"}})
    cluster.kubectl.apply(pod, arguments=("-n", namespace))
    cluster.kubectl.wait("condition=PodScheduled=false", "pod/closed", "-n", namespace, timeout=30)
    conditions = cluster.kubectl.get("pod", "closed", "-n", namespace)["status"]["conditions"]
    message = next(each["message"] for each in conditions if each["type"] == "PodScheduled")
    assert "1 Insufficient nvidia.com/gpu" in message
    assert "1 node(s) had untolerated taint(s)" in message


def test_a_process_over_its_memory_limit_is_killed(cluster: Cluster, namespace: str) -> None:
    pod = restricted_pod("greedy", ["python3", "-c", "x = bytearray(2**28)"], resources={"limits": {"memory": "64Mi"}})
    cluster.kubectl.apply(pod, arguments=("-n", namespace))
    cluster.kubectl.wait("jsonpath={.status.phase}=Failed", "pod/greedy", "-n", namespace, timeout=60)
    status = cluster.kubectl.get("pod", "greedy", "-n", namespace)["status"]["containerStatuses"][0]
    assert status["state"]["terminated"]["reason"] == "OOMKilled"


def test_exec_reaches_a_pod(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl.apply(restricted_pod("shell", ["sleep", "300"]), arguments=("-n", namespace))
    cluster.kubectl.wait("condition=Ready", "pod/shell", "-n", namespace, timeout=60)
    answer = cluster.kubectl("exec", "-n", namespace, "shell", "--", "id", "-u", check=True)
    assert answer.stdout.strip() == "65532"


def test_an_image_that_is_there_is_not_loaded_again(cluster: Cluster) -> None:
    archive = image_archive("strop-base")
    cluster.load(archive)
    again = subprocess.run([CLUSTER_SCRIPTS / "load-image", archive], capture_output=True, text=True, check=True)
    assert again.stdout == ""


def test_a_file_that_is_no_image_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "no-image.tar").write_bytes(b"x" * 1024)
    result = subprocess.run(
        [CLUSTER_SCRIPTS / "load-image", tmp_path / "no-image.tar"], capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "no-image.tar is no image archive" in result.stderr


@pytest.mark.parametrize("command", [("load-image", "x.tar"), ("enter", "cpu-0", "true")], ids=lambda each: each[0])
def test_a_cluster_that_is_down_is_reported(tmp_path: Path, command: tuple[str, ...]) -> None:
    script, *arguments = command
    result = subprocess.run(
        [CLUSTER_SCRIPTS / script, *arguments],
        env={**os.environ, "STROP_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert f"{script}: cpu-0 is down: run {CLUSTER_SCRIPTS}/up" in result.stderr


def test_kwok_plays_nodes_for_scale(cluster: Cluster, namespace: str) -> None:
    subprocess.run([CLUSTER_SCRIPTS / "fake-nodes", "3"], check=True, capture_output=True, timeout=120)
    try:
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "many"},
            "spec": {"completions": 20, "parallelism": 20, "template": {"spec": _played_pod()}},
        }
        cluster.kubectl.apply(job, arguments=("-n", namespace))
        cluster.kubectl.wait("condition=Complete", "job/many", "-n", namespace, timeout=60)
        pods = cluster.kubectl.get("pod", "-n", namespace, "-l", "job-name=many")["items"]
        assert {each["spec"]["nodeName"] for each in pods} <= {"kwok-1", "kwok-2", "kwok-3"}
    finally:
        subprocess.run([CLUSTER_SCRIPTS / "fake-nodes", "0"], check=True, capture_output=True, timeout=120)
    assert cluster.kubectl.get("node", "-l", "type=kwok")["items"] == []


def _played_pod() -> dict[str, Any]:
    spec: dict[str, Any] = restricted_pod("many", ["true"])["spec"]
    return {
        **spec,
        "nodeSelector": {"strop.dev/pool": "kwok"},
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
    }
