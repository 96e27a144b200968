"""`strop`, also installed as `kubectl-strop`: plans, checks and runs jobs without a cluster, and looks at results."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich.console import Console

from strop.api import names
from strop.cli.data_check import check_inputs
from strop.cli.errors import CANNOT_WRITE, INTERRUPTED, USAGE, CliError, bad_configuration, missing_input
from strop.cli.estimates import estimate_files
from strop.cli.logs import show_logs
from strop.cli.manifests import NAMESPACE_ALLOWED, Bundle, called, is_namespace, load
from strop.cli.notes import memory_note, size_note
from strop.cli.output import show_estimate, show_outcome, show_plan
from strop.cli.planned import Planned, plan_files, plan_json, refusals
from strop.cli.process import run_child, trainer_is_installed
from strop.cli.registry_tree import show_models, verify_versions
from strop.cli.workspace import Mounts, Roots, alone_in, lay_out, open_workspace
from strop_trainer.errors import FULL
from strop_trainer.exit_codes import ExitCode

app: Final = typer.Typer(
    name="strop",
    help="Turns a FineTuneJob into a proven model: in a cluster by the operator, here without one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_PIPE_WIDTH: Final = 160
_NO_CHOICE: Final = re.compile(r"Invalid value for '(--[a-z-]+)'.*?: .*?('.*') is not one of (.*)\.")


def _known_form(namespace: str | None) -> str | None:
    if namespace is not None and not is_namespace(namespace):
        raise CliError(USAGE, f"--namespace: found {namespace!r}, {NAMESPACE_ALLOWED}")
    return namespace


Files = Annotated[list[str], typer.Argument(metavar="FILE", help="Manifests; - is the standard input.")]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        help="Namespace of objects that name none. Left out: default.",
        callback=_known_form,
    ),
]
PoolFiles = Annotated[
    list[str] | None,
    typer.Option("--pools", metavar="FILE", help="Manifests with ComputePools. Without any: this machine."),
]
OneJob = Annotated[str | None, typer.Option("--job", metavar="NAME", help="Only the job of this name.")]
Volumes = Annotated[
    list[str] | None, typer.Option("--volume", metavar="CLAIM=DIR", help="Folder that stands for a claim.")
]
ConfigMaps = Annotated[
    list[str] | None, typer.Option("--configmap", metavar="NAME=DIR", help="Folder whose files are a ConfigMap's keys.")
]
Registry = Annotated[
    Path | None,
    typer.Option("--registry", metavar="DIR", help="Root of the registry. Left out: the output claim's folder."),
]


def _version(*, asked: bool) -> None:
    if asked:
        typer.echo(f"strop {importlib.metadata.version('strop')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=lambda asked: _version(asked=asked), is_eager=True, help="Version.")
    ] = False,
) -> None:
    pass


@app.command()
def validate(
    files: Files,
    namespace: Namespace = None,
    data: Annotated[
        bool,
        typer.Option(
            "--data",
            help="Also check the rows and the model's folder, as the trainer does; where it is installed, the rows as "
            "the model's tokens, too.",
        ),
    ] = False,
    volume: Volumes = None,
    configmap: ConfigMaps = None,
) -> None:
    """Check manifests as the API server's admission does, and jobs as planning does whatever pools there are."""
    if not data:
        bundle = load(files, namespace)
        nothing = {file: _nothing_in(file, bundle) for file, count in bundle.checked.items() if not count}
        if not bundle.count:
            raise bad_configuration(*nothing.values())
        if refused := refusals(bundle.jobs):
            raise bad_configuration(*refused)
        for file, count in bundle.checked.items():
            if count:
                typer.echo(f"{called(file)}: valid ({count} resource{'s' if count > 1 else ''})")
            else:
                _note(nothing[file])
        _note(*(memory_note(found, accelerators=None) for found in bundle.jobs))
        return
    bundle, planned = plan_files(files, namespace=namespace)
    _note(*(memory_note(item.job, accelerators=None) for item in planned))
    roots = Roots.of(os.environ, Path.home())
    volumes, config_maps = _pairs("--volume", volume), _pairs("--configmap", configmap)
    failures: list[CliError] = []
    for item in planned:
        name = f"{item.job.namespace}/{item.job.name}"
        with tempfile.TemporaryDirectory(prefix="strop-") as folder:
            mounts = Mounts(volumes, config_maps, Path(folder), Path(folder) / "w")
            try:
                workspace = open_workspace(item.plan, mounts, roots)
                lay_out(workspace, item.plan, bundle.config_maps, mounts, roots)
                typer.echo(f"{name}: valid; {check_inputs(item.plan, workspace)}")
            except CliError as error:
                named = (line if line[:1].isspace() else f"{name}: {line}" for line in error.lines)
                failures.append(CliError(error.exit_code, *named))
    if failures:
        raise CliError(failures[0].exit_code, *(line for failure in failures for line in failure.lines))


@app.command()
def plan(
    files: Files,
    pools: PoolFiles = None,
    namespace: Namespace = None,
    job: OneJob = None,
    output: Annotated[
        Literal["text", "json"], typer.Option("--output", "-o", help="json is the Plan itself.")
    ] = "text",
) -> None:
    """Show the Plan of each job: what it gives, what Strop chose and why, what it needs, and the digest."""
    _, planned = plan_files(files, pools or [], namespace, job)
    console = _console()
    for item in planned:
        _note(*item.unheeded)
        _note(size_note(item.job), memory_note(item.job, accelerators=item.accelerators))
        if output == "json":
            typer.echo(plan_json(item.plan))
        else:
            show_plan(console, item)


@app.command()
def estimate(files: Files, namespace: Namespace = None, job: OneJob = None) -> None:
    """Show how much memory each job needs, and for what, whatever pools there are."""
    for item in estimate_files(files, namespace, job):
        show_estimate(_console(), item)


