"""The generated reference is what the code says, and has a word for everything that the code has a name for."""

from pathlib import Path

import pytest

from docs import code_reference, crd_reference, generate
from strop.api.finetunejob import FineTuneJob
from strop.api.names import Condition, Phase, Reason
from strop.api.reasons import CONDITIONS, PHASES, REASONS
from strop_trainer.exit_codes import DESCRIPTIONS, ExitCode
from tests.support.paths import REPOSITORY


def constants(group: type) -> set[str]:
    return {value for name, value in vars(group).items() if name.isupper()}


def test_the_pages_are_what_the_code_says() -> None:
    sources = (crd_reference.files, code_reference.files)
    assert list(generate.drift(REPOSITORY, sources)) == [], "run: make docs"


def test_drift_tells_what_is_missing_and_what_differs(tmp_path: Path) -> None:
    pages = {Path("docs/a.md"): "a\n", Path("docs/b.md"): "b\n", Path("docs/c.md"): "c\n"}
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text("a\n")
    (tmp_path / "docs/b.md").write_text("old\n")
    assert generate.drift(tmp_path, (lambda: pages,)) == {Path("docs/b.md"): "b\n", Path("docs/c.md"): "c\n"}


@pytest.mark.parametrize(
    ("group", "meanings"),
    [(Phase, PHASES), (Condition, CONDITIONS), (Reason, REASONS)],
    ids=["phase", "type", "reason"],
)
def test_every_name_has_a_meaning(group: type, meanings: dict[str, str]) -> None:
    assert set(meanings) == constants(group), "operator/strop/api/reasons.py: describe it"
    page = code_reference.conditions_page()
    assert all(f"| `{name}` | {meaning} |" in page for name, meaning in meanings.items())


def test_every_exit_code_has_a_meaning() -> None:
    assert set(DESCRIPTIONS) == set(ExitCode)
    assert "| 75 | PREEMPTED | yes |" in code_reference.exit_codes_page()
    assert "| 65 | BAD_DATA | no |" in code_reference.exit_codes_page()


def test_the_page_of_a_field_tells_type_default_bounds_and_meaning() -> None:
    page = crd_reference.page(FineTuneJob)
    assert "| `rank` | integer |  | ≥ 1; ≤ 1024 | Rank r of the adapter's matrices" in page
    assert '| `method` | object | `{"type": "lora"}` |' in page
    assert "| `source` **required** | string |  | 1 to 1024 characters;" in page
    assert "## `spec.dataset.validation[]`" in page
    assert "- `maxSteps`: not together with epochs" in page


def test_the_rules_of_a_page_come_after_its_fields() -> None:
    page = crd_reference.page(FineTuneJob)
    rules = page.index("## Rules\n")
    assert page.rindex("\n| `") < rules
    assert page.index("- `method.type`: ranks share the training of") > rules
    assert page.index("- `metadata.name`: a job's name has") > rules
    assert page.index("- `maxSteps`: not together with epochs") < rules, "what one part asks stands with its fields"
