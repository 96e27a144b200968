import uuid
from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster, image_archive
from tests.support.team import Team, release


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


@pytest.fixture(scope="module")
def team(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A namespace with a tiny model, in a cluster that has the operator; removed afterwards."""
    with release(cluster):
        team = Team(cluster, f"team-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("model"))
        yield team
        for job in team.names("finetunejob", "strop.dev"):
            team.delete(job)
        team.close()
        cluster.kubectl("delete", "namespace", team.namespace, "--timeout=120s", check=True)
