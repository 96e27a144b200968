"""Progress to whoever started the trainer, in the protocol that stock transformers speaks (its KubeflowCallback).

A POST of `{"trainerStatus": {...}}` with a bearer token. It is sent by a thread of its own: the newest report replaces
one that still waits, and one that is lost is lost.
"""

from __future__ import annotations

import json
import math
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from strop_trainer.context import say

URL, CA_CERT, TOKEN = "KUBEFLOW_TRAINER_SERVER_URL", "KUBEFLOW_TRAINER_SERVER_CA_CERT", "KUBEFLOW_TRAINER_SERVER_TOKEN"
INTERVAL_SECONDS = 5.0
"""Between two reports, and two lines of the log on work that has no steps."""
TIMEOUT_SECONDS = 5.0


def trainer_status(
    metrics: Mapping[str, Any], *, percent: int | None, remaining_seconds: float | None, now: datetime
) -> dict[str, Any]:
    """Return the body of a report; metrics become strings, and those that are no numbers or not finite are left out."""
    status: dict[str, Any] = {"lastUpdatedTime": now.isoformat()}
    if percent is not None:
        status["progressPercentage"] = max(0, min(100, percent))
    if remaining_seconds is not None and math.isfinite(remaining_seconds):
        status["estimatedRemainingSeconds"] = max(0, int(remaining_seconds))
    status["metrics"] = [
        {"name": name, "value": str(value)}
        for name, value in metrics.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    ]
    return {"trainerStatus": status}


def seconds_now() -> float:
    """Return the seconds of a clock that never goes back."""
    return time.monotonic()


class Part:
    """Long work that comes before the first step: told in the log every few seconds, and reported as a share of it."""

    def __init__(self, progress: Progress, name: str, total: int, things: str) -> None:
        """Report that it begins.

        Args:
            progress: where it is reported.
            name: one word, for `kubectl get`.
            total: things to be done.
            things: their plural.
        """
        self._progress, self._name, self._total, self._things = progress, name, total, things
        self._done, self._told = 0, seconds_now()
        progress.report({"display": f"{name} 0%"}, urgent=True)

    def add(self, count: int) -> None:
        """Count things that are done."""
        self._done += count
        self._progress.report({"display": f"{self._name} {100 * self._done // self._total}%"})
        if seconds_now() - self._told >= INTERVAL_SECONDS and self._done < self._total:
            self._told = seconds_now()
            say(f"  {self._done} of {self._total} {self._things}")

    def end(self) -> None:
        """Let the stage speak for itself again."""
        self._progress.report({"display": None})


class Progress:
    """Reports progress where the environment names a server; else does nothing."""

    def __init__(self, environment: Mapping[str, str], *, interval: float = INTERVAL_SECONDS) -> None:
        self._url = environment.get(URL, "")
        self._ca, self._token = environment.get(CA_CERT), environment.get(TOKEN)
        self._interval = interval
        self._metrics: dict[str, Any] = {}
        self._percent: int | None = None
        self._remaining: float | None = None
        self._changed, self._urgent, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._failed = False
        self._thread = threading.Thread(target=self._send_changes, name="progress", daemon=True)
        if self._url:
            self._thread.start()

    def report(
        self,
        metrics: Mapping[str, Any],
        *,
        percent: int | None = None,
        remaining_seconds: float | None = None,
        urgent: bool = False,
    ) -> None:
        """Note what is known now; returns at once.

        Args:
            metrics: name → value; they replace those of the same name.
            percent: of the optimizer steps.
            remaining_seconds: until training ends.
            urgent: send at once instead of with the next regular report.
        """
        if not self._url:
            return
        with self._lock:
            self._metrics |= metrics
            self._percent = self._percent if percent is None else percent
            self._remaining = remaining_seconds
        if urgent:
            self._urgent.set()
        self._changed.set()

    def close(self, timeout: float = TIMEOUT_SECONDS) -> None:
        """Send what is left, for at most `timeout` seconds."""
        if not self._url:
            return
        self._closing.set()
        self._urgent.set()
        self._changed.set()
        self._thread.join(timeout)

    def _send_changes(self) -> None:
        while True:
            self._changed.wait()
            self._urgent.clear()
            self._changed.clear()
            last = self._closing.is_set()
            try:
                self._send()
                self._failed = False
            except Exception as error:  # noqa: BLE001 - nothing that goes wrong here may harm the training
                if not self._failed:
                    say(f"  progress is not reported: {type(error).__name__}: {error}")
                self._failed = True
            if last:
                return
            self._urgent.wait(self._interval)

    def _send(self) -> None:
        with self._lock:
            body = trainer_status(
                self._metrics, percent=self._percent, remaining_seconds=self._remaining, now=datetime.now(UTC)
            )
        # The token is renewed on disk while the pod runs.
        token = Path(self._token).read_text(encoding="utf-8").strip() if self._token else ""
        request = urllib.request.Request(  # noqa: S310 - the operator's address, from the pod's own environment
            self._url,
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method="POST",
        )
        context = ssl.create_default_context(cafile=self._ca) if self._ca else None
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context) as answer:  # noqa: S310
            answer.read()
