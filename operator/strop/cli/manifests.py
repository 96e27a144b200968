"""Manifests: the jobs, pools and ConfigMaps in YAML files, checked as admission checks them."""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from strop.api import names
from strop.api.base import Resource
from strop.api.computepool import ComputePool
from strop.api.finetunejob import FineTuneJob
from strop.api.modelversion import ModelVersion
from strop.cli.errors import CliError, bad_configuration, missing_input
from strop.cli.yaml11 import load_all
from strop.planning.inputs import Job, Pool
from strop.planning.validation import InvalidResourceError, read_resource
from strop_trainer.exit_codes import ExitCode

KINDS: Final[dict[str, type[Resource]]] = {model.__name__: model for model in (FineTuneJob, ComputePool, ModelVersion)}
_CONFIG_MAP_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_DOTS: Final = {".", ".."}
_TEXT_ALLOWED: Final = "allowed: YAML or JSON, as text in UTF-8"
_PLAIN_WORDS: Final = {
    "expected <block end>": "the indentation does not fit the lines above: what belongs together starts in one column",
    "mapping values are not allowed here": "found ': ' where no value can start: the line above is indented otherwise, "
    "or a text with ': ' in it needs quotes",
    "found character '\\t'": "found a tab, allowed: spaces, which YAML indents by",
    "could not find expected ':'": "the text before this place has no ': ' after its key",
}
"""Start of a message of the parser → the same for people."""
_KEYS: Final = ", each key with its text"
_ONE_OF_A_NAME: Final = "allowed: one, since in a cluster the last one would replace the others"
NAMESPACE_ALLOWED: Final = "allowed: 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends"
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass
class Bundle:
    """What the files hold."""

    jobs: list[Job] = field(default_factory=list)
    pools: list[Pool] = field(default_factory=list)
    config_maps: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    """(namespace, name) → key → content."""
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    """File → kind → how many objects of it."""
    checked: Counter[str] = field(default_factory=Counter)
    """File → how many resources of Strop it holds."""

    @property
    def count(self) -> int:
        """Resources of Strop that were checked."""
        return self.checked.total()

    def found_in(self, files: Iterable[str]) -> str:
        """Return the kinds of objects in some of the files, in words."""
        kinds = dict.fromkeys(kind for file in files for kind in self.kinds.get(file, ()))
        return f"found {', '.join(kinds)}" if kinds else "found no object"


def load(files: Iterable[str], namespace: str | None = None) -> Bundle:
    """Read and check files (`-` is the standard input).

    Args:
        files: in any order, each read once; a file may hold several documents, and documents of other kinds are
            passed over.
        namespace: of objects that name none; None takes `default`.

    Raises:
        CliError: a file cannot be read (66), is no YAML or holds what admission would refuse (78), with every problem.
    """
    bundle = Bundle()
    problems: list[str] = []
    for file in dict.fromkeys(files):
        documents = list(_documents(file))
        bundle.checked[file] = sum(map(_is_strop, documents))
        bundle.kinds[file] = Counter(str(document.get("kind", "an object without kind")) for document in documents)
        for document in documents:
            problems += _add(bundle, called(file), document, namespace or "default", named=bundle.checked[file] > 1)
    if problems:
        raise bad_configuration(*problems)
    return bundle


def _documents(file: str) -> Iterable[Mapping[str, Any]]:
    """Return the objects of a file; a List's items stand for it, as for kubectl."""
    try:
        documents = load_all(_read(file))
    except yaml.YAMLError as error:
        raise bad_configuration(f"{called(file)}: {_where(error)}") from None
    except RecursionError:
        raise bad_configuration(f"{called(file)}: nested too deep to be read") from None
    for document in documents:
        if not isinstance(document, dict):
            raise bad_configuration(
                f"{called(file)}: found {type(document).__name__}, allowed: objects with apiVersion and kind"
            )
        if document.get("kind") == "List":
            items = document.get("items") or []
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise bad_configuration(f"{called(file)}: List: items: found {items!r}, allowed: a list of objects")
            yield from items
        else:
            yield document


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise missing_input(f"{file}: no such file") from None
    except IsADirectoryError:
        raise missing_input(f"{file}: found a folder, allowed: a file") from None
    except PermissionError:
        raise CliError(ExitCode.NO_PERMISSION, f"{file}: may not be read") from None
    except UnicodeDecodeError:
        raise bad_configuration(f"{called(file)}: found a binary file, {_TEXT_ALLOWED}") from None
    except OSError as error:
        raise missing_input(f"{called(file)}: cannot be read: {error.strerror}") from None


