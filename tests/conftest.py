"""How the tests are dealt out to workers."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ON_ONE_WORKER = ("api", "cluster", "fault")
"""Folders whose tests share a control plane, so that those of one folder go to one worker (`--dist loadgroup`)."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of a folder into a group of its name."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in ON_ONE_WORKER:
            item.add_marker(pytest.mark.xdist_group(folder))
