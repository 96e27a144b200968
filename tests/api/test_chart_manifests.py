"""What the chart renders is what a real API server takes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.apiserver import ApiServer
from tests.support.helm import NAMESPACE, Manifest, only, render
from tests.support.kubeschemas import kubeconform, write_schemas
from tests.support.paths import REPOSITORY
from tests.support.waiting import wait_until

pytestmark = pytest.mark.api

POOL_KIND = "strop.dev/v1alpha1/ComputePool"
POOLS = [
    {"name": "cpu", "spec": {"cpuPerNode": "8", "memoryPerNode": "32Gi", "nodeSelector": {"strop.dev/pool": "cpu"}}},
    {
        "name": "gpu",
        "spec": {
            "cpuPerNode": 16,
            "memoryPerNode": "128Gi",
            "accelerator": {"resourceName": "nvidia.com/gpu", "memory": "80Gi", "perNode": 8},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        },
    },
]
VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "two-replicas": {"replicas": 2, "priorityClassName": "system-cluster-critical"},
    "bounded": {
        "watchNamespaces": ["chart-team"],
        "networkPolicy": {
            "apiServerCidrs": ["10.96.0.1/32"],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "extraEgress": [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 3128}]}],
        },
    },
    "placed": {
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "platform", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}]
                }
            }
        },
        "imagePullSecrets": [{"name": "pull-me"}],
        "trainer": {"imagePullSecrets": ["pull-me"]},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "podAnnotations": {"note": "yes"},
        "podLabels": {"team": "platform"},
    },
    "registry-and-pools": {
        "pools": POOLS,
        "registry": {"createClaims": [{"namespace": "chart-team", "size": "1Ti", "storageClassName": "nfs"}]},
        "metrics": {"dashboard": {"enabled": True, "annotations": {"grafana_folder": "Strop"}}},
    },
}


@pytest.fixture(scope="module")
def server(apiserver: ApiServer) -> ApiServer:
    kubectl = apiserver.kubectl
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds"), check=True)
    kubectl.wait("condition=Established", "crd/computepools.strop.dev", "crd/finetunejobs.strop.dev")
    for name in (NAMESPACE, "chart-team"):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        kubectl.apply(namespace)
    kubectl("label", "ns", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted", "--overwrite", check=True)
    return apiserver


@pytest.fixture(scope="module")
def schemas(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    document = ("get", "--raw", "/openapi/v2")
    wait_until(
        lambda: "dev.strop.v1alpha1.ComputePool" in server.kubectl(*document, check=True).stdout,
        "the server publishes the schema of ComputePool",
    )
    return write_schemas(server.kubectl, tmp_path_factory.mktemp("schemas"))


@pytest.mark.parametrize("name", VALUES)
def test_manifests_conform_to_the_server_s_schemas(schemas: str, name: str) -> None:
    manifests = render(VALUES[name])
    summary, problems = kubeconform(manifests, schemas)
    assert problems == []
    assert summary == {"valid": len(manifests), "invalid": 0, "errors": 0, "skipped": 0}


def test_conformance_notices_what_is_wrong(schemas: str) -> None:
    deployment = only(render(), "Deployment")
    deployment["spec"]["template"]["spec"]["hostNetwrk"] = True
    deployment["spec"]["replicas"] = "one"
    _, (problem,) = kubeconform([deployment], schemas)
    assert "additional properties 'hostNetwrk' not allowed" in problem
    assert "at '/spec/replicas': got string, want integer" in problem
    unknown = {"apiVersion": "strop.dev/v1", "kind": "ComputePool", "metadata": {"name": "x"}}
    assert kubeconform([unknown], schemas)[0]["errors"] == 1


def dry_run(server: ApiServer, manifests: list[Manifest]) -> None:
    server.kubectl.apply(*manifests, arguments=("--dry-run=server", "--validate=strict", "--force-conflicts"))


@pytest.mark.parametrize("name", VALUES)
def test_server_takes_every_manifest(server: ApiServer, name: str) -> None:
    dry_run(server, render(VALUES[name], api_versions=[POOL_KIND]))


def test_server_refuses_a_wrong_manifest(server: ApiServer) -> None:
    policy = only(render(), "NetworkPolicy")
    policy["spec"]["egress"][0]["ports"][0]["port"] = 0
    with pytest.raises(AssertionError, match="must be between 1 and 65535"):
        dry_run(server, [policy])


@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_pods_meet_the_restricted_standard(server: ApiServer, kind: str) -> None:
    manifest = only(render(VALUES["placed"] | {"priorityClassName": "system-cluster-critical"}), kind)
    if kind == "Deployment":
        manifest = manifest["spec"]["template"] | {"apiVersion": "v1", "kind": "Pod"}
        manifest["metadata"] |= {"name": "operator", "namespace": NAMESPACE}
    # A Pod's account is looked up at admission.
    manifest["spec"].pop("serviceAccountName", None)
    create = ("create", "--dry-run=server", "-f", "-")
    server.kubectl(*create, input=json.dumps(manifest), check=True)

    del manifest["spec"]["securityContext"]["seccompProfile"]
    refused = server.kubectl(*create, input=json.dumps(manifest))
    assert 'violates PodSecurity "restricted' in refused.stderr


def test_api_group_that_helm_test_asks_for_is_open_to_every_account(server: ApiServer, tmp_path: Path) -> None:
    kubectl = server.kubectl_as(server.service_account_kubeconfig(NAMESPACE, "default"))
    group = json.loads(kubectl("get", "--raw", "/apis/strop.dev/v1alpha1", check=True).stdout)
    found = {resource["name"] for resource in group["resources"]}
    assert found >= {"computepools", "finetunejobs", "modelversions"}