def _where(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        problem = error.problem or error.context or "no YAML"
        plain = next((words for start, words in _PLAIN_WORDS.items() if problem.startswith(start)), problem)
        return f"line {mark.line + 1}, column {mark.column + 1}: {plain}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"found a control character, {_TEXT_ALLOWED}"
    return f"no YAML: {str(error).splitlines()[0]}"


def called(file: str) -> str:
    """Return a file's name for people."""
    return "standard input" if file == "-" else file


def is_namespace(name: str) -> bool:
    """Return whether a namespace can have this name."""
    return bool(_NAMESPACE.fullmatch(name))


def _is_strop(document: Mapping[str, Any]) -> bool:
    return str(document.get("apiVersion", "")).split("/", 1)[0] == names.GROUP


def _add(bundle: Bundle, file: str, document: Mapping[str, Any], namespace: str, *, named: bool) -> list[str]:
    """Put one object into the bundle; return what is wrong with it."""
    kind = document.get("kind")
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    where = f"{file}: {kind} {name}" if named else file
    if document.get("apiVersion") == "v1" and kind == "ConfigMap":
        return _add_config_map(bundle, f"{file}: ConfigMap {name}", document, namespace)
    if not _is_strop(document):
        if kind in KINDS:
            found = document.get("apiVersion")
            return [f"{where}: apiVersion: found {found!r}, allowed: {names.API_VERSION}"]
        return []
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        return [f"{where}: kind: found {kind!r}, allowed: {', '.join(KINDS)}"]
    try:
        resource = read_resource(model, document)
    except InvalidResourceError as error:
        return [f"{where}: {problem}" for problem in error.problems]
    if resource.metadata.name is None:
        return [f"{where}: metadata.name: missing: a plan needs the name of its job"]
    where = f"{file}: {kind} {resource.metadata.name}"
    if isinstance(resource, FineTuneJob):
        job = Job(resource.metadata.namespace or namespace, resource.metadata.name, resource.spec)
        if not is_namespace(job.namespace):
            return [f"{where}: metadata.namespace: found {job.namespace}, {NAMESPACE_ALLOWED}"]
        if (job.namespace, job.name) in {(other.namespace, other.name) for other in bundle.jobs}:
            return [f"{where}: found a second job of this name in namespace {job.namespace}, {_ONE_OF_A_NAME}"]
        bundle.jobs.append(job)
    elif isinstance(resource, ComputePool):
        if resource.metadata.name in {pool.name for pool in bundle.pools}:
            return [f"{where}: found a second pool of this name, {_ONE_OF_A_NAME}"]
        bundle.pools.append(Pool(resource.metadata.name, resource.spec))
    return []


def _add_config_map(bundle: Bundle, where: str, document: Mapping[str, Any], namespace: str) -> list[str]:
    content: dict[str, bytes] = {}
    parts = {part: document.get(part) or {} for part in ("metadata", "data", "binaryData")}
    problems = [
        f"{where}: {part}: found {_form(value)}, allowed: an object{'' if part == 'metadata' else _KEYS}"
        for part, value in parts.items()
        if not isinstance(value, dict)
    ]
    if problems:
        return problems
    metadata = parts.pop("metadata")
    for part, entries in parts.items():
        for key, value in entries.items():
            if not _CONFIG_MAP_KEY.fullmatch(key) or key in _DOTS:
                problems.append(f"{where}: {part}.{key}: found {key!r}, allowed: letters, digits, '-', '_' and '.'")
            elif not isinstance(value, str):
                problems.append(f"{where}: {part}.{key}: found {value!r}, allowed: text (write it in quotes)")
            elif part == "data":
                content[key] = value.encode()
            else:
                try:
                    content[key] = base64.b64decode(value, validate=True)
                except binascii.Error as error:
                    problems.append(f"{where}: {part}.{key}: found no base64 ({error})")
    name, space = metadata.get("name"), metadata.get("namespace") or namespace
    if not isinstance(name, str):
        problems.append(f"{where}: metadata.name: missing")
    elif not isinstance(space, str):
        problems.append(f"{where}: metadata.namespace: found {space!r}, {NAMESPACE_ALLOWED}")
    else:
        bundle.config_maps[space, name] = content
    return problems


def _form(value: Any) -> str:
    """Return the form of a value in words: a text may hold all rows of a data set."""
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else repr(value)
