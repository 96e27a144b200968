"""What the tests of the command line share."""

from pathlib import Path

import pytest

from tests.support.cli import Strop, runner


@pytest.fixture
def strop(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Strop:
    """Give `strop` a home of its own, and start it in a folder of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("STROP_VOLUMES", raising=False)
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capfd)
