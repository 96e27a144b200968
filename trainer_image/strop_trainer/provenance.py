"""provenance.json: an in-toto statement with a SLSA provenance predicate. It is not signed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from strop_trainer.manifest import FileEntry
from strop_trainer.plan import Plan

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://strop.dev/finetune/v1alpha1"
BUILDER = "https://strop.dev/trainer"


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Resource(_Part):
    """A file that was made, or an input, by its digest."""

    name: str | None = None
    uri: str | None = None
    digest: dict[str, str]


class BuildDefinition(_Part):
    """What was asked for, and what it was made from."""

    build_type: str
    external_parameters: dict[str, Any]
    internal_parameters: dict[str, Any]
    resolved_dependencies: list[Resource]


class Builder(_Part):
    """Who built."""

    id: str
    version: dict[str, str]


class Metadata(_Part):
    """When. The invocation is told by the plan's digest."""

    invocation_id: str
    finished_on: str


class RunDetails(_Part):
    """One run of the builder."""

    builder: Builder
    metadata: Metadata


class Predicate(_Part):
    """SLSA provenance, version 1."""

    build_definition: BuildDefinition
    run_details: RunDetails


class Statement(_Part):
    """An in-toto statement, version 1."""

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(default="https://in-toto.io/Statement/v1", alias="_type")
    subject: list[Resource]
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = "https://slsa.dev/provenance/v1"
    predicate: Predicate


def make_statement(
    plan: Plan,
    subjects: list[FileEntry],
    *,
    base_revision: str | None,
    base_fingerprint: str,
    dataset_fingerprint: str,
    libraries: dict[str, str],
    finished_on: str,
) -> Statement:
    """Return the statement that these files come from this plan, base model and data.

    Args:
        plan: what was carried out.
        subjects: files of models, with their digests.
        base_revision: commit of the base model, of an hf:// source.
        base_fingerprint: hex sha256 over the base model's files, with or without `sha256:`.
        dataset_fingerprint: likewise, over the rows.
        libraries: name → version of what computed.
        finished_on: RFC 3339.
    """
    model, revision = plan.training.model, f"@{base_revision}" if base_revision else ""
    sources = " ".join(file.source for file in plan.training.dataset.train)
    return Statement(
        subject=[Resource(name=entry.path, digest={"sha256": entry.sha256}) for entry in subjects],
        predicate=Predicate(
            build_definition=BuildDefinition(
                build_type=BUILD_TYPE,
                external_parameters=plan.training.model_dump(mode="json", by_alias=True, exclude_none=True),
                internal_parameters={"planDigest": plan.digest},
                resolved_dependencies=[
                    Resource(name="base-model", uri=model.source + revision, digest=_digest(base_fingerprint)),
                    Resource(name="dataset", uri=sources, digest=_digest(dataset_fingerprint)),
                ],
            ),
            run_details=RunDetails(
                builder=Builder(id=BUILDER, version=libraries),
                metadata=Metadata(invocation_id=plan.digest, finished_on=finished_on),
            ),
        ),
    )


def _digest(fingerprint: str) -> dict[str, str]:
    return {"sha256": fingerprint.removeprefix("sha256:")}
