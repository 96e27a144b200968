"""What the tests of this folder share."""

from collections.abc import Iterator

import pytest

from tests.support.apiserver import ApiServer
from tests.support.helm import NAMESPACE, RELEASE
from tests.support.installed import installed_server
from tests.support.operator import OperatorProcess


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ApiServer]:
    """A real API server, shared by all tests of a run: each makes its own namespace."""
    with ApiServer() as server:
        yield server


@pytest.fixture(scope="module")
def installed() -> Iterator[ApiServer]:
    """A server with an audit log and the chart installed, of the module's own: the chart holds for a whole cluster."""
    with installed_server() as server:
        yield server


@pytest.fixture(scope="module")
def operator(installed: ApiServer) -> Iterator[OperatorProcess]:
    """One operator with exactly the rights that the chart gives it."""
    kubeconfig = installed.service_account_kubeconfig(NAMESPACE, RELEASE)
    with OperatorProcess(kubeconfig, NAMESPACE, lease_name=RELEASE) as process:
        yield process
