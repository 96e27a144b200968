"""How the tests are dealt out to workers."""

from pathlib import PurePosixPath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling


class FolderScheduling(LoadScopeScheduling):
    """Gives the tests of one folder, which share a control plane, to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        return str(PurePosixPath(nodeid.partition("::")[0]).parent)


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Let the scope of `--dist loadscope` be a folder.

    (`--dist loadgroup`, which is meant for this, forgets its groups with pytest 9.2: pytest-xdist issue 1386.)
    """
    return FolderScheduling(config, log) if config.getvalue("dist") == "loadscope" else None
