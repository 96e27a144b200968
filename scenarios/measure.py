"""One cell: the job by `strop run`, and what it measured."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
import tokenize
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any, Final, Literal

from scenarios.table import CELLS, DECODER, ENCODER, MODEL_CLAIM, ROWS_CLAIM, Cell, manifest
from strop.cli.errors import CliError
from strop.cli.planned import plan_files
from strop_trainer.documents import DatasetDocument, ProofDocument, ProofEntry, TrainingDocument
from strop_trainer.exit_codes import ExitCode
from strop_trainer.manifest import Manifest
from strop_trainer.termination import TerminationMessage

ROOT: Final = Path(__file__).resolve().parents[1]
TIME_LIMIT: Final = 900
"""Seconds; a cell takes one to four minutes."""
POLL_SECONDS: Final = 0.5
ELSEWHERE: Final = {
    DECODER: ("heads/encoder.py", "heads/encoder_model.py", "heads/encoder_proof.py", "heads/label_losses.py"),
    ENCODER: ("heads/causal.py", "heads/preference.py", "heads/encoder_decoder.py", "export/genai.py"),
}
"""Base model → files that another kind of model goes through."""
NOT_RUN: Final = "rows_check.py"
"""A file of the trainer's folder that no job goes through."""
_VERDICTS: Final = {True: "passed", False: "failed"}
Status = Literal["measured", "refused", "failed", "not run"]


@dataclass(frozen=True)
class Outcome:
    """What came of a cell."""

    status: Status
    reason: str = ""
    """Why it was refused, or failed."""
    key: str = ""
    """Of the job, as it is applied, and of the rows."""
    code: str = ""
    """Of the trainer."""
    plan: str = ""
    """Digest of what was computed."""
    seconds: float = 0.0
    """Whole process."""
    train_seconds: float = 0.0
    train_cpu_seconds: float = 0.0
    """Processor time of all ranks."""
    train_peak_bytes: int = 0
    """Of the process, or of the larger of several, while it trains."""
    trainable_parameters: int = 0
    parameters: int = 0
    steps: int = 0
    tokens: int = 0
    """Trained, padding not counted."""
    train_rows: int = 0
    held_out_rows: int = 0
    ranks: int = 1
    learning_rate: float = 0.0
    adapter_bytes: int = 0
    onnx_bytes: int = 0
    base: dict[str, float | None] = field(default_factory=dict)
    tuned: dict[str, float | None] = field(default_factory=dict)
    proofs: list[str] = field(default_factory=list)
    """A line an export."""
    machine: str = ""
    day: str = ""


@dataclass(frozen=True)
class Folders:
    """Where models, rows, results and work are."""

    root: Path
    models: Path
    results: Path
    """In the tree: what was measured outlives the machine, and the page can be written again from it."""

    @property
    def rows(self) -> Path:
        """Rows of all scenarios."""
        return self.root / "rows"

    def result(self, cell: Cell) -> Path:
        """Return the file of a cell's newest result."""
        return self.results / f"{cell.name}.json"

    def work(self, cell: Cell, key: str) -> Path:
        """Return the folder of a cell's work."""
        return self.root / "work" / f"{cell.name}-{key}"

    def log(self, cell: Cell, key: str) -> Path:
        """Return the file for what a cell says; it stays where the cell failed."""
        return self.work(cell, key) / "log"


@cache
def code_version(model: str) -> str:
    """Return the hash of what carries a plan out: the trainer, and the libraries that it is locked to.

    Its comments and docstrings do not count, nor the planner: what is computed by its choice has a digest of its own.

    Args:
        model: base model; what only the other kind of model goes through does not count.
    """
    digest = hashlib.sha256()
    trainer = ROOT / "trainer_image" / "strop_trainer"
    for path in sorted(trainer.rglob("*.py")):
        if path.name != NOT_RUN and "/".join(path.parts[-2:]) not in ELSEWHERE[model]:
            digest.update(path.relative_to(ROOT).as_posix().encode() + statements(path.read_text("utf-8")).encode())
    digest.update((ROOT / "requirements" / "trainer.txt").read_bytes())
    return digest.hexdigest()[:12]


