"""What surrounds a job: its environment, its folders, its clock and the request to stop."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from strop_trainer.errors import Preempted, bad_configuration

_MUTED: set[str] = set()


def say(text: str = "") -> None:
    """Write one line of the job's log."""
    if _MUTED:
        return
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def muted(why: str) -> Iterator[None]:
    """Say nothing within the block: another process says the same."""
    _MUTED.add(why)
    try:
        yield
    finally:
        _MUTED.discard(why)


@dataclass(frozen=True)
class Settings:
    """Folders and names that the surroundings give: the same on a laptop and in a pod."""

    plan: Path
    volumes: Path
    """`pvc://claim/path` is `volumes/claim/path`."""
    config_maps: Path
    """`configmap://name/key` is `config_maps/name/key`."""
    registry: Path
    """This namespace's folder of the registry; versions go to `registry/<model>/<N>`."""
    work: Path
    """Fetched models, checkpoints and staging; survives a restart of the pod."""
    job_uid: str
    termination_log: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the STROP_* variables.

        Raises:
            TrainerError: one is missing.
        """
        names = ("STROP_PLAN", "STROP_VOLUMES", "STROP_CONFIGMAPS", "STROP_REGISTRY", "STROP_WORK", "STROP_JOB_UID")
        missing = [name for name in names if not environment.get(name)]
        if missing:
            raise bad_configuration(f"environment: missing {', '.join(missing)}")
        plan, volumes, config_maps, registry, work, job_uid = (environment[name] for name in names)
        log = environment.get("STROP_TERMINATION_LOG")
        return cls(
            plan=Path(plan),
            volumes=Path(volumes),
            config_maps=Path(config_maps),
            registry=Path(registry),
            work=Path(work),
            job_uid=job_uid,
            termination_log=Path(log) if log else None,
        )

    @property
    def fetched(self) -> Path:
        """Models and data from remote sources."""
        return self.work / "fetched"

    @property
    def commits(self) -> Path:
        """Commits of the hub's repositories that the job has taken."""
        return self.work / "commits.json"

    @property
    def checkpoints(self) -> Path:
        """Training state of this job."""
        return self.work / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON object a log step."""
        return self.work / "metrics.jsonl"

    @property
    def artifacts(self) -> Path:
        """Adapter, merged model and exports on their way to the registry."""
        return self.work / "artifacts"


class StopRequest:
    """SIGTERM, turned into what the running stage can bear.

    By default it raises `Preempted` where the main thread is. Within `deferred()` it only sets `requested`, for parts
    that must reach a safe point first: a training step, the publishing rename.
    """

    def __init__(self) -> None:
        self.requested = False
        self._deferred = 0

    def install(self) -> None:
        """Take over SIGTERM and SIGINT. Main thread only."""
        signal.signal(signal.SIGTERM, self._arrived)
        signal.signal(signal.SIGINT, self._arrived)

    def _arrived(self, _signal: int, _frame: FrameType | None) -> None:
        again = self.requested
        self.requested = True
        if not self._deferred and not again:
            raise Preempted

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold `Preempted` back until the block ends."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Let `Preempted` through again, inside a deferred block."""
        held, self._deferred = self._deferred, 0
        try:
            if self.requested:
                raise Preempted
            yield
        finally:
            self._deferred = held


@dataclass
class Clock:
    """Wall seconds of each stage, in the order in which they ran."""

    seconds: dict[str, float] = field(default_factory=dict)
    stage: str = "check"

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Time a stage under its name; the name stays as the current one after an error."""
        self.stage = stage
        say(f"\n== {stage}")
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.monotonic() - begin, 3)

    def table(self) -> str:
        """Return the stages with their share of the whole, and what is not training."""
        total = sum(self.seconds.values()) or 1.0
        lines = [f"  {name:<10}{seconds:>9.1f} s {seconds / total:>6.1%}" for name, seconds in self.seconds.items()]
        overhead = total - self.seconds.get("train", 0.0)
        return "\n".join([*lines, f"  {'total':<10}{total:>9.1f} s   of which not training {overhead:.1f} s"])
