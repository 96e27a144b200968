"""The operator as a process, outside of any cluster, against a real API server."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import free_port
from tests.support.waiting import wait_until

STOP_SECONDS = 15.0


class OperatorProcess:
    """One `strop-operator`.

    Attributes:
        metrics_port: Of /livez, /readyz and /metrics.
        progress_port: Of the progress server.
        process: The process, while it runs.
    """

    def __init__(self, kubeconfig: Path, namespace: str = "strop-system", **environment: str) -> None:
        """Prepares a process.

        Args:
            kubeconfig: Who it is, and where the API server is.
            namespace: Its own namespace.
            **environment: Further STROP_* variables, without the prefix, in lower case.
        """
        self.metrics_port = free_port()
        self.progress_port = int(environment.pop("progress_port", 0)) or free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="strop-operator-"))
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONWARNINGS": "error,ignore::DeprecationWarning:kubernetes",
            "KUBECONFIG": str(kubeconfig),
            "STROP_NAMESPACE": namespace,
            "STROP_TRAINER_IMAGE": "registry.example/strop-trainer:test",
            "STROP_PROGRESS_URL": f"https://localhost:{self.progress_port}",
            "STROP_PROGRESS_PORT": str(self.progress_port),
            "STROP_METRICS_PORT": str(self.metrics_port),
            "STROP_PROGRESS_SECONDS": "0.5",
            "STROP_LEASE_SECONDS": "3",
            "STROP_LOG_LEVEL": "DEBUG",
            **{f"STROP_{name.upper()}": value for name, value in environment.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        try:
            wait_until(lambda: self.ask("/readyz")[0] == 200, lambda: f"the operator is ready; its log:\n{self.log()}")
        except BaseException:
            self.kill()
            sys.stderr.write(self.log())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process and self.process.poll() is None:
            self.kill()
        if kind is not None:
            sys.stderr.write(self.log())
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Starts it, and does not wait."""
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "SIGKILL", sys.executable, "-m", "strop.controller"],
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def terminate(self) -> int:
        """Asks it to stop, as a kubelet does, and returns its exit code.

        Raises:
            subprocess.TimeoutExpired: It did not stop in time.
        """
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Kills it, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def ask(self, path: str) -> tuple[int, str]:
        """Returns status and text of a request to the plain port; status 0 where nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def leads(self) -> bool:
        """Says whether it holds the Lease and looks after jobs."""
        return "strop_leader 1.0" in self.ask("/metrics")[1]

    def memory(self) -> int:
        """Returns its resident memory, in bytes."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("it has ended")

    def log(self) -> str:
        """Returns what it wrote."""
        return (self._folder / "log").read_text(errors="replace")
