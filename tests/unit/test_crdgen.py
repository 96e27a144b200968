"""CRDs are what the types say, in words that the API server knows."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import yaml
from pydantic import Field, ValidationError

from strop.api import crdgen
from strop.api.base import ApiModel, CpuQuantity, Resource, ResourceType, Rule
from strop.api.crdgen import RESOURCES, definition, drift, structural
from strop.api.forms import Form
from strop.api.names import API_VERSION
from tests.support.crd_schema import defaults
from tests.support.paths import REPOSITORY


class Inner(ApiModel):
    """What is inside."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.a != 2", "is not 2", ".a", "FieldValueForbidden", lambda self: self.a != 2),
        Rule("self == oldSelf", "never changes"),
    )

    a: int = Field(default=1, description="A number.")


class OuterSpec(ApiModel):
    """Of all kinds."""

    inner: Inner = Field(default_factory=Inner, description="Inside.")
    maybe: Inner | None = Field(default=None, description="Perhaps inside.")
    many: list[Inner] = Field(default=[], description="Several.")
    text: Annotated[str, Field(max_length=3), Form("a|b", "a or b")] = Field(default="a", description="A letter.")
    size: CpuQuantity | None = Field(default=None, description="A size.")
    small: Annotated[int, Field(ge=0, le=9)] | None = Field(default=None, description="A digit.")
    large: Annotated[int, Field(ge=0, le=2**31)] | None = Field(default=None, description="A large number.")
    ratio: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.5, description="A fraction.")
    word: Literal["yes", "no"] = Field(default="yes", description="A word.")
    keys: dict[Annotated[str, Field(min_length=2, max_length=3), Form("a.*", "such as abc")], int] | None = Field(
        default=None, description="A map."
    )


class Outer(Resource):
    """A resource."""

    resource: ClassVar[ResourceType] = ResourceType("outers", "outer", ("o",), True, ())
    spec: OuterSpec = Field(description="The spec.")


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    root: dict[str, Any] = definition(Outer)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found: dict[str, Any] = root["properties"]["spec"]["properties"]
    return found


def test_the_files_are_what_the_types_say() -> None:
    assert drift(REPOSITORY) == [], "run: python -m strop.api.crdgen"


def test_check_tells_drift_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = f"--root={tmp_path}"
    assert crdgen.main([root, "--check"]) == 1
    assert list(tmp_path.iterdir()) == []
    assert crdgen.main([root]) == 0
    assert crdgen.main([root, "--check"]) == 0
    changed = tmp_path / "crds" / "finetunejobs.yaml"
    changed.write_text(changed.read_text().replace("maximum: 1024", "maximum: 2048"))
    capsys.readouterr()
    assert crdgen.main([root, "--check"]) == 1
    assert capsys.readouterr().err == "differs: crds/finetunejobs.yaml\n"


def test_references_are_inlined_and_nothing_is_nullable(spec: dict[str, Any]) -> None:
    text = yaml.safe_dump(spec)
    assert "$ref" not in text
    assert "'null'" not in text
    assert text.count("anyOf") == 1, "only where an integer may stand for a text"
    assert "title" not in text
    assert spec["maybe"]["properties"]["a"] == {
        "description": "A number.",
        "type": "integer",
        "default": 1,
        "format": "int64",
    }
    assert spec["maybe"]["description"] == "Perhaps inside."
    assert "default" not in spec["maybe"]


def test_an_object_with_defaults_inside_is_there_by_default(spec: dict[str, Any]) -> None:
    assert spec["inner"]["default"] == {}


def test_rules_stand_where_their_fields_are(spec: dict[str, Any]) -> None:
    expected = [
        {"rule": "self.a != 2", "message": "is not 2", "fieldPath": ".a", "reason": "FieldValueForbidden"},
        {"rule": "self == oldSelf", "message": "never changes"},
    ]
    for part in (spec["inner"], spec["maybe"], spec["many"]["items"]):
        assert part["x-kubernetes-validations"] == expected


