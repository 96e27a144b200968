"""What the chart renders, for several values."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from strop.api import names
from strop.controller.settings import Settings
from strop.desired.metadata import TRAINER, selector
from tests.support.helm import CHART, NAMESPACE, Manifest, helm, only, render

POOL = {"name": "cpu", "spec": {"cpuPerNode": "8", "memoryPerNode": "32Gi"}}
POOL_KIND = f"{names.API_VERSION}/ComputePool"
CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "ComputePool", "CustomResourceDefinition"}
DIGEST = "sha256:" + "a" * 64
EVERYTHING: dict[str, Any] = {
    "replicas": 2,
    "watchNamespaces": ["team-a", "team-b"],
    "trainer": {"imagePullSecrets": ["pull-me", "me-too"]},
    "imagePullSecrets": [{"name": "pull-me"}],
    "priorityClassName": "system-cluster-critical",
    "podLabels": {"team": "platform"},
    "podAnnotations": {"note": "yes"},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "networkPolicy": {"apiServerCidrs": ["10.0.0.1/32"], "metricsFrom": [{"namespaceSelector": {}}]},
    "metrics": {kind: {"enabled": True} for kind in ("serviceMonitor", "prometheusRule", "dashboard")},
    "registry": {"createClaims": [{"namespace": "team-a", "size": "1Ti", "storageClassName": "nfs"}]},
    "pools": [POOL],
}


class Recording(dict[str, str]):
    """An environment that knows what was asked of it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def pod_of(manifests: list[Manifest]) -> Manifest:
    template: Manifest = only(manifests, "Deployment")["spec"]["template"]
    return template


def environment_of(manifests: list[Manifest]) -> Recording:
    fields = {"metadata.namespace": NAMESPACE, "metadata.name": "strop-0"}
    (container,) = pod_of(manifests)["spec"]["containers"]
    return Recording(
        {
            entry["name"]: entry["value"] if "value" in entry else fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
            for entry in container["env"]
        }
    )


def test_lint_finds_nothing() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART).stdout
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, values=EVERYTHING).stdout


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_every_object_says_where_it_belongs(values: dict[str, Any]) -> None:
    for manifest in render(values):
        metadata = manifest["metadata"]
        assert ("namespace" in metadata) == (manifest["kind"] not in CLUSTER_SCOPED), metadata["name"]
        if manifest["kind"] != "CustomResourceDefinition":
            assert metadata["labels"]["app.kubernetes.io/instance"] == "strop"
            assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"


def test_operator_understands_its_environment() -> None:
    environment = environment_of(render())
    settings = Settings.from_environment(environment)
    assert settings == Settings(
        namespace=NAMESPACE,
        pod_name="strop-0",
        trainer_image="localhost/strop-trainer:0.1.0",
        progress_url=f"https://strop-progress.{NAMESPACE}.svc:8443",
        lease_name="strop",
        operator_labels=settings.operator_labels,
        log_format="json",
    )


def test_every_variable_is_one_that_the_operator_reads() -> None:
    environment = environment_of(render(EVERYTHING))
    settings = Settings.from_environment(environment)
    assert set(environment) - environment.asked == {"HTTPS_PROXY"}
    assert settings.watch_namespaces == ("team-a", "team-b")
    assert settings.trainer_pull_secrets == ("pull-me", "me-too")


def test_ports_probes_and_services_agree_with_the_operator() -> None:
    manifests = render()
    settings = Settings.from_environment(environment_of(manifests))
    (container,) = pod_of(manifests)["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"progress": settings.progress_port, "metrics": settings.metrics_port}
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "metrics"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}

    progress = only(manifests, "Service", "strop-progress")
    host, _, port = settings.progress_url.removeprefix("https://").partition(":")
    assert host == f"{progress['metadata']['name']}.{progress['metadata']['namespace']}.svc"
    assert progress["spec"]["ports"] == [{"name": "https", "port": int(port), "targetPort": "progress"}]
    metrics = only(manifests, "Service", "strop-metrics")
    assert metrics["spec"]["ports"] == [{"name": "metrics", "port": 8080, "targetPort": "metrics"}]


