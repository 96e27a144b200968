"""The quickstart's Plan and folders, as `strop run` would lay them out, for benchmarks of the trainer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strop.cli.manifests import load
from strop.planning.inputs import Job, Pool
from strop.planning.resolve import resolve
from strop_trainer.plan import Plan
from tests.support.models import smollm2

ROOT = Path(__file__).resolve().parents[1]
POOL = {
    "apiVersion": "strop.dev/v1alpha1",
    "kind": "ComputePool",
    "metadata": {"name": "machine"},
    "spec": {"cpuPerNode": "2", "memoryPerNode": "16Gi"},
}


def quickstart_plan(pool: Mapping[str, Any] | None = None, /, **spec: Any) -> Plan:
    """Return the quickstart's Plan, fields of its spec replaced.

    Args:
        pool: spec of the pool in place of this machine's.
        spec: fields of the job's spec.
    """
    (job,) = load([str(ROOT / "examples" / "quickstart.yaml")]).jobs
    document = {
        "apiVersion": "strop.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": job.name, "namespace": job.namespace},
        "spec": {**job.spec.model_dump(by_alias=True, exclude_unset=True), **spec},
    }
    return resolve(Job.from_resource(document), [Pool.from_resource({**POOL, "spec": pool or POOL["spec"]})])


def lay_out(folder: Path, plan: Plan, train: bytes | None = None, models: Path | None = None) -> dict[str, str]:
    """Lay out plan, rows and model in a folder; return the trainer's environment.

    Args:
        folder: is made.
        plan: to be carried out.
        train: training rows, JSONL, in place of the quickstart's.
        models: folder of base models, in place of the quickstart's.
    """
    (folder / "volumes").mkdir(parents=True)
    (folder / "volumes" / "base-models").symlink_to(models or smollm2().parent)
    rows = folder / "configmaps" / "quickstart-data"
    rows.mkdir(parents=True)
    for name in ("train.jsonl", "validation.jsonl"):
        (rows / name).write_bytes((ROOT / "examples" / "data" / name).read_bytes())
    if train is not None:
        (rows / "train.jsonl").write_bytes(train)
    (folder / "registry").mkdir()
    (folder / "plan.json").write_text(plan.model_dump_json(by_alias=True, exclude_none=True), encoding="utf-8")
    return {
        "STROP_PLAN": str(folder / "plan.json"),
        "STROP_VOLUMES": str(folder / "volumes"),
        "STROP_CONFIGMAPS": str(folder / "configmaps"),
        "STROP_REGISTRY": str(folder / "registry"),
        "STROP_WORK": str(folder / "work"),
        "STROP_JOB_UID": "benchmark",
        "STROP_TERMINATION_LOG": str(folder / "termination.json"),
    }


def run_python(
    *arguments: str,
    environment: Mapping[str, str],
    text: str | None = None,
    python: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Run a Python process; return what it printed.

    Args:
        arguments: of the interpreter.
        environment: beside this process's own.
        text: its standard input.
        python: another interpreter than this process's.
        timeout: seconds that it may take.

    Raises:
        RuntimeError: it failed.
        subprocess.TimeoutExpired: it took longer.
    """
    result = subprocess.run(
        [str(python or sys.executable), *arguments],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        check=False,
        cwd=ROOT,
        timeout=timeout,
    )
    if result.returncode:
        raise RuntimeError(
            f"{arguments} ended with {result.returncode}: {result.stdout[-2000:]}{result.stderr[-2000:]}"
        )
    return result.stdout
