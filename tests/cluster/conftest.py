import uuid
from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster, image_archive
from tests.support.team import Team, release
from tests.support.waiting import wait_until


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The two-node cluster, with our images; it is left as it was found, up or down."""
    cluster = Cluster()
    was_up = cluster.is_up()
    cluster.up()
    # Where an image is not built, the tests that need it fail with the image's name.
    cluster.load(*(path for name in ("strop-operator", "strop-trainer") if (path := image_archive(name)).exists()))
    yield cluster
    if not was_up:
        cluster.down()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own, which enforces the restricted Pod Security Standard."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name, check=True)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted", check=True)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", check=True)


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the operator, installed once for all tests that need it."""
    with release(cluster):
        yield cluster
        # What is being deleted needs the operator for its last step.
        wait_until(lambda: not ending(cluster), "the deleted jobs are gone", 120)


def ending(cluster: Cluster) -> list[str]:
    """Returns the jobs that are being deleted."""
    found = cluster.kubectl.get("finetunejobs", "--all-namespaces")["items"]
    return [job["metadata"]["name"] for job in found if "deletionTimestamp" in job["metadata"]]


@pytest.fixture(scope="module")
def team(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A namespace with a tiny model, in the cluster with the operator; removed afterwards, and not waited for."""
    team = Team(installed, f"team-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("model"))
    yield team
    for job in team.names("finetunejob", "strop.dev"):
        team.delete(job)
    team.close()
    installed.kubectl("delete", "namespace", team.namespace, "--wait=false", check=True)
