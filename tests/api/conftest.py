from collections.abc import Iterator

import pytest

from tests.support.apiserver import ApiServer


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ApiServer]:
    """A real API server, shared by all tests of a run: each makes its own namespace."""
    with ApiServer() as server:
        yield server
