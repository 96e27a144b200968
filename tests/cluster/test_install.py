"""The chart on real nodes: install, `helm test`, two replicas, and what a failure looks like."""

import subprocess
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.helm import NAMESPACE, RELEASE, helm
from tests.support.team import LEASE_SECONDS, install
from tests.support.waiting import wait_until

pytestmark = pytest.mark.cluster

POD = "app.kubernetes.io/component=operator"


def helm_test(cluster: Cluster) -> subprocess.CompletedProcess[str]:
    arguments = ("test", RELEASE, "--namespace", NAMESPACE, "--timeout", "120s")
    return helm(*arguments, kubeconfig=cluster.kubeconfig, check=False)


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    """Returns the operator's pods that are not ending."""
    found = cluster.kubectl.get("pods", "-n", NAMESPACE, "-l", POD)["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def holder(cluster: Cluster) -> str:
    """Returns the name of the pod that holds the Lease; empty where none does."""
    lease = cluster.kubectl.get("lease", RELEASE, "-n", NAMESPACE)
    return str(lease["spec"].get("holderIdentity") or "")


def settle(cluster: Cluster) -> None:
    """Waits until one of the pods that are there holds the Lease."""
    wait_until(
        lambda: holder(cluster) in {pod["metadata"]["name"] for pod in pods(cluster)},
        "one of the operator's pods holds the Lease",
    )


def test_installs_and_passes_its_own_test(installed: Cluster) -> None:
    (pod,) = pods(installed)
    (status,) = pod["status"]["containerStatuses"]
    assert status["ready"]
    assert status["restartCount"] == 0
    result = helm_test(installed)
    assert result.returncode == 0, result.stderr
    assert "Succeeded" in result.stdout


def test_operator_watches_with_the_rights_of_its_pod(installed: Cluster, namespace: str) -> None:
    settle(installed)
    job = {
        "apiVersion": "strop.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "no-input", "namespace": namespace},
        "spec": {
            "task": "chat",
            "model": {"source": "pvc://missing/model", "parameters": "135M"},
            "dataset": {"train": [{"source": "configmap://missing/rows.jsonl"}]},
        },
    }
    installed.kubectl.apply(job)
    place = ("finetunejob/no-input", "-n", namespace)
    installed.kubectl.wait("jsonpath={.status.phase}=Pending", *place, timeout=10)
    installed.kubectl("delete", *place, "--timeout=10s", check=True)


def test_own_test_fails_where_no_operator_answers(installed: Cluster) -> None:
    kubectl = installed.kubectl
    kubectl("scale", "deployment", RELEASE, "-n", NAMESPACE, "--replicas=0", check=True)
    wait_until(lambda: not kubectl.get("pods", "-n", NAMESPACE, "-l", POD)["items"], "the operator is gone")
    result = helm_test(installed)
    assert result.returncode != 0
    log = kubectl("logs", f"{RELEASE}-test", "-n", NAMESPACE, check=True)
    assert "refused" in log.stdout + log.stderr
    install(installed)


def test_second_replica_takes_over(installed: Cluster) -> None:
    install(installed, replicas=2)
    assert len(pods(installed)) == 2
    assert installed.kubectl.get("pdb", RELEASE, "-n", NAMESPACE)["status"]["currentHealthy"] == 2
    settle(installed)
    first = holder(installed)

    # Killed at once, it cannot give the Lease back.
    installed.kubectl("delete", "pod", first, "-n", NAMESPACE, "--force", "--grace-period=0", check=True)
    wait_until(lambda: holder(installed) not in ("", first), "the other replica holds the Lease", 4 * LEASE_SECONDS)
    install(installed)
    assert len(pods(installed)) == 1
