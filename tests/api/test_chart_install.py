"""The release on a real API server: install, upgrade, uninstall, and what each role may do."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.apiserver import ApiServer
from tests.support.helm import CHART, NAMESPACE, RELEASE, helm
from tests.support.kubectl import Kubectl
from tests.support.paths import REPOSITORY
from tests.support.waiting import wait_until

pytestmark = pytest.mark.api

SIZE = {"cpuPerNode": "8", "memoryPerNode": "32Gi"}
VALUES: dict[str, Any] = {
    "pools": [{"name": "cpu", "spec": SIZE}, {"name": "spare", "spec": SIZE}],
    "registry": {"createClaims": [{"namespace": "team", "size": "1Gi"}]},
}
JOB = {
    "apiVersion": "strop.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "tune", "namespace": "team"},
    "spec": {
        "task": "chat",
        "model": {"source": "pvc://base-models/model"},
        "dataset": {"train": [{"source": "configmap://rows/train.jsonl"}]},
    },
}
VERSION = {
    "apiVersion": "strop.dev/v1alpha1",
    "kind": "ModelVersion",
    "metadata": {"name": "tune-1", "namespace": "team"},
    "spec": {
        "model": "tune",
        "version": 1,
        "task": "chat",
        "method": "lora",
        "registry": {"claim": "strop-models", "path": "team/tune/1", "sizeBytes": 1, "manifestSha256": "0" * 64},
        "planDigest": "sha256:" + "0" * 64,
        "baseModel": {"source": "pvc://base-models/model", "fingerprint": "sha256:0"},
        "dataset": {"fingerprint": "sha256:0", "trainRows": 9, "validationRows": 1},
        "job": {"name": "tune", "uid": "0"},
        "publishedAt": "2025-01-01T00:00:00Z",
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """A server of its own: the definitions belong to the release."""
    with ApiServer() as server:
        server.kubectl("create", "namespace", "team", check=True)
        yield server


def upgrade(server: ApiServer, values: dict[str, Any]) -> None:
    """Installs or upgrades; waits for no pod, since the server has no node."""
    helm(
        *("upgrade", "--install", RELEASE, CHART, "--namespace", NAMESPACE, "--create-namespace", "--wait=hookOnly"),
        values=values,
        kubeconfig=server.kubeconfig,
    )


@pytest.fixture(scope="module")
def installed(server: ApiServer) -> ApiServer:
    upgrade(server, VALUES)
    return server


@pytest.fixture(scope="module")
def operator(installed: ApiServer) -> Kubectl:
    """kubectl as the operator."""
    return installed.kubectl_as(installed.service_account_kubeconfig(NAMESPACE, "strop"))


def named(kind: str, name: str, api_version: str = "v1", **fields: Any) -> str:
    return json.dumps({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **fields})


def apply_as(kubectl: Kubectl, namespace: str, document: str) -> str:
    """Returns the error of a server-side apply; empty where it went well."""
    return kubectl("apply", "--server-side", "-n", namespace, "-f", "-", input=document).stderr


def test_release_serves_its_kinds_and_creates_its_pools_and_claims(installed: ApiServer) -> None:
    kubectl = installed.kubectl
    assert kubectl.get("computepool", "cpu")["spec"]["memoryPerNode"] == "32Gi"
    claim = kubectl.get("pvc", "strop-models", "-n", "team")
    assert claim["spec"]["resources"]["requests"] == {"storage": "1Gi"}
    assert kubectl.get("deployment", "strop", "-n", NAMESPACE)["spec"]["replicas"] == 1


def test_operator_may_make_its_own_secret_and_lease_by_name_and_no_other(operator: Kubectl) -> None:
    secret = "strop-progress-tls"
    assert apply_as(operator, NAMESPACE, named("Secret", secret, stringData={"tls.crt": "x"})) == ""
    assert operator("get", "secret", secret, "-n", NAMESPACE).returncode == 0
    assert apply_as(operator, NAMESPACE, named("Lease", "strop", "coordination.k8s.io/v1", spec={})) == ""

    assert "forbidden" in apply_as(operator, NAMESPACE, named("Secret", "other"))
    assert "forbidden" in apply_as(operator, "team", named("Secret", secret))
    assert "forbidden" in apply_as(operator, NAMESPACE, named("Lease", "other", "coordination.k8s.io/v1", spec={}))
    for arguments in (("get", "secrets", "-A"), ("get", "secrets", "-n", NAMESPACE), ("delete", "secret", secret)):
        assert "forbidden" in operator(*arguments, "-n", NAMESPACE).stderr


def test_operator_may_not_reach_beyond_its_work(operator: Kubectl) -> None:
    for verb, resource in [
        ("create", "pods"),
        ("create", "pods/exec"),
        ("create", "clusterroles.rbac.authorization.k8s.io"),
        ("create", "computepools.strop.dev"),
        ("delete", "modelversions.strop.dev"),
        ("patch", "customresourcedefinitions.apiextensions.k8s.io"),
        ("list", "secrets"),
        ("list", "nodes"),
        ("impersonate", "users"),
    ]:
        assert operator("auth", "can-i", verb, resource, "-n", "team").stdout.strip() == "no", (verb, resource)


def test_editor_and_viewer_of_a_namespace_may_do_what_their_roles_say(installed: ApiServer) -> None:
    kubectl = installed.kubectl
    for user, role in (("editor", "edit"), ("viewer", "view")):
        kubectl("create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", "-n", "team", check=True)
    editor = installed.kubectl_as(installed.client_kubeconfig("editor"))
    viewer = installed.kubectl_as(installed.client_kubeconfig("viewer"))
    # A controller puts the chart's rules into the cluster's own roles.
    for user, verb in ((editor, "create"), (viewer, "get")):
        question = ("auth", "can-i", verb, "finetunejobs.strop.dev", "-n", "team")
        wait_until(lambda: user(*question).returncode == 0, "the cluster's own role holds what the chart adds")  # noqa: B023
    assert editor("apply", "-f", "-", input=json.dumps(JOB)).stderr == ""
    assert viewer("get", "finetunejob", "tune", "-n", "team").returncode == 0
    assert "forbidden" in viewer("delete", "finetunejob", "tune", "-n", "team").stderr
    assert "forbidden" in editor("apply", "-f", "-", input=json.dumps(VERSION)).stderr
    assert "forbidden" in editor("get", "finetunejobs", "-n", "default").stderr
    assert editor("delete", "finetunejob", "tune", "-n", "team").returncode == 0


def pools(server: ApiServer) -> dict[str, str]:
    """Returns the memory of each pool."""
    return {
        each["metadata"]["name"]: each["spec"]["memoryPerNode"] for each in server.kubectl.get("computepools")["items"]
    }


def sized(name: str, memory: str) -> dict[str, Any]:
    return {"name": name, "spec": {"cpuPerNode": "8", "memoryPerNode": memory}}


def test_first_upgrade_takes_over_the_pools_that_hooks_made(installed: ApiServer) -> None:
    """One is changed, one goes away; from then on, they are changed in place."""
    assert pools(installed) == {"cpu": "32Gi", "spare": "32Gi"}
    upgrade(installed, VALUES | {"pools": [sized("cpu", "64Gi"), sized("new", "1Gi")]})
    assert pools(installed) == {"cpu": "64Gi", "new": "1Gi"}
    before = installed.kubectl.get("computepool", "cpu")["metadata"]["uid"]

    upgrade(installed, VALUES | {"pools": [sized("cpu", "128Gi")]})
    assert pools(installed) == {"cpu": "128Gi"}
    assert installed.kubectl.get("computepool", "cpu")["metadata"]["uid"] == before


def test_rollback_to_the_first_release_has_its_pools(installed: ApiServer) -> None:
    helm("rollback", RELEASE, "1", "--namespace", NAMESPACE, kubeconfig=installed.kubeconfig)
    assert pools(installed) == {"cpu": "32Gi", "spare": "32Gi"}
    upgrade(installed, VALUES | {"pools": [sized("cpu", "16Gi")]})
    assert pools(installed) == {"cpu": "16Gi"}


def test_upgrade_takes_away_what_is_no_longer_wanted(installed: ApiServer) -> None:
    kubectl = installed.kubectl
    upgrade(installed, VALUES | {"replicas": 2})
    assert kubectl.get("pdb", "strop", "-n", NAMESPACE)["spec"]["maxUnavailable"] == 1
    upgrade(installed, VALUES)
    assert kubectl.get("pdb", "-n", NAMESPACE)["items"] == []


def test_uninstall_of_the_very_first_release_leaves_no_pool() -> None:
    with ApiServer() as server:
        upgrade(server, {"pools": [sized("cpu", "1Gi")]})
        assert pools(server) == {"cpu": "1Gi"}
        helm("uninstall", RELEASE, "--namespace", NAMESPACE, kubeconfig=server.kubeconfig)
        assert pools(server) == {}


def test_commands_of_the_upgrade_page_work(installed: ApiServer) -> None:
    page = (REPOSITORY / "docs" / "how-to" / "upgrade.md").read_text()
    (upgrading,) = re.findall(r"^helm (upgrade .*) --wait$", page, flags=re.MULTILINE)
    (rollback,) = re.findall(r"`helm (rollback .*?)`", page)
    arguments = [CHART if word == "charts/strop" else word for word in upgrading.split()]
    before = helm("get", "values", RELEASE, "-n", NAMESPACE, "-o", "json", kubeconfig=installed.kubeconfig).stdout
    helm(*arguments, "--set=replicas=2", kubeconfig=installed.kubeconfig)
    assert installed.kubectl.get("computepool", "cpu")
    helm(*rollback.split(), kubeconfig=installed.kubeconfig)
    after = helm("get", "values", RELEASE, "-n", NAMESPACE, "-o", "json", kubeconfig=installed.kubeconfig).stdout
    assert after == before
    assert installed.kubectl.get("deployment", "strop", "-n", NAMESPACE)["spec"]["replicas"] == 1


def test_uninstall_keeps_versions_and_claims_and_a_new_release_takes_over(installed: ApiServer) -> None:
    kubectl = installed.kubectl
    kubectl("create", "-f", "-", input=json.dumps(VERSION), check=True)
    before = kubectl.get("modelversion", "tune-1", "-n", "team")["metadata"]["uid"]

    helm("uninstall", RELEASE, "--namespace", NAMESPACE, kubeconfig=installed.kubeconfig)
    assert kubectl.get("modelversion", "tune-1", "-n", "team")["metadata"]["uid"] == before
    assert kubectl.get("pvc", "strop-models", "-n", "team")
    assert kubectl.get("computepools")["items"] == []
    ours = ("-l", "app.kubernetes.io/part-of=strop")
    left = kubectl.get("clusterroles,clusterrolebindings", *ours)["items"]
    left += kubectl.get("all,role,rolebinding,networkpolicy,sa", "-n", NAMESPACE, *ours)["items"]
    assert left == []

    upgrade(installed, VALUES)
    assert kubectl.get("modelversion", "tune-1", "-n", "team")["metadata"]["uid"] == before
    assert kubectl.get("deployment", "strop", "-n", NAMESPACE)


def test_release_of_another_name_takes_over_only_when_told_to(installed: ApiServer) -> None:
    """Comes last: it ends with the definitions in another release's hands."""
    helm("uninstall", RELEASE, "--namespace", NAMESPACE, kubeconfig=installed.kubeconfig)
    install = ("install", "other", CHART, "--namespace", NAMESPACE, "--wait=hookOnly")
    refused = helm(*install, kubeconfig=installed.kubeconfig, check=False)
    assert "exists and cannot be imported into the current release" in refused.stderr
    helm(*install, "--take-ownership", kubeconfig=installed.kubeconfig)
    assert installed.kubectl.get("deployment", "other-strop", "-n", NAMESPACE)
