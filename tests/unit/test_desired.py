import json
from typing import Any

import pytest

from strop.api import names
from strop.api.computepool import ComputePoolSpec
from strop.api.finetunejob import FineTuneJobSpec
from strop.api.modelversion import ModelVersionSpec
from strop.desired.children import build_applied, build_claim, drifted
from strop.desired.installation import Installation
from strop.desired.job import build_job
from strop.desired.metadata import Manifest, Owner
from strop.desired.model_version import build_model_version, version_name
from strop.desired.network_policy import remote_ports
from strop_trainer.context import Settings
from strop_trainer.exit_codes import NON_RETRIABLE, ExitCode
from strop_trainer.plan import load_plan
from tests.support.jobs import INSTALLATION, JOB, JOB_UID, NAMESPACE, job_spec, make_plan, termination

OWNER = Owner(NAMESPACE, JOB, JOB_UID)
CPU_POOL = ComputePoolSpec.model_validate({"cpuPerNode": "8", "memoryPerNode": "16Gi"})


def spec(**changes: Any) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(job_spec(**changes))


def pool(**changes: Any) -> ComputePoolSpec:
    return ComputePoolSpec.model_validate({"cpuPerNode": "8", "memoryPerNode": "16Gi", **changes})


def job(
    placement: dict[str, Any] | None = None,
    spec_changes: dict[str, Any] | None = None,
    compute: ComputePoolSpec = CPU_POOL,
    installation: Installation = INSTALLATION,
) -> Manifest:
    return build_job(make_plan(placement=placement), spec(**(spec_changes or {})), OWNER, compute, installation)


def pod_of(manifest: Manifest) -> dict[str, Any]:
    pod: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return pod


def environment(manifest: Manifest) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in pod_of(manifest)["containers"][0]["env"]}


