"""Every bound, default and rule of the CRDs on a real API server: what it takes, and what it refuses and why."""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.apiserver import ApiServer
from tests.support.crd.bounds import BOUNDS
from tests.support.crd.cases import ASIDE, Bound, RuleCase, Transition
from tests.support.crd.changes import MUTABLE, TRANSITIONS
from tests.support.crd.defaults import DEFAULTS
from tests.support.crd.documents import ABSENT, FULL, MINIMAL, place, place_all
from tests.support.crd.rules import RULES
from tests.support.crd_schema import KINDS, parts, root, wrong_value
from tests.support.objects import Cause, Objects, RefusedError, objects
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.api

Document = dict[str, Any]

WORDS = {
    "minLength": "should be at least",
    "maxLength": "Too long",
    "pattern": "should match",
    "form": ", allowed: ",
    "minimum": "should be greater than",
    "maximum": "should be less than",
    "minItems": "should have at least",
    "maxItems": "Too many",
    "maxProperties": "Too many",
    "enum": "Unsupported value",
}


@pytest.fixture(scope="module")
def crds(apiserver: ApiServer) -> ApiServer:
    """The server with our CRDs."""
    apiserver.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"), check=True)
    apiserver.kubectl.wait("condition=Established", *(f"crd/{plural}.strop.dev" for plural in KINDS.values()))
    return apiserver


@pytest.fixture(scope="module")
def resources(crds: ApiServer) -> Iterator[Objects]:
    with objects(crds.kubeconfig) as found:
        yield found


@contextmanager
def stored(resources: Objects, document: Document) -> Iterator[Document]:
    """Yields an object that is really there."""
    answer = resources.create(document, dry_run=False)
    try:
        yield answer
    finally:
        resources.delete(document)


@pytest.fixture(scope="module")
def full_job(resources: Objects) -> Iterator[Document]:
    """A stored job that has a status."""
    with stored(resources, place(FULL["FineTuneJob"], "metadata.name", "with-status")) as answer:
        answer["status"] = copy.deepcopy(FULL["FineTuneJob"]["status"])
        yield resources.replace_status(answer, dry_run=False)


@pytest.fixture
def refusals(resources: Objects, full_job: Document) -> "Refusals":
    return Refusals(resources, full_job)


class Refusals:
    """Asks the server what it has against a document."""

    def __init__(self, resources: Objects, full_job: Document) -> None:
        self._resources = resources
        self._full_job = full_job

    def of(self, document: Document, path: str) -> list[Cause]:
        """Returns why a document is refused, if it is; what is asked about a status goes by the status subresource."""
        try:
            if path.startswith("status"):
                self._resources.replace_status({**self._full_job, "status": document["status"]})
            else:
                self._resources.create(document)
        except RefusedError as refused:
            return refused.causes
        return []


def field_of(path: str) -> str:
    """Returns what the server calls the first item of a path, as a regular expression."""
    return re.escape(path).replace(r"\[\]", r"\[0\]").replace(r"\{\}", r"(\..+|\[.+\])")