def statements(source: str) -> str:
    """Return the lines of a program without comments, docstrings and blank lines."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def older(results: Mapping[str, Outcome], admitted: Mapping[str, Admitted]) -> set[str]:
    """Return the names of the cells that were measured by another trainer, or of another plan, than those here."""
    return {
        cell.name
        for cell in CELLS
        if (found := results.get(cell.name))
        and found.status == "measured"
        and (found.code, found.plan) != (code_version(cell.scenario.model), admitted[cell.name].plan)
    }


def load(folders: Folders, cell: Cell) -> Outcome | None:
    """Return a cell's newest result, if it has any."""
    path = folders.result(cell)
    return Outcome(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


@dataclass(frozen=True)
class Admitted:
    """A cell that can be run."""

    key: str
    """Of the job, as it is applied, and of the rows."""
    plan: str
    """Digest of what is computed."""


def admit(cell: Cell, folders: Folders) -> Admitted | Outcome:
    """Return what a cell is, or its refusal in words: admission's or the planner's."""
    file = folders.root / "jobs" / f"{cell.name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(manifest(cell), encoding="utf-8")
    try:
        _, (planned,) = plan_files([str(file)])
    except CliError as error:
        reason = "; ".join(line.removeprefix(f"{file}: ") for line in error.lines)
        return Outcome("refused", reason)
    digest = hashlib.sha256(file.read_bytes())
    for name in (cell.scenario.file, cell.scenario.held_out):
        digest.update((folders.rows / name).read_bytes())
    return Admitted(digest.hexdigest()[:12], planned.plan.digest)


class Interrupted(Exception):  # noqa: N818 - not an error
    """The cell was stopped; the next run begins it again, as processor time is counted from an attempt's start."""


def run(cell: Cell, folders: Folders, admitted: Admitted, cores: Collection[int], stop: Event) -> Outcome:
    """Carry out a cell by `strop run`; return and keep what it measured.

    Args:
        cell: the cell.
        folders: where things are.
        admitted: as of `admit`.
        cores: that it may use.
        stop: once set, the job is asked to stop.

    Raises:
        Interrupted: it was stopped.
    """
    key, code_here = admitted.key, code_version(cell.scenario.model)
    work = folders.work(cell, key)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    registry, log = work / "registry", folders.log(cell, key)
    command = [
        sys.executable, "-m", "strop.cli", "run", str(folders.root / "jobs" / f"{cell.name}.yaml"),
        "--volume", f"{MODEL_CLAIM}={folders.models}",
        "--volume", f"{ROWS_CLAIM}={folders.rows}",
        "--registry", str(registry),
        "--work", str(work / "run"),
    ]  # fmt: skip
    begin = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
        os.sched_setaffinity(process.pid, cores)
        code = _wait(process, begin + TIME_LIMIT, stop)
    seconds = time.monotonic() - begin
    if code == ExitCode.PREEMPTED:
        raise Interrupted
    if code == ExitCode.OK:
        (version,) = (registry / "default" / cell.name).glob("[0-9]*")
        outcome = replace(read(version, seconds), key=key, code=code_here, plan=admitted.plan)
        shutil.rmtree(work)
    else:
        outcome = Outcome("failed", _why(work, log, code), key, code_here, admitted.plan, seconds)
    path = folders.result(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(outcome), indent=1) + "\n", encoding="utf-8")
    return outcome


def _wait(process: subprocess.Popen[bytes], limit: float, stop: Event) -> int | None:
    """Return the exit code; None where it was not done in time.

    Raises:
        Interrupted: it was stopped.
    """
    while True:
        try:
            return process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            late = time.monotonic() > limit
            if not (late or stop.is_set()):
                continue
        process.terminate()
        process.wait()
        if late:
            return None
        raise Interrupted


def read(version: Path, seconds: float) -> Outcome:
    """Return what a published version says of its making."""
    training = TrainingDocument.model_validate_json((version / "training.json").read_bytes())
    proof = ProofDocument.model_validate_json((version / "proof.json").read_bytes())
    dataset = DatasetDocument.model_validate_json((version / "dataset.json").read_bytes())
    files = Manifest.model_validate_json((version / "manifest.json").read_bytes()).files
    steps = [line for line in _json_lines(version / "metrics.jsonl") if "tokens" in line]

    def size(folder: str) -> int:
        return sum(file.size for file in files if file.path.startswith(folder))

    return Outcome(
        "measured",
        seconds=round(seconds, 1),
        train_seconds=training.stage_seconds["train"],
        train_cpu_seconds=round(sum(rank.cpu_seconds for rank in training.ranks), 1),
        train_peak_bytes=max(rank.peak_bytes for rank in training.ranks),
        trainable_parameters=training.trainable_parameters,
        parameters=training.base_model.parameters,
        steps=training.steps,
        tokens=max((int(line["tokens"]) for line in steps), default=0),
        train_rows=dataset.train_rows,
        held_out_rows=dataset.validation_rows,
        ranks=training.plan.distributed.world_size,
        learning_rate=training.plan.hyperparameters.learning_rate,
        adapter_bytes=size("adapter/"),
        onnx_bytes=size("onnx/"),
        base=training.metrics_base,
        tuned=training.metrics_tuned,
        proofs=proofs_of(proof),
        machine=_machine(),
        day=time.strftime("%Y-%m-%d", time.gmtime()),
    )


def proofs_of(document: ProofDocument) -> list[str]:
    """Return a line a proof: of each export, and of the adapter where it was loaded again."""
    found: list[tuple[str, bool, float | None, str]] = [
        (entry.precision, entry.passed, entry.max_logit_difference, _metric_of_both(entry))
        for entry in document.results
    ]
    if document.adapter:
        found.append(("adapter", document.adapter.passed, document.adapter.logit_difference, ""))
    return [
        f"{name} within {difference:.0e}{metric}"
        if passed and difference is not None
        else f"{name} {_VERDICTS[passed]}{metric}"
        for name, passed, difference, metric in found
    ]


def _metric_of_both(entry: ProofEntry) -> str:
    """Return a metric of the export and of PyTorch on the rows of the proof."""
    name, onnx, pytorch = "token accuracy", entry.token_accuracy_onnx, entry.token_accuracy_pytorch
    if entry.metrics_onnx:
        name = "f1" if "f1" in entry.metrics_onnx else next(iter(entry.metrics_onnx))
        onnx, pytorch = entry.metrics_onnx[name], entry.metrics_pytorch[name]
    return "" if onnx is None or pytorch is None else f" ({name} {onnx:.3g} / {pytorch:.3g})"


def _machine() -> str:
    from benchmarks.results import machine  # noqa: PLC0415

    return machine()


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _why(work: Path, log: Path, code: int | None) -> str:
    if code is None:
        return f"not done after {TIME_LIMIT} s"
    try:
        last = TerminationMessage.model_validate_json((work / "run" / "termination.json").read_bytes())
    except (OSError, ValueError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"ended with {code}: {lines[-1] if lines else 'without a word'}"
    return f"{last.reason} in {last.stage}: {last.message} (exit {code})"
