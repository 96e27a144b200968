"""The table of cases names every bound, default and rule of the CRDs; pydantic gives each the server's answer."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from strop.api.base import Resource
from strop.api.crdgen import RESOURCES
from strop.api.finetunejob import FineTuneJob
from tests.support.crd.bounds import BOUNDS
from tests.support.crd.cases import ASIDE, Bound, RuleCase, Transition
from tests.support.crd.changes import TRANSITIONS
from tests.support.crd.defaults import DEFAULTS
from tests.support.crd.documents import ABSENT, FULL, MINIMAL, place, place_all
from tests.support.crd.rules import RULES
from tests.support.crd_schema import KINDS, bounds, defaults, form, parts, root, rules, wrong_value

MODELS: dict[str, type[Resource]] = {model.__name__: model for model in RESOURCES}
ERROR_TYPES = {
    "minLength": {"string_too_short"},
    "maxLength": {"string_too_long"},
    "pattern": {"string_pattern_mismatch"},
    "form": {"form"},
    # An integer where text or an integer may stand is text here.
    "minimum": {"greater_than", "greater_than_equal", "form"},
    "maximum": {"less_than", "less_than_equal"},
    "minItems": {"too_short"},
    "maxItems": {"too_long"},
    "maxProperties": {"too_long"},
    "enum": {"literal_error"},
}
SIZED = ("Length", "Items", "Properties")


def errors(kind: str, document: dict[str, Any]) -> list[Any]:
    try:
        MODELS[kind].model_validate(document)
    except ValidationError as refused:
        return refused.errors()
    return []


def path_of(location: tuple[int | str, ...], path: str) -> bool:
    """Whether an error's location is the first item of a path."""
    wanted = [step for step in re.split(r"\.|(\[\]|\{\})", path) if step]
    return len(wanted) == len(location) and all(
        step in (at, "{}") or (step == "[]" and at == 0) for step, at in zip(wanted, location, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_bound_has_an_accept_and_a_reject_case(kind: str) -> None:
    named = {(case.path, word) for case in BOUNDS if case.kind == kind for word in case.reject}
    assert named == set(bounds(kind))
    assert all(case.accept for case in BOUNDS)


@pytest.mark.parametrize("case", BOUNDS, ids=lambda case: f"{case.kind}:{case.path}")
def test_the_cases_of_a_bound_stand_at_its_edge(case: Bound) -> None:
    part = dict(parts(root(case.kind)))[case.path]
    for word, refused in case.reject.items():
        value = form(part) if word == "form" else part[word]
        if word.endswith(SIZED):
            inside = [len(taken) for taken in case.accept if isinstance(taken, str | list | dict)]
            # The form may ask for more than the shortest length.
            assert value in inside or (word == "minLength" and ("pattern" in part or form(part)))
            assert len(refused) == value + (1 if word.startswith("max") else -1)
        elif word in ("minimum", "maximum"):
            taken = [each for each in case.accept if isinstance(each, int | float)]
            exclusive = part.get(f"exclusive{word.capitalize()}", False)
            assert refused == value if exclusive else value in taken
            if part.get("type") == "integer":
                assert abs(refused - value) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_has_an_accept_and_a_reject_case(kind: str) -> None:
    every: tuple[RuleCase | Transition, ...] = (*RULES, *TRANSITIONS)
    cases = [(case.path, case.field_path, case.message) for case in every if case.kind == kind]
    for rule in rules(kind):
        assert any(
            path == rule.path and field_path == rule.field_path and rule.message.startswith(message)
            for path, field_path, message in cases
        ), rule
    for path, field_path, message in cases:
        assert any(
            path == rule.path and field_path == rule.field_path and rule.message.startswith(message)
            for rule in rules(kind)
        ), (path, field_path, message)
    assert all(case.accept and case.reject for case in RULES)
    assert all(case.reject for case in TRANSITIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_default_is_in_the_table(kind: str) -> None:
    assert set(DEFAULTS[kind]) == set(defaults(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_full_document_has_every_field_that_may_stand_beside_the_others(kind: str) -> None:
    beside = {case.path for case in BOUNDS if case.beside}
    for path, part in parts(root(kind)):
        if not path or path in beside or path.endswith(("[]", "{}")) or path.startswith("spec.method.prompt"):
            continue
        if path == "spec.dataset.columns" or path.endswith("].revision") or path.endswith("].sha256"):
            continue
        assert place(FULL[kind], path, ABSENT) != FULL[kind], path
        assert part["description"], path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("documents", [FULL, MINIMAL], ids=["full", "minimal"])
def test_pydantic_takes_the_documents(kind: str, documents: dict[str, Any]) -> None:
    assert errors(kind, documents[kind]) == []


@pytest.mark.parametrize("case", BOUNDS, ids=lambda case: f"{case.kind}:{case.path}")
def test_pydantic_keeps_the_bound(case: Bound) -> None:
    base = place_all(FULL[case.kind], case.beside)
    for value in case.accept:
        found = errors(case.kind, place(base, case.path, value))
        assert all(case.not_yet and any(words in error["msg"] for words in ASIDE) for error in found), (value, found)
    for word, value in case.reject.items():
        found = errors(case.kind, place(base, case.path, value))
        assert any(error["type"] in ERROR_TYPES[word] and path_of(error["loc"], case.path) for error in found), (
            word,
            value,
            found,
        )


@pytest.mark.parametrize("case", RULES, ids=lambda case: f"{case.kind}:{case.path}{case.field_path}:{case.message}")
def test_pydantic_keeps_the_rule(case: RuleCase) -> None:
    for patch in case.accept:
        found = errors(case.kind, place_all(FULL[case.kind], patch))
        assert all(case.only_not_yet and any(words in error["msg"] for words in ASIDE) for error in found), (
            patch,
            found,
        )
    for patch in case.reject:
        found = errors(case.kind, place_all(FULL[case.kind], patch))
        if case.message == "keys have ":
            assert any("[key]" in error["loc"] for error in found), (patch, found)
        else:
            named = re.compile(rf"{re.escape(case.field_path[1:])}: (found [^;]+; )?{re.escape(case.message)}")
            assert any(named.search(error["msg"]) and path_of(error["loc"], case.path) for error in found), (
                patch,
                found,
            )


@pytest.mark.parametrize("kind", KINDS)
def test_pydantic_refuses_a_wrong_type(kind: str) -> None:
    for path, part in parts(root(kind)):
        if path.startswith("spec.") and (case := next((c for c in BOUNDS if (c.kind, c.path) == (kind, path)), None)):
            document = place(place_all(FULL[kind], case.beside), path, wrong_value(part))
            assert any(path_of(error["loc"], path) for error in errors(kind, document)), path


@pytest.mark.parametrize("kind", KINDS)
def test_pydantic_puts_the_same_defaults(kind: str) -> None:
    for path, value in DEFAULTS[kind].items():
        if path.endswith("[].operator"):
            document = place(FULL[kind], path.removesuffix(".operator"), {"key": "a"})
        else:
            document = place(FULL[kind], path, ABSENT)
        dumped = MODELS[kind].model_validate(document).model_dump(by_alias=True, exclude_none=True)
        assert place(dumped, path, value) == dumped, path


def test_a_null_is_a_field_left_out() -> None:
    document = place(MINIMAL["FineTuneJob"], "spec.training.epochs", None)
    document = place(document, "spec.backoffLimit", None)
    job = FineTuneJob.model_validate(document)
    assert job.spec.backoff_limit == 3
    assert job.spec.training is not None
    assert job.spec.training.epochs is None
