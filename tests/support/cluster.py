"""The two-node cluster of tests/cluster, for tests."""

import subprocess
from pathlib import Path

from tests.support.kubectl import Kubectl
from tests.support.paths import CACHE, CLUSTER_SCRIPTS, binaries

UP_SECONDS = 600.0
LOAD_SECONDS = 600.0
OPERATOR_IMAGE = "localhost/strop-operator:dev"
TRAINER_IMAGE = "localhost/strop-trainer:dev"
BASE_IMAGE = "localhost/strop-base:dev"
CPU_NODE = "cpu-0"
GPU_NODE = "fake-gpu-0"


class Cluster:
    """A cluster that is up.

    Attributes:
        kubeconfig: Credentials of a cluster administrator.
        kubectl: kubectl with these credentials.
    """

    def __init__(self) -> None:
        self.kubeconfig = CACHE / "cluster" / "kubeconfig"
        self.kubectl = Kubectl(binaries() / "kubectl", self.kubeconfig)

    def up(self) -> None:
        """Brings the cluster up, or repairs it.

        Raises:
            AssertionError: It did not come up; what ``up`` said is in the message.
        """
        _run("up", timeout=UP_SECONDS)

    def down(self) -> None:
        """Stops the cluster and keeps its state."""
        _run("down", timeout=UP_SECONDS)

    def is_up(self) -> bool:
        """Returns whether the API server answers."""
        return self.kubeconfig.exists() and self.kubectl("get", "--raw", "/readyz", timeout=30).returncode == 0

    def load(self, *archives: Path) -> None:
        """Imports image archives into all nodes that do not have them.

        Raises:
            AssertionError: A node refused one.
        """
        _run("load-image", *map(str, archives), timeout=LOAD_SECONDS)

    def enter(self, node: str, *command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs a command in the namespaces of a node, or of ``control-plane``.

        Raises:
            AssertionError: It ended with an error.
        """
        return _run("enter", node, *command, timeout=timeout)


def image_archive(name: str) -> Path:
    """Returns the newest archive of an image, such as ``strop-operator``."""
    return CACHE / "images" / f"{name}.tar"


def _run(script: str, *args: str, timeout: float) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [CLUSTER_SCRIPTS / script, *args], capture_output=True, text=True, check=False, timeout=timeout
    )
    assert result.returncode == 0, f"{script} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
    return result
