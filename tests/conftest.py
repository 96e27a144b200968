"""What all tests share."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker have all tests of a folder, where folders are dealt out (`--dist loadgroup`)."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.path.parent.name))
