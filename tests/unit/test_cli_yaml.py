"""YAML as kubectl reads it."""

import pytest
import yaml

from strop.cli.yaml11 import load_all
from tests.support.yaml_cases import differences, manifest


def test_every_scalar_is_what_kubectl_makes_of_it() -> None:
    (document,) = load_all(manifest())
    assert differences(document["spec"]) == {}


@pytest.mark.parametrize("value", [".inf", "-.Inf", "+.INF", ".nan"])
def test_what_json_cannot_hold_is_refused_with_its_line(value: str) -> None:
    with pytest.raises(yaml.MarkedYAMLError, match="no number that JSON can hold") as refused:
        load_all(f"a: 1\nb: {value}\n")
    assert refused.value.problem_mark is not None
    assert refused.value.problem_mark.line == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", "a: given twice"),
        ("~: 1\n", "a key must be text"),
        ("[1]: 1\n", "a key must be text"),
        ("<<: 3\n", "only an object can be merged"),
        ("a: !!binary '***'\n", "!!binary"),
        ("a: !!python/object:os.system x\n", "could not determine a constructor"),
        ("a: [1\n", "expected"),
        ("\ta: 1\n", "cannot start any token"),
    ],
)
def test_wrong_yaml_is_refused_with_a_place(text: str, words: str) -> None:
    with pytest.raises(yaml.MarkedYAMLError, match=words) as refused:
        load_all(text)
    assert refused.value.problem_mark is not None


def test_documents_that_are_empty_are_passed_over() -> None:
    assert load_all("---\n# nothing\n---\na: 1\n---\n---\nb: 2\n...\n") == [{"a": 1}, {"b": 2}]


def test_json_is_yaml() -> None:
    assert load_all('{"a": {"b": [1, 2.5, true, null, "x"]}}') == [{"a": {"b": [1, 2.5, True, None, "x"]}}]


def test_an_anchor_may_be_used_again() -> None:
    assert load_all("a: &x {b: 1}\nc: *x\n") == [{"a": {"b": 1}, "c": {"b": 1}}]
