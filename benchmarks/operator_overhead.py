"""How long the operator takes to act, and what it costs while there is nothing to do.

Against a real etcd, kube-apiserver and controller-manager. The API server's audit log is the clock. No kubelet runs:
a hand writes what it would report, so that only the control plane is measured.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from benchmarks.results import Goal, Result
from tests.support.apiserver import ApiServer
from tests.support.helm import NAMESPACE, RELEASE
from tests.support.installed import installed_server
from tests.support.jobs import termination
from tests.support.operator import OperatorProcess
from tests.support.world import World

COMMAND = "python -m benchmarks operator"
JOBS = 20
IDLE_SECONDS = 600
BENCH = "bench"
HTTP_REFUSED = 300
OPERATOR = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"


@contextlib.contextmanager
def installed() -> Iterator[tuple[ApiServer, OperatorProcess]]:
    """A server with the chart's roles, and one operator that has exactly these."""
    with installed_server() as server:
        kubeconfig = server.service_account_kubeconfig(NAMESPACE, RELEASE)
        with OperatorProcess(
            kubeconfig, NAMESPACE, lease_name=RELEASE, lease_seconds="15", log_level="INFO"
        ) as process:
            yield server, process


def at(event: dict[str, Any]) -> float:
    """Return when the server had answered a request, in seconds."""
    return datetime.fromisoformat(event["stageTimestamp"]).timestamp()


def moments(events: list[dict[str, Any]], verb: str, resource: str, user: str = "") -> list[float]:
    """Return when successful requests of a kind in the benchmark's namespace were answered, in order."""
    found = []
    for event in events:
        target = event.get("objectRef") or {}
        path = "/".join(filter(None, (target.get("resource"), target.get("subresource"))))
        ours = target.get("namespace") == BENCH and event["user"]["username"].startswith(user)
        if ours and path == resource and event["verb"] == verb and event["responseStatus"]["code"] < HTTP_REFUSED:
            found.append(at(event))
    return sorted(found)


def overhead(server: ApiServer) -> tuple[list[float], list[float]]:
    """Return the seconds from apply to pod, and from the trainer's exit to Complete, of JOBS jobs one after another."""
    world = World(server, BENCH)
    to_pod, to_complete = [], []
    try:
        for number in range(JOBS):
            name, seen = f"job-{number:02}", len(world.audit())
            world.apply(name)
            pod = world.first_pod(name)
            digest = world.reaches(name, "Starting")["planDigest"]
            world.play_kubelet(pod, "Running")
            world.reaches(name, "Running")
            world.play_end(pod, 0, termination(model=name, planDigest=digest, path=f"{BENCH}/{name}/1").dump())
            world.reaches(name, "Complete")
            events = world.audit()[seen:]
            applied = moments(events, "create", "finetunejobs")[0]
            to_pod.append(moments(events, "create", "pods")[0] - applied)
            ended = moments(events, "patch", "pods/status")[-1]
            to_complete.append(moments(events, "patch", "finetunejobs/status", OPERATOR)[-1] - ended)
    finally:
        world.close()
    return to_pod, to_complete


def idle(server: ApiServer, process: OperatorProcess) -> tuple[int, int]:
    """Return the writes but for the lease in IDLE_SECONDS with nothing to do, and the operator's resident bytes."""
    before = len(server.audit_log.read_bytes().splitlines())
    threading.Event().wait(IDLE_SECONDS)
    events = [json.loads(line) for line in server.audit_log.read_bytes().splitlines()[before:]]
    writes = [
        event
        for event in events
        if event["user"]["username"] == OPERATOR
        and event["verb"] not in {"get", "list", "watch"}
        and (event.get("objectRef") or {}).get("resource") != "leases"
    ]
    return len(writes), process.memory()


def measure() -> Result:
    """Run it."""
    with installed() as (server, process):
        to_pod, to_complete = overhead(server)
        writes, memory = idle(server, process)
    return Result(
        title="The operator",
        command=COMMAND,
        method=(
            f"{JOBS} jobs one after another on an idle control plane (etcd, kube-apiserver, controller-manager), by "
            "the API server's audit log; then ten minutes with nothing to do. The kubelet is played, so what it takes "
            "itself to start a container and to report its end is not in the figures."
        ),
        goals=[
            Goal("kubectl apply → trainer pod created, median", statistics.median(to_pod), 1.0, "s"),
            Goal("kubectl apply → trainer pod created, slowest", max(to_pod), 3.0, "s"),
            Goal("trainer's exit reported → Complete, median", statistics.median(to_complete), 2.0, "s"),
            Goal("writes but for the lease in 10 idle minutes", float(writes), 0.0, ""),
            Goal("resident memory", memory / 2**20, 120.0, "MiB"),
        ],
    )
