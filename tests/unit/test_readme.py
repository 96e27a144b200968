"""What the README and the tutorial show is what there is."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.cli import runner
from tests.support.paths import REPOSITORY

PAGES = ["README.md", "CONTRIBUTING.md", "docs/tutorial.md", "docs/architecture.md"]
QUICKSTART = REPOSITORY / "examples" / "quickstart.yaml"


def blocks(page: str) -> list[str]:
    """Return the indented command lines of a page, comments cut."""
    lines = re.findall(r"^ {4}(\S.*)$", (REPOSITORY / page).read_text(encoding="utf-8"), flags=re.M)
    return [line.partition(" #")[0].strip() for line in lines]


def commands(prefix: str) -> list[str]:
    return sorted({line for page in PAGES for line in blocks(page) if line.startswith(prefix + " ")})


def test_the_job_in_the_readme_is_the_quickstart() -> None:
    shown = re.search(r"```yaml\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), flags=re.S)
    assert shown
    assert shown[1] == QUICKSTART.read_text(encoding="utf-8").partition("---\n")[0]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    folder = (REPOSITORY / page).parent
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", (REPOSITORY / page).read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (folder / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    named = {word for shown in re.findall(r"(?:`| {4})make ([a-z -]+)", text) for word in shown.split()}
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    assert named - targets == set()


@pytest.mark.parametrize(
    "line",
    [
        line
        for line in commands("strop validate") + commands("strop plan") + commands("strop estimate")
        if "--data" not in line  # needs the converted model
    ],
)
def test_commands_without_a_cluster_work_as_shown(
    line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    answer = runner(monkeypatch, capfd)(*shlex.split(line)[1:])
    assert answer.code == 0, answer.err


@pytest.mark.parametrize("line", [*commands("kubectl"), *commands("helm"), *commands("strop")])
def test_files_that_commands_name_exist(line: str) -> None:
    named = [word for word in shlex.split(line) if re.match(r"(examples|charts|docs|tests)/", word)]
    assert [name for name in named if not (Path(REPOSITORY) / name).exists()] == []
