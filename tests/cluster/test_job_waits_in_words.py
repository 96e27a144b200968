"""A job that cannot run yet says why, in words that a kubelet or a scheduler gave; and goes on when it can."""

import base64

import pytest

from tests.support.team import RESOURCES, TRAIN_SECONDS, Team
from tests.support.waiting import wait_until

pytestmark = pytest.mark.cluster


def test_no_node_that_fits(team: Team) -> None:
    pool = {"apiVersion": "strop.dev/v1alpha1", "kind": "ComputePool", "metadata": {"name": "far-away"}}
    spec = {"cpuPerNode": "64", "memoryPerNode": "1Ti", "nodeSelector": {"strop.dev/pool": "none"}, "cost": 1000}
    team.kubectl.apply({**pool, "spec": spec})
    try:
        team.apply("far", compute={"pool": "far-away", "resources": RESOURCES})
        team.says("far", "no node fits: 0/")
        assert team.condition("far", "Running") == ("False", "Unschedulable")
    finally:
        team.kubectl("delete", "computepool", "far-away", check=True)
    team.delete("far")
    wait_until(lambda: not team.job("far"), "the job is gone", 15)


def test_an_image_that_is_not_there(team: Team) -> None:
    team.apply("no-image", compute={"pool": "cpu", "resources": RESOURCES, "image": "localhost/missing:1"})
    team.says("no-image", "the image localhost/missing:1 cannot be pulled")
    assert team.condition("no-image", "Running") == ("False", "ImagePull")
    team.delete("no-image")
    wait_until(lambda: not team.job("no-image"), "the job is gone", 15)


def test_a_secret_that_comes_later(team: Team) -> None:
    team.apply("no-secret", credentials={"name": "hub"})
    team.says("no-secret", 'secret "hub" not found')
    assert team.condition("no-secret", "Running") == ("False", "SecretNotFound")
    data = {"HF_TOKEN": base64.b64encode(b"token").decode()}
    team.core.create_namespaced_secret(team.namespace, {"metadata": {"name": "hub"}, "data": data})
    team.reaches("no-secret", "Complete", TRAIN_SECONDS)


def test_a_claim_that_nothing_provisions(team: Team) -> None:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "no-such-class",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    team.core.create_namespaced_persistent_volume_claim(
        team.namespace, {"metadata": {"name": "unprovisioned"}, "spec": spec}
    )
    team.apply("unbound", model={"source": "pvc://unprovisioned/model", "parameters": "1M"})
    team.says("unbound", "not bound to a volume yet: claim unprovisioned (")
    assert team.condition("unbound", "Running") == ("False", "ClaimUnbound")
    team.delete("unbound")
    wait_until(lambda: not team.job("unbound"), "the job is gone", 15)