def test_numbers_have_formats_and_exclusive_bounds(spec: dict[str, Any]) -> None:
    assert spec["small"]["format"] == "int32"
    assert spec["large"]["format"] == "int64"
    ratio = {word: spec["ratio"][word] for word in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")}
    assert ratio == {"minimum": 0, "exclusiveMinimum": True, "maximum": 1, "exclusiveMaximum": True}


def test_the_keys_of_a_map_are_bound_by_a_rule(spec: dict[str, Any]) -> None:
    assert spec["keys"]["additionalProperties"] == {"type": "integer", "format": "int64"}
    assert spec["keys"]["x-kubernetes-validations"] == [
        {
            "rule": "self.all(k, size(k) >= 2 && size(k) <= 3 && k.matches(r'^(a.*)$'))",
            "message": "keys have 2 to 3 characters; each is such as abc",
        }
    ]


def test_the_form_of_a_text_is_a_rule_with_words(spec: dict[str, Any]) -> None:
    assert "pattern" not in spec["text"]
    assert spec["text"]["x-kubernetes-validations"] == [
        {
            "rule": "self.matches(r'^(a|b)$')",
            "message": "allowed: a or b",
            "messageExpression": '"found \'" + self + "\', allowed: a or b"',
        }
    ]
    (rule,) = spec["size"]["x-kubernetes-validations"]
    assert rule["rule"].startswith("type(self) == int || self.matches(")
    with pytest.raises(ValidationError, match="found 'ab', allowed: a or b"):
        OuterSpec.model_validate({"text": "ab"})


def test_a_word_that_no_structural_schema_has_is_refused() -> None:
    with pytest.raises(ValueError, match="multipleOf: a structural schema has no such word"):
        structural({"type": "integer", "multipleOf": 2}, {})


@pytest.mark.parametrize("model", RESOURCES, ids=lambda model: str(model.__name__))
def test_lists_say_how_they_merge_and_everything_is_described(model: type[Resource]) -> None:
    def walk(path: str, schema: dict[str, Any]) -> None:
        for name, part in schema.get("properties", {}).items():
            if path or name != "metadata":
                assert part["description"], f"{path}.{name}"
                walk(f"{path}.{name}", part)
        if "items" in schema:
            assert schema["x-kubernetes-list-type"] == ("map" if path == ".status.conditions" else "atomic"), path
            walk(f"{path}[]", schema["items"])

    root = definition(model)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    walk("", root)


@pytest.mark.parametrize("model", RESOURCES, ids=lambda model: str(model.__name__))
def test_every_text_list_and_map_of_a_spec_is_bound(model: type[Resource]) -> None:
    """Without bounds the API server counts each rule at its worst case, and refuses the CRD."""

    def walk(path: str, schema: dict[str, Any]) -> None:
        if schema.get("type") == "string":
            assert "maxLength" in schema or "enum" in schema, path
        if schema.get("type") == "array":
            assert "maxItems" in schema, path
            walk(f"{path}[]", schema["items"])
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, path
            walk(f"{path}{{}}", schema["additionalProperties"])
        for name, part in schema.get("properties", {}).items():
            walk(f"{path}.{name}", part)

    properties = definition(model)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    walk("spec", properties["spec"])
    walk("status", properties.get("status", {}))


@pytest.mark.parametrize("model", RESOURCES, ids=lambda model: str(model.__name__))
def test_the_charts_copy_is_kept_and_can_be_left_out(model: type[Resource]) -> None:
    plural = model.resource.plural
    text = (REPOSITORY / "charts/strop/templates/crds" / f"{plural}.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("{{")]
    assert text.count("{{") == 3
    assert "{{- if .Values.crds.install }}" in text
    copy, original = yaml.safe_load("\n".join(lines)), definition(model)
    assert copy["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert copy == original


@pytest.mark.parametrize("model", RESOURCES, ids=lambda model: str(model.__name__))
def test_each_rule_is_said_in_python_too_but_for_changes(model: type[Resource]) -> None:
    seen: list[Rule] = []

    def collect(part: type[ApiModel]) -> None:
        seen.extend(part.rules)
        for field in part.model_fields.values():
            for inner in _models(field.annotation):
                collect(inner)

    collect(model)
    assert seen
    for rule in seen:
        assert (rule.check is None) == ("oldSelf" in rule.rule), rule.rule


def _models(annotation: Any) -> list[type[ApiModel]]:
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models(inner)]


def test_the_version_of_manifests_is_that_of_the_group() -> None:
    assert Resource.model_fields["api_version"].default == API_VERSION


def test_a_status_has_no_defaults() -> None:
    assert [path for path in defaults("FineTuneJob") if path.startswith("status")] == []


def test_a_broken_rule_names_the_field() -> None:
    with pytest.raises(ValidationError, match="a: is not 2"):
        Inner(a=2)
    assert Inner(a=3).a == 3
