"""What the operator counts, for Prometheus."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from strop.api.names import Phase
from strop.cluster.key import Key

PHASES: Final = tuple(sorted(value for name, value in vars(Phase).items() if name.isupper()))


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.looks = Histogram(
            "strop_reconcile_seconds",
            "Seconds of one look at a job, by outcome: ok, conflict, error, unreachable or bug.",
            ["outcome"],
            registry=self.registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.sweeps = Counter("strop_sweeps", "Sweeps over all jobs.", registry=self.registry)
        self.watch_restarts = Counter("strop_watch_restarts", "Watches that had to begin anew.", registry=self.registry)
        self.leader = Gauge("strop_leader", "1 on the replica that decides.", registry=self.registry)
        self.posts = Counter(
            "strop_progress_posts",
            "Progress reports, by result: accepted, unauthenticated, forbidden or invalid.",
            ["result"],
            registry=self.registry,
        )
        self.writes = Counter(
            "strop_progress_writes",
            "Writes of progress to the status of jobs, by result: written, dropped or failed.",
            ["result"],
            registry=self.registry,
        )

    def observe_queue(self, depth: Callable[[], int], phases: Mapping[Key, str]) -> None:
        """Show the queue's depth and the jobs of each phase, read when asked for."""
        gauge = Gauge("strop_queue_depth", "Jobs that wait for a look.", registry=self.registry)
        gauge.set_function(depth)
        self.registry.register(_Phases(phases))

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Phases(Collector):
    def __init__(self, phases: Mapping[Key, str]) -> None:
        self._phases = phases

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("strop_jobs", "FineTuneJobs by phase.", labels=["phase"])
        tally = Tally(self._phases.values())
        for phase in PHASES:
            family.add_metric([phase], tally[phase])
        yield family