def mounts(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Mount path → mount, joined with its volume."""
    pod = pod_of(manifest)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    return {mount["mountPath"]: {**volumes[mount["name"]], **mount} for mount in pod["containers"][0]["volumeMounts"]}


@pytest.mark.parametrize("kind", ["ConfigMap", "Service", "NetworkPolicy", "PersistentVolumeClaim", "Job"])
def test_every_child_says_whose_it_is_and_what_it_computes(kind: str) -> None:
    plan = make_plan()
    children = {child["kind"]: child for child in build_applied(plan, OWNER, INSTALLATION)}
    children["PersistentVolumeClaim"] = build_claim(plan, spec(), OWNER, CPU_POOL)
    children["Job"] = job()
    metadata = children[kind]["metadata"]
    assert metadata["namespace"] == NAMESPACE
    assert metadata["labels"][names.LABEL_JOB] == JOB
    assert metadata["labels"][names.LABEL_POOL] == "cpu"
    assert metadata["annotations"][names.ANNOTATION_PLAN_DIGEST] == plan.digest
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("FineTuneJob", JOB, JOB_UID, True)


def test_the_plan_is_read_back_from_its_config_map_unchanged() -> None:
    plan = make_plan()
    config_map = build_applied(plan, OWNER, INSTALLATION)[0]
    assert load_plan(config_map["data"][names.PLAN_KEY]) == plan
    assert config_map["data"]["ca.crt"] == INSTALLATION.progress_ca


def test_the_service_is_headless_and_selects_the_trainers_alone() -> None:
    service = build_applied(make_plan(), OWNER, INSTALLATION)[1]
    labels = job()["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert pod_of(job())["subdomain"] == service["metadata"]["name"]


@pytest.mark.parametrize(
    ("checkpoint", "compute", "expected"),
    [
        (None, {}, None),
        (None, {"storageClassName": "pool-class"}, "pool-class"),
        ({"storageClassName": "own"}, {"storageClassName": "pool-class"}, "own"),
        ({"everySteps": 5}, {}, None),
    ],
)
def test_the_storage_class_is_the_jobs_then_the_pools_then_the_clusters(
    checkpoint: dict[str, Any] | None, compute: dict[str, Any], expected: str | None
) -> None:
    changes = {"checkpoint": checkpoint} if checkpoint else {}
    claim = build_claim(make_plan(), spec(**changes), OWNER, pool(**compute))
    assert claim["spec"].get("storageClassName") == expected
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "10Gi"


def test_several_nodes_share_the_work_claim() -> None:
    claim = build_claim(make_plan(placement={"nodes": 2}), spec(), OWNER, CPU_POOL)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_job_is_indexed_and_replaces_only_pods_that_are_gone() -> None:
    manifest = job({"nodes": 2}, {"backoffLimit": 5, "activeDeadlineSeconds": 60})["spec"]
    assert manifest["completionMode"] == "Indexed"
    assert (manifest["completions"], manifest["parallelism"]) == (2, 2)
    assert manifest["podReplacementPolicy"] == "Failed"
    assert manifest["backoffLimit"] == 5
    assert manifest["activeDeadlineSeconds"] == 60
    assert manifest["suspend"] is False
    assert "activeDeadlineSeconds" not in job()["spec"]


def test_a_job_for_a_queue_begins_suspended_with_the_label_that_queueing_needs() -> None:
    manifest = job(compute=pool(queueName="gpu-queue"))
    assert manifest["spec"]["suspend"] is True
    assert manifest["metadata"]["labels"][names.LABEL_QUEUE] == "gpu-queue"


def outcome(exit_code: int, *, disrupted: bool = False) -> str:
    """What the Job controller does: the first rule that matches decides."""
    for rule in job()["spec"]["podFailurePolicy"]["rules"]:
        if disrupted and "onPodConditions" in rule:
            return str(rule["action"])
        if exit_code in rule.get("onExitCodes", {}).get("values", []):
            return str(rule["action"])
    return "Count"


@pytest.mark.parametrize("code", sorted(NON_RETRIABLE))
def test_what_would_end_the_same_way_fails_at_once(code: ExitCode) -> None:
    assert outcome(code) == "FailJob"


@pytest.mark.parametrize("code", [ExitCode.SOURCE_UNAVAILABLE, ExitCode.INTERNAL, 1, 137, 143])
def test_what_may_pass_counts_against_the_back_off_limit(code: int) -> None:
    assert outcome(code) == "Count"


def test_a_disruption_and_a_saved_checkpoint_cost_no_attempt() -> None:
    assert outcome(ExitCode.BAD_DATA, disrupted=True) == "Ignore"
    assert outcome(ExitCode.PREEMPTED) == "Ignore"


def test_the_pod_meets_the_restricted_pod_security_standard() -> None:
    pod = pod_of(job())
    security = pod["securityContext"]
    container = pod["containers"][0]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 65532
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected"}
    assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])


def test_the_trainer_finds_its_settings_in_its_environment() -> None:
    settings = Settings.from_environment(environment(job()))
    found = mounts(job())
    assert str(settings.plan.parent) in found
    assert str(settings.work) in found
    assert str(settings.registry) in found
    assert f"{settings.volumes}/models" in found
    assert f"{settings.config_maps}/rows" in found
    assert settings.job_uid == JOB_UID
    assert str(settings.termination_log) == pod_of(job())["containers"][0]["terminationMessagePath"]


def test_progress_is_reported_with_a_token_that_the_api_server_refuses() -> None:
    values = environment(job())
    found = mounts(job())
    assert values["KUBEFLOW_TRAINER_SERVER_URL"] == (
        f"https://strop-progress.strop-system.svc:8443/v1alpha1/namespaces/{NAMESPACE}/finetunejobs/{JOB}/progress"
    )
    folder, _, file = values["KUBEFLOW_TRAINER_SERVER_TOKEN"].rpartition("/")
    (source,) = found[folder]["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == names.TOKEN_AUDIENCE
    assert source["serviceAccountToken"]["path"] == file
    assert values["KUBEFLOW_TRAINER_SERVER_CA_CERT"] == "/etc/strop/ca.crt"


def test_the_registry_is_seen_below_the_namespace_only_and_sources_are_read_only() -> None:
    found = mounts(job())
    assert found["/registry"]["persistentVolumeClaim"] == {"claimName": "strop-models"}
    assert found["/registry"]["subPath"] == NAMESPACE
    assert not found["/registry"].get("readOnly")
    assert found["/volumes/models"]["readOnly"] is True
    assert found["/configmaps/rows"]["readOnly"] is True


def test_the_registry_claim_may_be_a_source_too() -> None:
    manifest = job({"claims": ["strop-models", "models"]})
    claims = [v["persistentVolumeClaim"]["claimName"] for v in pod_of(manifest)["volumes"] if "claim-" in v["name"]]
    assert sorted(claims) == ["models", "strop-models"]
    found = mounts(manifest)
    assert found["/registry"]["name"] == found["/volumes/strop-models"]["name"]
    assert found["/volumes/strop-models"]["readOnly"] is True


def test_scratch_space_is_bounded_and_shared_memory_is_memory() -> None:
    found = mounts(job({"resources": {"cpu": "2", "memory": "4Gi", "sharedMemory": "3Gi"}}))
    assert found["/dev/shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "3Gi"}  # noqa: S108
    assert found["/tmp"]["emptyDir"]["sizeLimit"]  # noqa: S108


def test_resources_are_a_promise() -> None:
    resources = {"cpu": "4", "memory": "8Gi", "accelerator": "nvidia.com/gpu", "accelerators": 2}
    found = pod_of(job({"resources": resources}))["containers"][0]["resources"]
    assert found["requests"] == found["limits"] == {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "2"}
    assert set(pod_of(job())["containers"][0]["resources"]["limits"]) == {"cpu", "memory"}


def test_the_pool_places_the_pod() -> None:
    compute = pool(
        nodeSelector={"strop.dev/pool": "gpu"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        priorityClassName="batch",
        runtimeClassName="nvidia",
    )
    pod = pod_of(job(compute=compute))
    assert pod["nodeSelector"] == {"strop.dev/pool": "gpu"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["priorityClassName"] == "batch"
    assert pod["runtimeClassName"] == "nvidia"
    assert not {"nodeSelector", "tolerations", "priorityClassName"} & set(pod_of(job()))


def test_the_image_is_the_plans_else_the_installations() -> None:
    assert pod_of(job({"image": "mine:1"}))["containers"][0]["image"] == "mine:1"
    assert pod_of(job())["containers"][0]["image"] == INSTALLATION.trainer_image


def test_credentials_come_as_environment() -> None:
    assert pod_of(job({"secret": "hub"}))["containers"][0]["envFrom"] == [{"secretRef": {"name": "hub"}}]
    assert pod_of(job())["containers"][0]["envFrom"] == []


@pytest.mark.parametrize(
    ("model", "train", "ports"),
    [
        ("pvc://models/a", "configmap://rows/a", []),
        ("hf://owner/name", "configmap://rows/a", [443]),
        ("pvc://models/a", "hf://datasets/owner/name/rows.jsonl", [443]),
        ("https://files.example:8443/a.tar.gz", "https://files.example/rows.jsonl", [443, 8443]),
    ],
)
def test_only_ports_of_remote_sources_are_open(model: str, train: str, ports: list[int]) -> None:
    plan = make_plan({"model": {"source": model}, "dataset": {"train": [{"source": train}]}})
    assert remote_ports(plan) == ports
    policy = build_applied(plan, OWNER, INSTALLATION)[2]["spec"]
    outside = [rule["ports"][0]["port"] for rule in policy["egress"] if "to" not in rule]
    assert outside == [53, *ports]


def test_nothing_comes_in_and_progress_goes_to_the_operator_alone() -> None:
    policy = build_applied(make_plan(), OWNER, INSTALLATION)[2]["spec"]
    assert policy["ingress"] == []
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (progress,) = [rule for rule in policy["egress"] if "to" in rule]
    assert progress == {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "strop-system"}},
                "podSelector": {"matchLabels": {"app.kubernetes.io/name": "strop"}},
            }
        ],
        "ports": [{"protocol": "TCP", "port": 8443}],
    }


def test_pods_of_one_job_reach_each_other() -> None:
    policy = build_applied(make_plan(placement={"nodes": 2}), OWNER, INSTALLATION)[2]["spec"]
    assert policy["ingress"] == [{"from": [{"podSelector": policy["podSelector"]}]}]
    assert {"to": [{"podSelector": policy["podSelector"]}]} in policy["egress"]


def test_an_installation_may_do_without_network_policies() -> None:
    bare = Installation("strop-system", "image", "https://progress:8443", network_policy=False)
    assert [child["kind"] for child in build_applied(make_plan(), OWNER, bare)] == ["ConfigMap", "Service"]


def test_a_model_version_is_a_record_that_outlives_its_job() -> None:
    published = termination().published
    assert published is not None
    manifest = build_model_version(make_plan(), OWNER, published, version_name(published), "2026-01-01T00:05:00Z")
    assert manifest["metadata"]["name"] == "support-bot-v1"
    assert "ownerReferences" not in manifest["metadata"]
    record = ModelVersionSpec.model_validate(json.loads(json.dumps(manifest["spec"])))
    assert record.registry.path == f"{NAMESPACE}/{JOB}/1"
    assert record.job.uid == JOB_UID
    assert {metric.name: (metric.base, metric.tuned) for metric in record.metrics} == {
        "exact_match": (0.0, 0.6),
        "eval_loss": (2.5, 0.8),
    }
    assert record.proofs[0].artifact == "onnx/fp32"


def test_a_revision_is_kept_and_a_metric_may_have_one_side() -> None:
    published = termination(metricsBase={}, metricsTuned={"rouge": 0.5}).published
    assert published is not None
    plan = make_plan({"model": {"source": "hf://owner/name", "revision": "abc"}})
    manifest = build_model_version(plan, OWNER, published, "x", "2026-01-01T00:05:00Z")
    assert manifest["spec"]["baseModel"]["revision"] == "abc"
    fetched = published.model_copy(update={"base_commit": "f" * 40})
    manifest = build_model_version(plan, OWNER, fetched, "x", "2026-01-01T00:05:00Z")
    assert manifest["spec"]["baseModel"]["revision"] == "f" * 40
    assert manifest["spec"]["metrics"] == [{"name": "rouge", "tuned": 0.5}]
    signed = {"source": "https://host/m.tar.gz?signature=hidden", "sha256": "a" * 64}
    manifest = build_model_version(make_plan({"model": signed}), OWNER, published, "x", "2026-01-01T00:05:00Z")
    assert manifest["spec"]["baseModel"]["source"] == "https://host/m.tar.gz"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"a": 1, "b": [{"c": 2, "added": True}], "added": {}}, False),
        ({"a": 2, "b": [{"c": 2}]}, True),
        ({"b": [{"c": 2}]}, True),
        ({"a": 1, "b": [{"c": 2}, {"c": 3}]}, True),
        ({"a": 1, "b": "text"}, True),
        ("text", True),
        (None, True),
    ],
)
def test_drift_is_what_we_set_and_someone_changed(found: object, expected: bool) -> None:
    assert drifted({"a": 1, "b": [{"c": 2}]}, found) is expected


def test_an_empty_list_that_the_server_leaves_out_is_no_drift() -> None:
    assert not drifted({"ingress": []}, {})
    assert drifted({"ingress": []}, {"ingress": [{}]})
