"""From kubectl apply to a proven model in the registry volume, on real nodes."""

import json

import pytest

from strop.api.modelversion import ModelVersionSpec
from strop_trainer.documents import TrainingDocument
from tests.support.team import TRAIN_SECONDS, Team
from tests.support.waiting import wait_until

pytestmark = pytest.mark.cluster


def test_a_job_becomes_a_proven_version(team: Team) -> None:
    team.apply("tune")
    seen: set[str] = set()

    def done() -> bool:
        status = team.status("tune")
        seen.add(str((status.get("progress") or {}).get("stage")))
        return status.get("phase") in ("Complete", "Failed")

    wait_until(done, "the job ends", TRAIN_SECONDS)
    status = team.status("tune")
    assert status["phase"] == "Complete", status["message"]
    assert seen & {"prepare", "train", "evaluate", "export", "prove"}, "progress came from the pod"
    assert status["progress"]["totalSteps"] == 6
    assert status["attempts"] == 1

    version = team.kubectl.get("modelversion", "tune-v1", "-n", team.namespace)
    record = ModelVersionSpec.model_validate(version["spec"])
    assert record.registry.path == f"{team.namespace}/tune/1"
    assert record.plan_digest == status["planDigest"]
    assert all(proof.passed for proof in record.proofs)
    folder = f"/strop-models/{record.registry.path}"
    manifest = json.loads(team.on_shelf("cat", f"{folder}/manifest.json"))
    assert manifest
    assert team.on_shelf("sha256sum", f"{folder}/manifest.json").split()[0] == record.registry.manifest_sha256
    assert "model.onnx" in team.on_shelf("ls", "-R", f"{folder}/onnx")
    columns = team.kubectl("get", "ftj", "tune", "-n", team.namespace, check=True).stdout
    assert "Complete" in columns
    assert "100%" in columns


def test_the_next_job_of_that_name_in_the_registry_is_version_2(team: Team) -> None:
    team.apply("tune-again", output={"model": "tune", "onnx": {"precisions": ["fp32"]}})
    status = team.reaches("tune-again", "Complete", TRAIN_SECONDS)
    assert status["modelVersion"]["version"] == 2
    assert status["modelVersion"]["name"] == "tune-v2"


def test_a_deleted_job_leaves_its_version(team: Team) -> None:
    team.delete("tune")
    wait_until(lambda: not team.job("tune"), "the job is gone", 15)
    assert team.names("pod", "", "tune") == []
    wait_until(lambda: team.names("pvc", "", "tune") == [], "its work claim is gone")
    assert "tune-v1" in team.names("modelversion", "strop.dev")
    assert team.on_shelf("ls", f"/strop-models/{team.namespace}/tune/1/manifest.json")


def test_two_ranks_share_one_pod(team: Team) -> None:
    team.apply(
        "ranks",
        distributed={"processesPerNode": 2, "strategy": "ddp"},
        output={"onnx": {"enabled": False}},
        compute={"pool": "cpu", "resources": {"memory": "3Gi"}},
    )
    # It takes a CPU a rank, all of the node, and may wait for a job of another test.
    status = team.reaches("ranks", "Complete", 2 * TRAIN_SECONDS)
    assert status["attempts"] == 1
    assert len(team.names("pod", "", "ranks")) == 1
    folder = f"/strop-models/{team.namespace}/ranks/1"
    training = TrainingDocument.model_validate_json(team.on_shelf("cat", f"{folder}/training.json"))
    assert [used.rank for used in training.ranks] == [0, 1]
    assert all(used.cpu_seconds > 0 for used in training.ranks)
    assert "adapter_model.safetensors" in team.on_shelf("ls", f"{folder}/adapter")