def beyond(causes: list[Cause]) -> list[Cause]:
    """Returns what speaks against a document beside what this version cannot do yet."""
    return [cause for cause in causes if not any(words in cause.message for words in ASIDE)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("documents", [FULL, MINIMAL], ids=["full", "minimal"])
def test_takes_the_document(resources: Objects, kind: str, documents: dict[str, Document]) -> None:
    resources.create(documents[kind])


@pytest.mark.parametrize("case", BOUNDS, ids=lambda case: f"{case.kind}:{case.path}")
def test_bound(refusals: Refusals, case: Bound) -> None:
    base = place_all(FULL[case.kind], case.beside)
    for value in case.accept:
        found = refusals.of(place(base, case.path, value), case.path)
        assert beyond(found) == [], (value, found)
        assert bool(found) <= case.not_yet, (value, found)
    for word, value in case.reject.items():
        found = refusals.of(place(base, case.path, value), case.path)
        assert any(
            re.fullmatch(field_of(case.path), cause.field) and WORDS[word] in cause.message for cause in found
        ), (
            word,
            value,
            found,
        )


@pytest.mark.parametrize("case", RULES, ids=lambda case: f"{case.kind}:{case.path}{case.field_path}:{case.message}")
def test_rule(refusals: Refusals, case: RuleCase) -> None:
    for patch in case.accept:
        found = refusals.of(place_all(FULL[case.kind], patch), case.path)
        assert beyond(found) == [], (patch, found)
        assert bool(found) <= case.only_not_yet, (patch, found)
    blamed = field_of((case.path + case.field_path).removeprefix("."))
    for patch in case.reject:
        found = refusals.of(place_all(FULL[case.kind], patch), case.path)
        assert any(re.fullmatch(blamed, cause.field) and case.message in cause.message for cause in found), (
            patch,
            found,
        )


@pytest.mark.parametrize(
    "case", TRANSITIONS, ids=lambda case: f"{case.kind}:{case.path}{case.field_path}-{len(case.before)}"
)
def test_transition(resources: Objects, case: Transition) -> None:
    blamed = (case.path + case.field_path).removeprefix(".")
    before = place_all(FULL[case.kind], {"metadata.name": "transition", **case.before})
    with stored(resources, before) as old:
        resources.replace(old)
        for patch in case.reject:
            with pytest.raises(RefusedError) as refused:
                resources.replace(place_all(old, patch))
            assert any(cause.field == blamed and case.message in cause.message for cause in refused.value.causes), patch


@pytest.mark.parametrize("kind", KINDS)
def test_takes_a_change_that_is_allowed(resources: Objects, kind: str) -> None:
    with stored(resources, place(FULL[kind], "metadata.name", "mutable")) as old:
        for patch in MUTABLE[kind]:
            resources.replace(place_all(old, patch))


@pytest.mark.parametrize("kind", KINDS)
def test_puts_the_defaults(resources: Objects, kind: str) -> None:
    for path, value in DEFAULTS[kind].items():
        if path.endswith("[].operator"):
            answer = resources.create(place(FULL[kind], path.removesuffix(".operator"), {"key": "a"}))
        else:
            answer = resources.create(place(FULL[kind], path, ABSENT))
        assert place(answer, path, value) == answer, path


def test_a_null_is_a_field_left_out(resources: Objects) -> None:
    document = place_all(MINIMAL["FineTuneJob"], {"spec.training.epochs": None, "spec.backoffLimit": None})
    answer = resources.create(document)
    assert answer["spec"]["training"] == {}
    assert answer["spec"]["backoffLimit"] == 3


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_a_wrong_type_in_every_field(refusals: Refusals, kind: str) -> None:
    beside = {case.path: case.beside for case in BOUNDS if case.kind == kind}
    for path, part in parts(root(kind)):
        if "." not in path:
            continue
        document = place(place_all(FULL[kind], beside.get(path, {})), path, wrong_value(part))
        found = refusals.of(document, path)
        assert any(
            re.fullmatch(field_of(path), cause.field) and "must be of type" in cause.message for cause in found
        ), (path, found)


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_an_object_without_what_it_needs(refusals: Refusals, kind: str) -> None:
    for path, part in parts(root(kind)):
        for name in part.get("required", ()):
            where = f"{path}.{name}".removeprefix(".")
            found = refusals.of(place(FULL[kind], where, ABSENT), where)
            assert any(
                re.fullmatch(field_of(where), cause.field) and "Required value" in cause.message for cause in found
            ), (where, found)


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_an_unknown_field_everywhere(resources: Objects, kind: str) -> None:
    for path, part in parts(root(kind)):
        if "properties" in part and path.startswith("spec") and not path.startswith("spec.method.prompt"):
            with pytest.raises(RefusedError, match='strict decoding error: unknown field "') as refused:
                resources.create(place(FULL[kind], f"{path}.surprise", 1))
            assert "surprise" in refused.value.text
