"""A real API server with the chart installed, as the operator meets it."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.apiserver import ApiServer
from tests.support.helm import CHART, NAMESPACE, RELEASE, helm

POOL = {"name": "cpu", "spec": {"cpuPerNode": "8", "memoryPerNode": "32Gi"}}


@contextmanager
def installed_server() -> Iterator[ApiServer]:
    """A server with an audit log and the chart's roles, CRDs and one pool; no operator runs yet."""
    with ApiServer(audit=True) as server:
        helm(
            *("install", RELEASE, CHART, "--namespace", NAMESPACE, "--create-namespace", "--wait=hookOnly"),
            values={"pools": [POOL]},
            kubeconfig=server.kubeconfig,
        )
        yield server
