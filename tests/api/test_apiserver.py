"""The harness that the other tests of this folder stand on keeps its promises."""

import json
import socket

import pytest

from tests.support.apiserver import ISSUER, ApiServer

pytestmark = pytest.mark.api

JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "sleeper"},
    "spec": {
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "localhost/none:1"}],
            }
        }
    },
}


@pytest.fixture(scope="module")
def namespace(apiserver: ApiServer) -> str:
    apiserver.kubectl("create", "namespace", "harness", check=True)
    return "harness"


def test_controllers_create_and_collect_pods_of_a_job(apiserver: ApiServer, namespace: str) -> None:
    kubectl = apiserver.kubectl
    kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(JOB), check=True)
    pods = ("pod", "-n", namespace, "-l", "job-name=sleeper")
    kubectl.wait("create", *pods, timeout=30)
    kubectl("delete", "job", "sleeper", "-n", namespace, "--cascade=foreground", "--timeout=30s", check=True)
    assert kubectl.get(*pods)["items"] == []


def test_client_certificate_names_user_and_groups(apiserver: ApiServer) -> None:
    kubectl = apiserver.kubectl_as(apiserver.client_kubeconfig("ann/lee", ["team-a", "team-b"]))
    who = json.loads(kubectl("auth", "whoami", "-o", "json", check=True).stdout)["status"]["userInfo"]
    assert who["username"] == "ann/lee"
    assert who["groups"] == ["team-a", "team-b", "system:authenticated"]


def test_users_without_a_role_may_do_nothing(apiserver: ApiServer, namespace: str) -> None:
    kubectl = apiserver.kubectl_as(apiserver.client_kubeconfig("nobody"))
    refused = kubectl("get", "pods", "-n", namespace)
    assert refused.returncode != 0
    assert 'User "nobody" cannot list resource "pods"' in refused.stderr


def test_service_account_token_is_issued_and_reviewed(apiserver: ApiServer, namespace: str) -> None:
    kubectl = apiserver.kubectl
    kubectl("create", "serviceaccount", "robot", "-n", namespace, check=True)
    as_robot = apiserver.kubectl_as(apiserver.service_account_kubeconfig(namespace, "robot"))
    who = json.loads(as_robot("auth", "whoami", "-o", "json", check=True).stdout)["status"]["userInfo"]
    assert who["username"] == "system:serviceaccount:harness:robot"

    token = kubectl("create", "token", "robot", "-n", namespace, "--audience=strop.dev", check=True).stdout.strip()
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["strop.dev"]},
    }
    answer = kubectl("create", "-o", "json", "-f", "-", input=json.dumps(review), check=True)
    status = json.loads(answer.stdout)["status"]
    assert status["authenticated"] is True
    assert status["audiences"] == ["strop.dev"]

    review["spec"] = {"token": token, "audiences": [ISSUER]}
    answer = kubectl("create", "-o", "json", "-f", "-", input=json.dumps(review), check=True)
    assert "authenticated" not in json.loads(answer.stdout)["status"]


def test_pod_security_standard_is_enforced(apiserver: ApiServer) -> None:
    kubectl = apiserver.kubectl
    kubectl("create", "namespace", "strict", check=True)
    kubectl("label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted", check=True)
    refused = kubectl("run", "loose", "-n", "strict", "--image=localhost/none:1", "--dry-run=server")
    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted' in refused.stderr


def test_programs_can_be_killed_and_started_again(apiserver: ApiServer) -> None:
    apiserver.kubectl("create", "namespace", "survives", check=True)
    for name, start in [
        ("kube-controller-manager", apiserver.start_controller_manager),
        ("kube-apiserver", apiserver.start_apiserver),
    ]:
        apiserver.stop_program(name)
        start()
    assert apiserver.kubectl.get("namespace", "survives")["status"]["phase"] == "Active"


def test_a_program_that_cannot_start_is_reported_with_its_log() -> None:
    server = ApiServer()
    with socket.create_server(("127.0.0.1", server._etcd_port)):
        with pytest.raises(RuntimeError, match=r"(?s)etcd ended with 1.*address already in use"):
            server.start()
        server.stop()
    assert not server.folder.exists()