def test_selectors_choose_the_operator_pods_and_no_other() -> None:
    manifests = render(EVERYTHING)
    pod_labels = pod_of(manifests)["metadata"]["labels"]
    test_labels = only(manifests, "Pod")["metadata"]["labels"]
    selectors = [
        only(manifests, "Deployment")["spec"]["selector"]["matchLabels"],
        only(manifests, "Service", "strop-progress")["spec"]["selector"],
        only(manifests, "Service", "strop-metrics")["spec"]["selector"],
        only(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        dict(Settings.from_environment(environment_of(manifests)).operator_labels),
    ]
    for each in selectors:
        assert each == selectors[0]
        assert each.items() <= pod_labels.items()
        assert not each.items() <= test_labels.items()


def test_service_monitor_selects_the_metrics_service_alone() -> None:
    manifests = render(EVERYTHING)
    wanted = only(manifests, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    services = [each for each in manifests if each["kind"] == "Service"]
    chosen = [each["metadata"]["name"] for each in services if wanted.items() <= each["metadata"]["labels"].items()]
    assert chosen == ["strop-metrics"]


@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_pods_are_confined(kind: str) -> None:
    manifest = only(render(), kind)
    spec = manifest["spec"]["template"]["spec"] if kind == "Deployment" else manifest["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_one_replica_has_no_budget_and_two_are_kept_apart() -> None:
    alone = render()
    assert not [each for each in alone if each["kind"] == "PodDisruptionBudget"]
    assert not {"affinity", "topologySpreadConstraints"} & pod_of(alone)["spec"].keys()

    pair = render({"replicas": 2})
    assert only(pair, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    spec = pod_of(pair)["spec"]
    (preferred,) = spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    assert spec["topologySpreadConstraints"][0]["topologyKey"] == "topology.kubernetes.io/zone"
    assert not [
        each
        for each in render({"replicas": 2, "podDisruptionBudget": {"enabled": False}})
        if each["kind"] == "PodDisruptionBudget"
    ]


def test_given_affinity_and_spread_win() -> None:
    affinity = {"nodeAffinity": {}}
    spread = [{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]
    spec = pod_of(render({"replicas": 2, "affinity": affinity, "topologySpreadConstraints": spread}))["spec"]
    assert spec["affinity"] == affinity
    assert spec["topologySpreadConstraints"] == spread


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, "localhost/strop-operator:0.1.0"),
        ({"repository": "r.example:5000/a/b", "tag": "dev"}, "r.example:5000/a/b:dev"),
        ({"tag": "dev", "digest": DIGEST}, f"localhost/strop-operator@{DIGEST}"),
    ],
)
def test_image_by_tag_or_digest(image: dict[str, str], expected: str) -> None:
    manifests = render({"image": image})
    assert pod_of(manifests)["spec"]["containers"][0]["image"] == expected
    assert only(manifests, "Pod")["spec"]["containers"][0]["image"] == expected


def test_trainer_image_by_digest() -> None:
    environment = environment_of(render({"trainer": {"image": {"repository": "r.example/t", "digest": DIGEST}}}))
    assert environment["STROP_TRAINER_IMAGE"] == f"r.example/t@{DIGEST}"


def test_two_installations_share_no_name() -> None:
    first = {(each["kind"], each["metadata"]["name"]) for each in render() if each["kind"] in CLUSTER_SCOPED}
    second = {
        (each["kind"], each["metadata"]["name"])
        for each in render({"crds": {"install": False}}, release="other")
        if each["kind"] in CLUSTER_SCOPED
    }
    assert not first & second
    environment = environment_of(render(release="other"))
    assert environment["STROP_LEASE_NAME"] == "other-strop"
    assert environment["STROP_TLS_SECRET"] == "other-strop-progress-tls"


def test_long_release_name_gives_names_that_kubernetes_takes() -> None:
    for manifest in render(EVERYTHING, release="r" * 53):
        name = manifest["metadata"]["name"]
        assert len(name) <= 63
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name)


def test_network_policy_lets_in_trainers_and_lets_out_to_names_and_api_server() -> None:
    policy = only(render(), "NetworkPolicy")["spec"]
    trainers, readers = policy["ingress"]
    assert trainers == {
        "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {names.LABEL_COMPONENT: TRAINER}}}],
        "ports": [{"port": 8443}],
    }
    assert selector("job").items() >= {names.LABEL_COMPONENT: TRAINER}.items()
    assert readers["ports"] == [{"port": 8080}]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 443, 6443}

    bounded = only(render(EVERYTHING), "NetworkPolicy")["spec"]
    assert bounded["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
    assert not [each for each in render({"networkPolicy": {"enabled": False}}) if each["kind"] == "NetworkPolicy"]


def test_metrics_readers_can_be_bounded_and_the_test_pod_still_gets_in() -> None:
    values = {"networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]}}
    manifests = render(values)
    peers = only(manifests, "NetworkPolicy")["spec"]["ingress"][1]["from"]
    assert peers[1:] == values["networkPolicy"]["metricsFrom"]
    assert peers[0]["podSelector"]["matchLabels"].items() <= only(manifests, "Pod")["metadata"]["labels"].items()


def rules_of(manifests: list[Manifest], kind: str, name: str) -> list[Manifest]:
    rules: list[Manifest] = only(manifests, kind, name)["rules"]
    return rules


def test_no_role_is_wider_than_it_says() -> None:
    for manifest in render(EVERYTHING):
        for rule in manifest.get("rules", []):
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            if "secrets" in rule["resources"]:
                assert manifest["kind"] == "Role"
                assert manifest["metadata"]["namespace"] == NAMESPACE
                assert rule["resourceNames"] == ["strop-progress-tls"]


def test_named_objects_of_the_roles_are_those_of_the_environment() -> None:
    manifests = render()
    environment = environment_of(manifests)
    named = {rule["resources"][0]: rule["resourceNames"] for rule in rules_of(manifests, "Role", "strop-own")}
    assert named == {"leases": [environment["STROP_LEASE_NAME"]], "secrets": [environment["STROP_TLS_SECRET"]]}


def test_watched_namespaces_bound_the_roles() -> None:
    everywhere = rules_of(render(), "ClusterRole", "strop")
    manifests = render({"watchNamespaces": ["team-a", "team-b"]})
    bounded = rules_of(manifests, "ClusterRole", "strop")
    assert {resource for rule in bounded for resource in rule["resources"]} == {"computepools", "tokenreviews"}
    roles = [each for each in manifests if each["kind"] == "Role" and each["metadata"]["name"] == "strop-jobs"]
    assert [role["metadata"]["namespace"] for role in roles] == ["team-a", "team-b"]
    for role in roles:
        assert bounded + role["rules"] == everywhere
    bindings = [each for each in manifests if each["kind"] == "RoleBinding" and each["roleRef"]["name"] == "strop-jobs"]
    assert [binding["metadata"]["namespace"] for binding in bindings] == ["team-a", "team-b"]


def test_roles_can_be_left_to_others() -> None:
    kinds = {each["kind"] for each in render({"rbac": {"create": False, "userRoles": False}})}
    assert not {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & kinds


def test_service_account_can_be_another() -> None:
    values = {"serviceAccount": {"create": False, "name": "given"}}
    manifests = render(values)
    assert "ServiceAccount" not in {each["kind"] for each in manifests}
    assert pod_of(manifests)["spec"]["serviceAccountName"] == "given"
    for binding in manifests:
        assert {subject["name"] for subject in binding.get("subjects", [])} <= {"given"}


def test_first_release_creates_pools_by_hooks_and_later_ones_hold_them() -> None:
    first = [each for each in render({"pools": [POOL]}) if each["kind"] == "ComputePool"]
    hooks = [each["metadata"]["annotations"]["helm.sh/hook"] for each in first]
    assert hooks == ["post-install,post-upgrade,post-rollback", "pre-delete"]
    assert [each["spec"] for each in first] == [POOL["spec"], POOL["spec"]]
    later = only(render({"pools": [POOL]}, api_versions=[POOL_KIND]), "ComputePool")
    assert "annotations" not in later["metadata"]
    assert later["spec"] == POOL["spec"]


def test_claims_are_the_default_ones_and_outlive_the_release() -> None:
    claims = {"createClaims": [{"namespace": "a", "size": "1Gi"}, {"namespace": "b", "size": "2Gi"}]}
    found = [each for each in render({"registry": claims}) if each["kind"] == "PersistentVolumeClaim"]
    assert [each["metadata"]["namespace"] for each in found] == ["a", "b"]
    for claim in found:
        assert claim["metadata"]["name"] == names.DEFAULT_CLAIM
        assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
        assert "storageClassName" not in claim["spec"]


def test_definitions_outlive_the_release_and_can_be_left_out() -> None:
    definitions = [each for each in render() if each["kind"] == "CustomResourceDefinition"]
    assert len(definitions) == 3
    for definition in definitions:
        assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not [each for each in render({"crds": {"install": False}}) if each["kind"] == "CustomResourceDefinition"]


def test_notes_name_the_next_commands() -> None:
    dry_run = ("install", "strop", CHART, "--namespace", NAMESPACE, "--dry-run=client")
    notes = helm(*dry_run).stdout.partition("NOTES:")[2]
    assert re.findall(r"^       (\S.*)$", notes, flags=re.MULTILINE) == [
        f"helm test strop --namespace {NAMESPACE}",
        "kubectl apply -f examples/pools.yaml",
        "kubectl apply -f examples/quickstart.yaml && kubectl get finetunejobs --watch",
    ]
    assert "strop-models" in notes
    told = helm(*dry_run, values=EVERYTHING).stdout.partition("NOTES:")[2]
    assert "kubectl get computepools" in told
    assert "registry.createClaims" not in told


def test_names_of_digits_alone_stay_text() -> None:
    """As of tenants that are numbers: YAML makes a number of them, and the API server refuses the object."""
    values = {
        **EVERYTHING,
        "watchNamespaces": ["900001"],
        "serviceAccount": {"name": "900002"},
        "priorityClassName": "900003",
        "registry": {"createClaims": [{"namespace": "900004", "size": "1Ti", "storageClassName": "900005"}]},
        "pools": [{**POOL, "name": "900006"}],
    }
    for kinds in ([], [POOL_KIND]):
        rendered = render(values, release="900007", namespace="900008", api_versions=kinds)
        numbers = {value for manifest in rendered for value in leaves(manifest) if isinstance(value, int)}
        assert numbers.isdisjoint(range(900_001, 900_009))
        labels = environment_of(rendered)["STROP_OPERATOR_LABELS"]
        of_pods = pod_of(rendered)["metadata"]["labels"]
        assert dict(pair.split("=") for pair in labels.split(",")).items() <= of_pods.items()


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value
