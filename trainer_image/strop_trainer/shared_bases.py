"""Base graphs in the registry: `<registry>/_bases/<name>`, each written once and shared by the versions that name it.

A name says what the graph was built from and what is in it, so that equal ones meet and others never take their place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from strop_trainer import manifest as manifests
from strop_trainer.manifest import FileEntry, file_sha256
from strop_trainer.plan import OnnxPrecision, PlanModel

FOLDER: Final = "_bases"
"""Beside the models of a namespace; no model can have this name."""
ADAPTER_FOLDER: Final = "onnx-adapter"
ADAPTER_FILE: Final = "adapter.onnx_adapter"
REFERENCE_FILE: Final = "base.json"
_FORMAT: Final = 1
"""To be raised when graphs are built in another way."""

BaseName = Annotated[str, Field(pattern=r"^[0-9a-f]{16}-[0-9a-f]{16}$")]


class BaseManifest(PlanModel):
    """manifest.json of a base graph: a function of its contents, so that equal graphs have equal manifests."""

    schema_: Literal["strop.dev/onnx-base/v1alpha1"] = Field(default="strop.dev/onnx-base/v1alpha1", alias="schema")
    base_model: str
    """As the job that built it named it."""
    base_fingerprint: str
    """sha256 over the base model's files."""
    layers: list[str]
    """That have inputs for an adapter, such as `0.attn.q_proj`."""
    precision: OnnxPrecision
    builder: str
    files: list[FileEntry]


class BaseReference(PlanModel):
    """A base graph that an adapter was proven on."""

    precision: OnnxPrecision
    name: BaseName
    """Folder in `_bases` of the registry."""
    manifest_sha256: Annotated[str, Field(pattern=manifests.DIGEST_PATTERN)]


class AdapterDocument(PlanModel):
    """onnx-adapter/base.json: what the adapter beside it is for."""

    schema_: Literal["strop.dev/onnx-adapter/v1alpha1"] = Field(
        default="strop.dev/onnx-adapter/v1alpha1", alias="schema"
    )
    bases: Annotated[list[BaseReference], Field(min_length=1)]


def key_of(base_fingerprint: str, layers: Sequence[str], precision: OnnxPrecision) -> str:
    """Return the first part of a base graph's name: what it is built from."""
    parts = [_FORMAT, base_fingerprint, sorted(layers), precision]
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()[:16]


def name_of(manifest: BaseManifest) -> str:
    """Return a base graph's name: what it is built from, and what is in it."""
    contents = json.dumps([[entry.path, entry.sha256] for entry in manifest.files], separators=(",", ":"))
    key = key_of(manifest.base_fingerprint, manifest.layers, manifest.precision)
    return f"{key}-{hashlib.sha256(contents.encode()).hexdigest()[:16]}"


def dump_base(manifest: BaseManifest) -> bytes:
    """Return the manifest as it is written."""
    return (manifest.model_dump_json(by_alias=True, indent=1) + "\n").encode()


def read_base(folder: Path) -> BaseManifest | None:
    """Return a base graph's manifest, or None where there is no valid one."""
    try:
        return BaseManifest.model_validate_json((folder / manifests.NAME).read_bytes())
    except (OSError, ValueError):
        return None


def find_base(registry: Path, key: str) -> Path | None:
    """Return the folder of a whole base graph that was built from the same, if the registry has one.

    Every file is read: what an adapter is proven on is what was published. Sizes and times would not tell a damaged
    graph, on which right adapters would fail their proof; this one is passed over and built anew. sha256 runs at 1 to
    2 GB/s, about as fast as a volume is read, and what it has read the proof need not fetch again.
    """
    for folder in sorted((registry / FOLDER).glob(f"{key}-*")):
        if not check_base(folder):
            return folder
    return None


def check_base(folder: Path) -> list[str]:
    """Return what is wrong with a base graph, one sentence each."""
    manifest = read_base(folder)
    if manifest is None:
        return [f"{manifests.NAME}: missing or not valid: not a base graph"]
    problems = manifests.compare(folder, manifest.files)
    if not problems and name_of(manifest) != folder.name:
        problems = [f"{manifests.NAME}: found the name {name_of(manifest)}, the folder is {folder.name}"]
    return problems


def check_references(version: Path) -> Iterator[str]:
    """Yield what is wrong with the base graphs that a version's adapter is for."""
    path = version / ADAPTER_FOLDER / REFERENCE_FILE
    if not path.parent.is_dir():
        return
    where = f"{ADAPTER_FOLDER}/{REFERENCE_FILE}"
    try:
        document = AdapterDocument.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        yield f"{where}: {error}".replace("\n", " ")
        return
    for reference in document.bases:
        folder = version.resolve().parent.parent / FOLDER / reference.name
        if not folder.is_dir():
            yield f"{where}: the base graph {FOLDER}/{reference.name} is not in this registry"
        elif file_sha256(folder / manifests.NAME) != reference.manifest_sha256:
            yield f"{where}: the base graph {FOLDER}/{reference.name} is another than the adapter was proven on"
        else:
            yield from (f"{FOLDER}/{reference.name}/{problem}" for problem in check_base(folder))