@app.command()
def run(
    files: Files,
    *,
    pools: PoolFiles = None,
    namespace: Namespace = None,
    job: OneJob = None,
    volume: Volumes = None,
    configmap: ConfigMaps = None,
    registry: Registry = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", metavar="DIR", help="Folder for checkpoints, to go on from. Left out: one a plan."),
    ] = None,
) -> None:
    """Carry out the jobs on this machine: the same Plan as in a cluster.

    Ctrl-C saves a checkpoint and ends with 75; the same command goes on from there. The exit code is the trainer's.
    """
    if not trainer_is_installed():
        raise bad_configuration("the trainer is not installed here: in a clone of Strop, make env installs it")
    bundle, planned = plan_files(files, pools or [], namespace, job)
    if work is not None and len(planned) > 1:
        raise CliError(USAGE, "--work: found with several jobs, allowed with one: choose it with --job")
    mounts = Mounts(_pairs("--volume", volume), _pairs("--configmap", configmap), registry, work)
    roots = Roots.of(os.environ, Path.home())
    for item in planned:
        _note(*item.unheeded)
        code = _run_one(item, bundle.config_maps, mounts, roots)
        if code != ExitCode.OK:
            raise typer.Exit(code)


def _run_one(item: Planned, config_maps: dict[tuple[str, str], dict[str, bytes]], mounts: Mounts, roots: Roots) -> int:
    workspace = open_workspace(item.plan, mounts, roots)
    with alone_in(workspace):
        lay_out(workspace, item.plan, config_maps, mounts, roots)
        with _heard_or_not():
            typer.echo(f"{item.job.namespace}/{item.job.name}: plan {item.plan.digest}, work in {workspace.root}")
        environment = {**os.environ, **workspace.environment()}
        code = run_child([sys.executable, "-m", "strop_trainer"], environment)
        with _heard_or_not():
            if code == ExitCode.PREEMPTED:
                again = f"{_program()} {shlex.join(sys.argv[1:])}"
                typer.echo(f"{item.job.namespace}/{item.job.name}: stopped (exit {code}); to go on: {again}")
            else:
                show_outcome(_console(), workspace, code)
        if code == ExitCode.OK:
            workspace.finish()
    return code


@contextmanager
def _heard_or_not() -> Iterator[None]:
    """Let a run go on, and have its own exit code, where the reader of its output has gone."""
    try:
        yield
    except BrokenPipeError:
        _say_no_more()


def _say_no_more() -> None:
    """The reader of a pipe has gone, as `head` does: nothing is left to be said."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.command()
def verify(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Folders of published versions.")],
) -> None:
    """Check published versions: that every file is there, unchanged, and nothing else is."""
    for line in verify_versions(paths):
        typer.echo(line)


@app.command()
def models(registry: Registry = None, namespace: Namespace = None) -> None:
    """List the models and versions in a registry on this machine."""
    root = registry or Roots.of(os.environ, Path.home()).volumes / names.DEFAULT_CLAIM
    _note(*show_models(_console(), root, namespace))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def logs(
    context: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Name of a FineTuneJob in the cluster.")],
    namespace: Namespace = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
) -> None:
    """Show the trainer's log of a job in the cluster; further options go to `kubectl logs`."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise missing_input("kubectl: not found on PATH")
    command = [kubectl, "logs", "--selector", f"{names.LABEL_JOB}={job}", "--tail", "-1", "--ignore-errors"]
    command += ["--namespace", namespace] if namespace else []
    command += ["--follow"] if follow else []
    raise typer.Exit(show_logs([*command, *context.args], job))


def _nothing_in(file: str, bundle: Bundle) -> str:
    return f"{called(file)}: no resource of {names.GROUP} in it ({bundle.found_in([file])})"


def _note(*lines: str | None) -> None:
    """Say on the error stream what does not stop the command."""
    for line in filter(None, lines):
        typer.echo(f"note: {line}", err=True)


class _Console(Console):
    """A console that leaves a reader that has gone to `main`: its own way out is exit code 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console() -> Console:
    """Return a console that wraps for people, not for files and pipes."""
    return _Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def _pairs(option: str, values: list[str] | None) -> dict[str, Path]:
    result: dict[str, Path] = {}
    for value in values or []:
        name, equals, folder = value.partition("=")
        if not name or not equals or not folder:
            raise CliError(USAGE, f"{option}: found {value!r}, allowed: NAME=DIR")
        result[name] = Path(folder).expanduser()
    return result


def _in_plain_words(message: str) -> str:
    """Return the parser's message on a choice as all other messages here are: what was found, what is allowed."""
    choice = _NO_CHOICE.fullmatch(message)
    return f"{choice[1]}: found {choice[2]}, allowed: {choice[3].replace(chr(39), '')}" if choice else message


def _program() -> str:
    return "kubectl strop" if Path(sys.argv[0]).name.startswith("kubectl") else "strop"


def main() -> None:
    """Run the command line; every error is a line on stderr and an exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started it: what is said is for nobody
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - stays open
    try:
        code = app(standalone_mode=False, prog_name=_program())
        sys.stdout.flush()
    except CliError as error:
        for line in error.lines:
            typer.echo(line, err=True)
        code = error.exit_code
    except typer.TyperException as error:
        typer.echo(_in_plain_words(error.format_message()), err=True)
        code = USAGE
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:
        _say_no_more()
        code = 0
    except OSError as error:
        if error.errno not in FULL:
            raise
        _say_no_more()
        typer.echo(f"{error.filename or 'the output'}: cannot be written: {error.strerror}", err=True)
        code = CANNOT_WRITE
    sys.exit(code or 0)
