"""The rules of the house: what may import what, what may lie where, what the locks hold."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from strop.api.crdgen import RESOURCES
from strop.api.names import API_VERSION
from strop.cli.yaml11 import load_all
from tests.support.paths import REPOSITORY

PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
REQUIREMENTS = REPOSITORY / "requirements"
LOCKED_EXTRAS = {"operator": ["operator"], "trainer": ["trainer"], "dev": ["operator", "trainer", "dev"]}
LOCKS = sorted(REQUIREMENTS.glob("*.txt"))

TRAINING_STACK = {"torch", "transformers", "peft", "trl", "accelerate", "datasets", "onnx", "onnxruntime"}
CLUSTER_STACK = {"kopf", "kubernetes", "strop"}

MODELS = {model.__name__: model for model in RESOURCES}


def test_no_package_shadows_the_standard_librarys_operator() -> None:
    assert not (REPOSITORY / "operator" / "__init__.py").exists()
    here = "import operator; print(operator.__file__)"
    told = subprocess.run([sys.executable, "-c", here], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not told.stdout.startswith(str(REPOSITORY))


def test_the_floors_of_the_house_are_kept() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


def imported_with(package: str, *, without: tuple[str, ...] = ()) -> set[str]:
    """Returns the top-level packages that are loaded when every module of a package is."""
    program = (
        "import importlib, json, pkgutil, sys\n"
        f"package = importlib.import_module({package!r})\n"
        "for found in pkgutil.walk_packages(getattr(package, '__path__', []), package.__name__ + '.'):\n"
        f"    if not found.name.endswith('__main__') and found.name not in {without!r}:\n"
        "        importlib.import_module(found.name)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd="/", capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout))


@pytest.mark.parametrize("room", ["api", "planning", "desired", "decide", "cluster", "progress", "controller", "cli"])
def test_no_room_of_the_operator_loads_the_training_stack(room: str) -> None:
    assert imported_with(f"strop.{room}") & TRAINING_STACK == set()


@pytest.mark.parametrize("room", ["api", "planning", "desired", "decide", "cli"])
def test_what_works_without_a_cluster_loads_no_client(room: str) -> None:
    assert imported_with(f"strop.{room}") & {"kopf", "kubernetes"} == set()


@pytest.mark.parametrize("module", ["plan", "exit_codes", "termination"])
def test_the_contract_with_the_trainer_loads_neither_side(module: str) -> None:
    assert imported_with(f"strop_trainer.{module}") & (TRAINING_STACK | CLUSTER_STACK) == set()


def test_kopf_is_named_in_one_file() -> None:
    named = [
        path.name
        for path in (REPOSITORY / "operator" / "strop").rglob("*.py")
        if re.search(r"^\s*(import|from) kopf\b", path.read_text(), re.MULTILINE)
    ]
    assert named in ([], ["kopf_app.py"])


def locked(path: Path) -> dict[str, list[Requirement]]:
    """Returns what a lock pins, by normalised name: a name may have several lines, with markers."""
    pins: dict[str, list[Requirement]] = {}
    for line in re.sub(r"\\\n", " ", path.read_text()).splitlines():
        text = line.split("--hash")[0].strip()
        if text and not text.startswith("#"):
            pin = Requirement(text)
            pins.setdefault(normalised(pin.name), []).append(pin)
    return pins


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.name))
def test_a_lock_pins_by_hash_and_names_no_address(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"://|--(index-url|extra-index-url|find-links|trusted-host)| @ |^-[eif]\b", text, re.MULTILINE)
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"[A-Za-z0-9_.\[\]-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line), line


@pytest.mark.parametrize("name", LOCKED_EXTRAS)
def test_a_lock_holds_every_dependency_at_a_version_that_is_allowed(name: str) -> None:
    pins = locked(REQUIREMENTS / f"{name}.txt")
    wanted = [*PROJECT["dependencies"], *(each for extra in LOCKED_EXTRAS[name] for each in EXTRAS[extra])]
    for each in wanted:
        requirement = Requirement(each)
        found = pins.get(normalised(requirement.name))
        assert found, f"{each}: not in requirements/{name}.txt; run: make lock"
        for pin in found:
            (version,) = (specifier.version for specifier in pin.specifier)
            assert requirement.specifier.contains(version, prereleases=True), f"{each}: locked at {version}"


def test_the_development_lock_agrees_with_the_others() -> None:
    development = locked(REQUIREMENTS / "dev.txt")
    for name in ("operator", "trainer"):
        for package, pins in locked(REQUIREMENTS / f"{name}.txt").items():
            versions = {str(pin.specifier) for pin in pins}
            assert versions <= {str(pin.specifier) for pin in development[package]}, package


def test_the_operators_lock_holds_no_training_stack_and_the_trainers_no_client() -> None:
    assert set(locked(REQUIREMENTS / "operator.txt")) & TRAINING_STACK == set()
    assert set(locked(REQUIREMENTS / "trainer.txt")) & CLUSTER_STACK == set()


def example_documents() -> list[tuple[str, dict[str, Any]]]:
    """Returns our resources in the examples, each with its file."""
    return [
        (str(path.relative_to(REPOSITORY)), document)
        for path in sorted((REPOSITORY / "examples").rglob("*.yaml"))
        for document in load_all(path.read_text())
        if isinstance(document, dict) and document.get("apiVersion") == API_VERSION
    ]


def test_the_examples_are_valid_and_named_as_files_are() -> None:
    documents = example_documents()
    assert "FineTuneJob" in {document["kind"] for _, document in documents}
    for name, document in documents:
        assert re.fullmatch(r"[a-z0-9]+([-/][a-z0-9]+)*\.yaml", name), name
        MODELS[document["kind"]].model_validate(document)
