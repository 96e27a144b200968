"""What the tests of this folder share."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of resuming first: they fork, which a process must not do once torch has started its threads."""
    items.sort(key=lambda item: item.path.name != "test_resume.py")
