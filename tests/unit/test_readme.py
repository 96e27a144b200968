"""What the README and the tutorial show is what there is; the links of all pages lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.cli import runner
from tests.support.paths import REPOSITORY

DOCS = REPOSITORY / "docs"
ENTRIES = ["README.md", "CONTRIBUTING.md", "docs/tutorial.md", "docs/architecture.md"]
"""Pages whose commands are those of a clone of this repository."""
PAGES = sorted({*ENTRIES, "examples/README.md", *(str(p.relative_to(REPOSITORY)) for p in DOCS.rglob("*.md"))})
QUICKSTART = REPOSITORY / "examples" / "quickstart.yaml"


def blocks(page: str) -> list[str]:
    """Return the indented command lines of a page, comments cut."""
    lines = re.findall(r"^ {4}(\S.*)$", (REPOSITORY / page).read_text(encoding="utf-8"), flags=re.M)
    return [line.partition(" #")[0].strip() for line in lines]


def commands(prefix: str) -> list[str]:
    return sorted({line for page in ENTRIES for line in blocks(page) if line.startswith(prefix + " ")})


def test_the_job_in_the_readme_is_the_quickstart() -> None:
    shown = re.search(r"```yaml\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), flags=re.S)
    assert shown
    assert shown[1] == QUICKSTART.read_text(encoding="utf-8").partition("---\n")[0]


def anchors(page: Path) -> set[str]:
    """Returns the names of a page's headings, as GitHub makes them; of two that are equal the second one has -1."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.M):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.append(f"{name}-{seen}" if (seen := found.count(name)) else name)
    return set(found)


def links(page: Path) -> list[str]:
    """Returns what a page links to in this repository; code is no link."""
    text = re.sub(r"```.*?```|`[^`\n]*`(?!\]\()", "", page.read_text(encoding="utf-8"), flags=re.S)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


def leads_somewhere(link: str, page: Path) -> bool:
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    return target.exists() and (not anchor or target.suffix != ".md" or anchor in anchors(target))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = REPOSITORY / page
    assert [link for link in links(path) if not leads_somewhere(link, path)] == []


def test_every_page_is_linked_from_the_readme_or_a_page_that_is() -> None:
    seen: set[Path] = set()
    waiting = [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    assert sorted(str(page.relative_to(DOCS)) for page in set(DOCS.rglob("*.md")) - seen) == []


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
