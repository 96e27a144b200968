"""What all resource types share: camelCase on the wire, nothing unknown, CEL rules beside the fields they bind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from strop.api.forms import Form, cpu_hint, memory_hint, name_hint

RuleReason = Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired"]


class Found(NamedTuple):
    """What a rule shows of the value that it refuses."""

    cel: str | None
    """Expression of a text, within the server's cost limit: of the keys of a map, which have no bound, one alone. None
    where there is none, as for numbers, whose text has no bound for the server: it gives the message alone."""
    python: Callable[[Any], str]
    """The same of a model."""


class Rule(NamedTuple):
    """One CEL rule of a schema (`x-kubernetes-validations`), and the same said in Python.

    The API server evaluates `rule`; where there is no API server, pydantic evaluates `check`. One table of cases holds
    both to the same answers.
    """

    rule: str
    message: str
    """What is allowed, and why; the field is named by `field_path`, in front of it."""
    field_path: str | None = None
    """Such as `.rank`; None blames the object itself."""
    reason: RuleReason = "FieldValueInvalid"
    check: Callable[[Any], bool] | None = None
    """Whether a model keeps the rule; None for a transition rule (`oldSelf`), which needs two models."""
    found: Found | None = None
    """What to show in front of the message."""

    def told(self, model: Any) -> str:
        """Return the message for a model that breaks the rule."""
        return f"found {self.found.python(model)}; {self.message}" if self.found else self.message


def quoted(names: Iterable[str]) -> str:
    """Return names as a list in CEL."""
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


class Violation(NamedTuple):
    """One broken rule."""

    field: str
    """Such as `method.type`; empty for the object itself."""
    message: str


class BrokenRulesError(ValueError):
    """An object that breaks rules of its schema."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__(
            "; ".join(f"{each.field}: {each.message}" if each.field else each.message for each in violations)
        )
        self.violations = violations


class ApiModel(BaseModel):
    """Base of every part of a resource that a user writes: what the API server refuses, this refuses too."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", strict=True, allow_inf_nan=False
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        """Take a null as a field left out, as the API server does."""
        if isinstance(data, Mapping):
            return {key: value for key, value in data.items() if value is not None}
        return data

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        broken = tuple(
            Violation((rule.field_path or "").removeprefix("."), rule.told(self))
            for rule in self.rules
            if rule.check is not None and not rule.check(self)
        )
        if broken:
            raise BrokenRulesError(broken)
        return self


class StatusModel(BaseModel):
    """Base of what the operator itself writes: fields of a newer version are kept out of the way, not refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")
    rules: ClassVar[tuple[Rule, ...]] = ()


class Column(NamedTuple):
    """One column of `kubectl get`."""

    name: str
    json_path: str
    description: str
    type: Literal["string", "integer", "number", "date", "boolean"] = "string"
    wide: bool = False
    """Shown with `-o wide` only."""


class ResourceType(NamedTuple):
    """What the API server knows a resource by."""

    plural: str
    singular: str
    short_names: tuple[str, ...]
    namespaced: bool
    columns: tuple[Column, ...]


class ObjectMeta(BaseModel):
    """What is read of an object's metadata; the API server keeps the rest."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    name: str | None = None
    generate_name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    generation: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Resource(ApiModel):
    """Base of a whole resource, as it stands in a manifest."""

    resource: ClassVar[ResourceType]

    api_version: Literal["strop.dev/v1alpha1"] = "strop.dev/v1alpha1"
    metadata: ObjectMeta


def _integer_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_NAME = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"
_POSITIVE = r"([1-9][0-9]*(\.[0-9]+)?|0\.[0-9]*[1-9][0-9]*)"
_ENDS = "with a letter or digit at both ends"

DnsLabel = Annotated[
    str, Field(min_length=1, max_length=63), Form(_DNS_LABEL, f"lower-case letters, digits and '-', {_ENDS}", name_hint)
]
DnsName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Form(DNS_NAME, f"lower-case letters, digits, '-' and '.', {_ENDS} of each part", name_hint),
]
CpuQuantity = Annotated[
    str,
    Field(
        min_length=1,
        max_length=32,
        # In YAML `cpu: 2` is an integer, and pods take it.
        json_schema_extra={"x-kubernetes-int-or-string": True, "minimum": 1},
    ),
    Form(rf"{_POSITIVE}m?", "a number of CPUs such as 2, 0.5 or 1500m", cpu_hint),
    BeforeValidator(_integer_as_text),
]
MemoryQuantity = Annotated[
    str,
    Field(min_length=1, max_length=32),
    Form(rf"{_POSITIVE}(k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)", "a quantity such as 8Gi or 8G", memory_hint),
]
Sha256 = Annotated[
    str, Field(min_length=64, max_length=64), Form("[0-9a-f]{64}", "a sha256: 64 hexadecimal digits in lower case")
]
LabelValue = Annotated[
    str,
    Field(max_length=63),
    Form(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", f"nothing, or letters, digits, '-', '_' and '.', {_ENDS}"),
]
QualifiedName = Annotated[
    str,
    Field(min_length=1, max_length=317),
    Form(
        rf"({DNS_NAME}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?",
        f"a name such as nvidia.com/gpu: up to 63 letters, digits, '-', '_' and '.', {_ENDS}, after a domain and '/', "
        "if any",
    ),
]
ImageReference = Annotated[
    str,
    Field(min_length=1, max_length=512),
    Form(
        r"[a-zA-Z0-9]([-a-zA-Z0-9._/:@]*[a-zA-Z0-9])?", "the name of an image, such as registry.example/strop/trainer:1"
    ),
]
Revision = Annotated[
    str,
    Field(min_length=1, max_length=255),
    Form(
        r"[A-Za-z0-9][-A-Za-z0-9._/]*",
        "a commit, tag or branch: letters, digits, '-', '.', '_' and '/', a letter or digit first",
    ),
]
Timestamp = Annotated[
    str,
    Field(
        min_length=20,
        max_length=40,
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$",
    ),
]
"""RFC 3339."""
MetricName = Annotated[
    str,
    Field(min_length=1, max_length=64),
    Form(r"[A-Za-z][A-Za-z0-9_.-]*", "the name of a metric: letters, digits, '-', '_' and '.', a letter first"),
]
StageName = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z][a-z0-9_-]*$")]


class LocalReference(ApiModel):
    """The name of an object in the same namespace."""

    name: DnsName = Field(description="Name of the object, in the job's own namespace.")


class StatusCondition(StatusModel):
    """One condition, as Kubernetes' own metav1.Condition."""

    type: str = Field(min_length=1, max_length=316, description="Type of the condition, such as Complete.")
    status: str = Field(max_length=7, pattern="^(True|False|Unknown)$", description="True, False or Unknown.")
    reason: str = Field(
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        description="Stable CamelCase word for why.",
    )
    message: str = Field(max_length=32768, description="For a person.")
    last_transition_time: Timestamp = Field(description="When status last changed (RFC 3339).")
    observed_generation: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Generation of the spec it speaks of."
    )
