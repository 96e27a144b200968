"""The pages on presets, automatic values and the command line are what the code says."""

from docs import code_reference, generate, planning_reference
from strop.planning.presets import PRESETS
from strop_trainer.exit_codes import ExitCode
from tests.support.paths import REPOSITORY


def test_the_pages_are_what_the_code_says() -> None:
    assert list(generate.drift(REPOSITORY, (planning_reference.files,))) == [], "run: make docs"


def test_every_preset_and_every_exit_code_has_its_line() -> None:
    assert all(f"| {preset.name} |" in planning_reference.models_page() for preset in PRESETS)
    assert all(f"| {code.value} |" in code_reference.exit_codes_page() for code in ExitCode)
    assert "](exit-codes.md)" in planning_reference.cli_page()


def test_the_page_of_the_command_line_has_its_own_options() -> None:
    page = planning_reference.cli_page()
    assert "--version" in page.partition("## `strop validate`")[0]
