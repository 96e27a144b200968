"""Ranks for tests: processes that begin with the libraries loaded, and meet as torchrun lets them."""

from __future__ import annotations

from typing import Any

from strop_trainer.plan import Plan
from strop_trainer.ranks.launch import RankReport, read_reports, report_path
from tests.support.ports import free_port
from tests.support.training import Surroundings, make_plan
from tests.support.warm import start_warm_rank

SECONDS = 120


def shared_plan(strategy: str, ranks: int, **changes: Any) -> Plan:
    """Return a plan of so many ranks in one pod; changes as of `make_plan`."""
    distributed = {"strategy": strategy, "world_size": ranks, **changes.pop("distributed", {})}
    plan = make_plan(distributed=distributed, **changes)
    return plan.model_copy(update={"placement": plan.placement.model_copy(update={"processes_per_node": ranks})})


def run_warm_ranks(around: Surroundings, plan: Plan) -> dict[int, RankReport]:
    """Run the ranks of a plan to their end; return what each has left as its last word."""
    size, port = plan.placement.processes_per_node, free_port()
    folder = report_path(around.work, 0).parent
    folder.mkdir(parents=True, exist_ok=True)
    common = {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    variables = around.variables(plan) | common
    processes = [
        start_warm_rank(
            variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            around.root / f"stdout-{rank}",
            around.root / f"stderr-{rank}",
        )
        for rank in range(size)
    ]
    try:
        for process in processes:
            process.join(SECONDS)
    finally:
        for process in processes:
            process.kill()
    return read_reports(around.work, size)
