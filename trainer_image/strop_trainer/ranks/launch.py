"""Starts the ranks of one pod by torchrun's agent, and turns how they end into one last word.

The process that starts them does what is done once and needs no torch, check and fetch, so that what is wrong is told
before anything is started. Each rank leaves its own last word in a file; the first to fail is the one to tell of.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from strop_trainer.context import say
from strop_trainer.errors import Preempted, TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import PlanModel
from strop_trainer.ranks.team import on_one_node
from strop_trainer.run import Run
from strop_trainer.stages import check, fetch
from strop_trainer.termination import TerminationMessage
from strop_trainer.way import pass_through

GRACE_SECONDS: Final = 50
"""From a stop, or another rank's failure, to the end of a rank by force: less than a pod is given."""
TOGETHER_SECONDS: Final = 10
"""Ranks that end within so many seconds may have ended by themselves; later, it was by force."""


class RankReport(PlanModel):
    """A rank's last word."""

    rank: int
    at: float
    """Seconds of the epoch."""
    code: ExitCode
    message: TerminationMessage


def report_path(work: Path, rank: int) -> Path:
    """Return where a rank leaves its last word."""
    return work / "ranks" / f"{rank}.json"


def lead(run: Run) -> TerminationMessage:
    """Check and fetch, start the ranks, and return the first one's last word.

    Raises:
        TrainerError: a rank failed; it is named.
        Preempted: a stop was requested.
    """
    pass_through(run, (check, fetch))
    size = run.plan.placement.processes_per_node
    distributed = run.plan.training.distributed
    say(f"\n  {size} ranks, {distributed.strategy}, with {run.threads} threads each")
    del run.dataset
    run.progress.close()
    folder = report_path(run.settings.work, 0).parent
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begin = time.monotonic()
    try:
        exits = run_ranks(size, folder / "agent")
    finally:
        run.stop.install()
    with run.stop.deferred():
        reports = read_reports(run.settings.work, size)
        shutil.rmtree(folder, ignore_errors=True)
        first = reports.get(0)
        seconds = first.message.stage_seconds if first else {}
        run.clock.stage = reached(reports)
        for name, spent in {**seconds, "prepare": _outside(begin, seconds)}.items():
            run.clock.seconds[name] = round(run.clock.seconds.get(name, 0.0) + spent, 3)
        if first is not None and first.code is ExitCode.OK:
            return first.message
        error = blame(exits, reports, size)
        if error is None:
            raise Preempted
        raise error


def _outside(begin: float, seconds: Mapping[str, float]) -> float:
    """Return what it took to start the ranks, and what they spent before training."""
    started = time.monotonic() - begin - sum(seconds.values())
    return max(0.0, started) + seconds.get("prepare", 0.0)


def run_ranks(size: int, logs: Path) -> dict[int, tuple[int, int]] | None:
    """Run ranks to their end; one that fails, or a stop, ends all.

    Returns:
        Rank → exit code (minus the signal's number) and when (seconds of the epoch), of those that failed; None where
        a stop was requested.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # all has been fetched
    os.environ["LOGLEVEL"] = "CRITICAL"  # of torch's agent: its tables say less than a rank's last word
    on_one_node(os.environ)
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException  # noqa: PLC0415 - seconds
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch  # noqa: PLC0415

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=size,
        run_id="strop",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(logs)),
        signals_to_handle="SIGTERM,SIGINT",
        shutdown_timeout=GRACE_SECONDS,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "strop_trainer.ranks.rank")
    except SignalException:
        return None
    except ChildFailedError as error:
        return {rank: (failure.exitcode, failure.timestamp) for rank, failure in error.failures.items()}
    return {}


def read_reports(work: Path, size: int) -> dict[int, RankReport]:
    """Return the last words that there are, by rank."""
    reports = {}
    for rank in range(size):
        path = report_path(work, rank)
        if path.is_file():
            reports[rank] = RankReport.model_validate_json(path.read_bytes())
    return reports


def reached(reports: Mapping[int, RankReport]) -> str:
    """Return the stage in which the ranks were; where the first was killed, the others know: they have lost it."""
    if 0 in reports:
        return reports[0].message.stage
    lost = [report for report in reports.values() if report.code is not ExitCode.OK]
    if lost:
        return lost[0].message.stage
    return "evaluate" if reports else "prepare"  # the others are done with training; the first one went on


def blame(
    exits: Mapping[int, tuple[int, int]] | None, reports: Mapping[int, RankReport], size: int
) -> TrainerError | None:
    """Return the error of the rank that failed first, named; None for a stop that was asked for.

    What the others say is that they have lost it. A rank that was killed says nothing, and comes before any that does,
    unless it was the agent that ended it, long after the first.

    Args:
        exits: as of `run_ranks`.
        reports: last words, by rank.
        size: number of ranks.
    """
    told = sorted(
        (report for report in reports.values() if report.code not in {ExitCode.OK, ExitCode.PREEMPTED}),
        key=lambda report: report.at,
    )
    if exits is None:
        # Ranks that lose each other while they stop are no news.
        told = [report for report in told if report.code is not ExitCode.INTERNAL]
        exits = {}
    stage = reached(reports)
    first = min((when for _, when in exits.values()), default=0)
    for rank, (code, when) in sorted(exits.items()):
        if code < 0 and code != -signal.SIGTERM and when - first < TOGETHER_SECONDS:
            name = signal.Signals(-code).name
            hint = "; where nobody sent it, memory ran out" if code == -signal.SIGKILL else ""
            return TrainerError(ExitCode.INTERNAL, f"rank {rank} of {size} was ended by {name}{hint}", stage=stage)
    if told:
        report = told[0]
        # Later stages are the first rank's alone.
        who = f"rank {report.rank} of {size}: " if report.message.stage in {"prepare", "train"} else ""
        return TrainerError(
            report.code,
            f"{who}{report.message.message}",
            reason=report.message.reason,
            stage=report.message.stage,
        )
    silent = [(rank, code) for rank, (code, _) in sorted(exits.items()) if rank not in reports]
    if silent:
        rank, code = silent[0]
        return TrainerError(
            ExitCode.INTERNAL, f"rank {rank} of {size} ended with exit code {code} before it could say why", stage=stage
        )
    return None
