"""The folders of a run without a cluster: what a pod would have mounted, laid out on this machine."""

from __future__ import annotations

import fcntl
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strop.cli.errors import CliError, bad_configuration, missing_input
from strop.cli.planned import plan_json
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import Plan, load_plan
from strop_trainer.termination import TerminationMessage

_DIGEST_CHARACTERS = 12
_LOCK = "lock"


@dataclass(frozen=True)
class Roots:
    """Where volumes and work are, when a command does not say."""

    volumes: Path
    """`pvc://claim/path` is `volumes/claim/path`."""
    work: Path

    @classmethod
    def of(cls, environment: Mapping[str, str], home: Path) -> Roots:
        """Return `$STROP_VOLUMES`, else a folder of the user's own."""
        data = home / ".local/share/strop"
        volumes = environment.get("STROP_VOLUMES")
        return cls(volumes=Path(volumes) if volumes else data / "volumes", work=data / "work")


@dataclass(frozen=True)
class Workspace:
    """One job's folders. They are found again by namespace, job and digest, so that a second run goes on."""

    root: Path
    registry: Path
    """This namespace's folder of the registry."""

    @property
    def plan(self) -> Path:
        """The Plan."""
        return self.root / "plan.json"

    @property
    def volumes(self) -> Path:
        """A link for each claim."""
        return self.root / "volumes"

    @property
    def config_maps(self) -> Path:
        """A folder for each ConfigMap."""
        return self.root / "configmaps"

    @property
    def state(self) -> Path:
        """The trainer's: what was fetched, checkpoints, staging."""
        return self.root / "state"

    @property
    def termination_log(self) -> Path:
        """The trainer's last word."""
        return self.root / "termination.json"

    def last_word(self) -> TerminationMessage | None:
        """Return what the trainer wrote at its end; None where it wrote nothing that can be read."""
        try:
            return TerminationMessage.model_validate_json(self.termination_log.read_bytes())
        except (OSError, ValueError):
            return None

    def environment(self) -> dict[str, str]:
        """Return the variables that the trainer reads, the same as in a pod."""
        return {
            "STROP_PLAN": str(self.plan),
            "STROP_VOLUMES": str(self.volumes),
            "STROP_CONFIGMAPS": str(self.config_maps),
            "STROP_REGISTRY": str(self.registry),
            "STROP_WORK": str(self.state),
            "STROP_TERMINATION_LOG": str(self.termination_log),
            "STROP_JOB_UID": self._uid(),
        }

    def finish(self) -> None:
        """Forget the run: the next one is a new job. What was fetched stays."""
        (self.root / "uid").unlink(missing_ok=True)
        for path in self.state.iterdir():
            if path.is_dir() and path.name != "fetched":
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()

    def _uid(self) -> str:
        path = self.root / "uid"
        if not path.exists():
            path.write_text(str(uuid.uuid4()), encoding="ascii")
        return path.read_text(encoding="ascii")


@dataclass(frozen=True)
class Mounts:
    """What the command line gives for claims and ConfigMaps."""

    volumes: Mapping[str, Path]
    config_maps: Mapping[str, Path]
    registry: Path | None
    """Root of a registry volume."""
    work: Path | None


def open_workspace(plan: Plan, mounts: Mounts, roots: Roots) -> Workspace:
    """Make or find the folder of a run.

    Raises:
        CliError: it holds something else, or another plan's work (78); it cannot be written (73).
    """
    placement = plan.placement
    digest = plan.digest.removeprefix("sha256:")[:_DIGEST_CHARACTERS]
    root = mounts.work or roots.work / placement.namespace / f"{placement.job}-{digest}"
    registry = (mounts.registry or roots.volumes / placement.output.claim) / placement.namespace
    workspace = Workspace(root=root.absolute(), registry=registry.absolute())
    with _writing():
        workspace.root.mkdir(parents=True, exist_ok=True)
        others = {path.name for path in workspace.root.iterdir()} - {_LOCK}
    if others and not workspace.plan.exists():
        raise bad_configuration(
            f"{workspace.root}: holds other things, allowed: an empty folder or that of a former run"
        )
    if others and _digest_of(workspace.plan) != plan.digest:
        raise bad_configuration(f"{workspace.root}: holds the work of another plan: give --work another folder")
    return workspace


@contextmanager
def alone_in(workspace: Workspace) -> Iterator[None]:
    """Hold a workspace for this process, until the block ends or the process does.

    Raises:
        CliError: another process holds it (75).
    """
    with _writing():
        file = (workspace.root / _LOCK).open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = f"{workspace.root}: another strop run works here: wait for its end"
            raise CliError(ExitCode.PREEMPTED, held) from None
        yield


def lay_out(
    workspace: Workspace,
    plan: Plan,
    contents: Mapping[tuple[str, str], Mapping[str, bytes]],
    mounts: Mounts,
    roots: Roots,
) -> None:
    """Fill the folder of a run.

    Args:
        workspace: held by `alone_in`.
        plan: what is to run.
        contents: (namespace, name) → key → content, the ConfigMaps of the files.
        mounts: from the command line.
        roots: where claims are that the command line does not name.

    Raises:
        CliError: a claim or a ConfigMap is not there (66), the registry or work folder cannot be written (73).
    """
    placement = plan.placement
    claims = {claim: mounts.volumes.get(claim, roots.volumes / claim) for claim in placement.claims}
    _check_sources(plan, claims, contents, mounts, roots)
    with _writing():
        workspace.plan.write_text(plan_json(plan), encoding="utf-8")
        for folder in (workspace.volumes, workspace.config_maps):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        for folder in (workspace.state, workspace.registry):
            folder.mkdir(parents=True, exist_ok=True)
        for claim, target in claims.items():
            (workspace.volumes / claim).symlink_to(target.absolute())
        for name in placement.config_maps:
            _lay_config_map(workspace.config_maps / name, mounts.config_maps.get(name), contents, placement.namespace)
        workspace.termination_log.unlink(missing_ok=True)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CliError(ExitCode.CANNOT_PUBLISH, f"{error.filename}: cannot be written: {error.strerror}") from None


def _digest_of(plan: Path) -> str | None:
    try:
        return load_plan(plan.read_bytes()).digest
    except ValueError:
        return None


def _lay_config_map(
    folder: Path, given: Path | None, contents: Mapping[tuple[str, str], Mapping[str, bytes]], namespace: str
) -> None:
    if given is not None:
        folder.symlink_to(given.absolute())
        return
    folder.mkdir()
    for key, content in contents[namespace, folder.name].items():
        (folder / key).write_bytes(content)


def _check_sources(
    plan: Plan,
    claims: Mapping[str, Path],
    contents: Mapping[tuple[str, str], Mapping[str, bytes]],
    mounts: Mounts,
    roots: Roots,
) -> None:
    """Say what is not there before anything is started."""
    problems = [
        f"claim {claim}: no folder {target}: make it, or give its place with --volume {claim}=DIR "
        f"(claims are looked for in {roots.volumes})"
        for claim, target in claims.items()
        if not target.is_dir()
    ]
    for name in plan.placement.config_maps:
        given = mounts.config_maps.get(name)
        if given is not None and not given.is_dir():
            problems.append(f"--configmap {name}={given}: no such folder")
        elif given is None and (plan.placement.namespace, name) not in contents:
            problems.append(
                f"ConfigMap {name}: not in the files (namespace {plan.placement.namespace}): add its manifest to them, "
                f"or give a folder with its keys with --configmap {name}=DIR"
            )
    if problems:
        raise missing_input(*problems)
