"""Helm, and what the chart renders."""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import REPOSITORY, binaries

CHART = REPOSITORY / "charts" / "strop"
RELEASE = "strop"
NAMESPACE = "strop-system"

Manifest = dict[str, Any]


def helm(
    *args: str | Path,
    values: Mapping[str, Any] | None = None,
    kubeconfig: Path | None = None,
    check: bool = True,
    timeout: float = 180.0,
) -> subprocess.CompletedProcess[str]:
    """Runs ``helm`` with the given arguments.

    Args:
        *args: What would follow ``helm`` on a command line.
        values: Values, in place of a file of them.
        kubeconfig: The file that names a cluster; without it, none is reached.
        check: Whether an exit status other than 0 is an error.
        timeout: Seconds until the program is killed.

    Raises:
        AssertionError: The exit status is not 0 and ``check`` is set.
        subprocess.TimeoutExpired: The program did not end in time.
    """
    given = () if values is None else ("--values", "-")
    result = subprocess.run(
        [binaries() / "helm", *args, *given],
        input=None if values is None else json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, "KUBECONFIG": str(kubeconfig or "/dev/null")},
    )
    if check and result.returncode != 0:
        msg = f"helm {' '.join(map(str, args))} ended with {result.returncode}: {result.stderr.strip()}"
        raise AssertionError(msg)
    return result


def render(
    values: Mapping[str, Any] | None = None,
    *,
    release: str = RELEASE,
    namespace: str = NAMESPACE,
    api_versions: Iterable[str] = (),
) -> list[Manifest]:
    """Returns the objects that the chart renders, its tests and hooks included.

    Args:
        values: Values that differ from the chart's own.
        release: Name of the release.
        namespace: Namespace of the release.
        api_versions: Kinds that the cluster is said to have, such as ``apps/v1/Deployment``.
    """
    known = [f"--api-versions={version}" for version in api_versions]
    output = helm("template", release, CHART, "--namespace", namespace, *known, values=values or {}).stdout
    return [document for document in yaml.safe_load_all(output) if document]


def only(manifests: Iterable[Manifest], kind: str, name: str | None = None) -> Manifest:
    """Returns the one object of a kind, and of a name where one is given.

    Raises:
        AssertionError: There is none, or more than one.
    """
    found = [each for each in manifests if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    assert len(found) == 1, f"expected one {kind} {name or ''}, found {len(found)}"
    return found[0]
