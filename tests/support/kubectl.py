"""kubectl against one API server, as one user."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl with the credentials of one kubeconfig.

    Attributes:
        binary: The kubectl program.
        kubeconfig: The file that names the server and the user.
    """

    binary: Path
    kubeconfig: Path

    def __call__(
        self,
        *args: str,
        input: str | None = None,
        check: bool = False,
        timeout: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Runs ``kubectl`` with the given arguments.

        Args:
            *args: What would follow ``kubectl`` on a command line.
            input: What the program reads from standard input, for ``-f -``.
            check: Whether an exit status other than 0 is an error.
            timeout: Seconds until the program is killed.

        Raises:
            AssertionError: The exit status is not 0 and ``check`` is set.
            subprocess.TimeoutExpired: The program did not end in time.
        """
        result = subprocess.run(
            [self.binary, *args],
            input=input,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )
        if check and result.returncode != 0:
            msg = f"kubectl {' '.join(args)} ended with {result.returncode}: {result.stderr.strip()}"
            raise AssertionError(msg)
        return result

    def apply(self, *manifests: dict[str, Any], arguments: tuple[str, ...] = ()) -> None:
        """Applies objects, given as dictionaries, by server-side apply.

        Raises:
            AssertionError: The server refused one.
        """
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        self("apply", "--server-side", "-f", "-", *arguments, input=document, check=True)

    def get(self, *args: str) -> dict[str, Any]:
        """Returns an object, or a list of them, as a dictionary.

        Raises:
            AssertionError: It is not there, or may not be read.
        """
        found: dict[str, Any] = json.loads(self("get", *args, "-o", "json", check=True).stdout)
        return found

    def wait(self, condition: str, *what: str, timeout: float = 120.0) -> None:
        """Waits until objects meet a condition, such as ``condition=Ready``.

        Args:
            condition: What ``kubectl wait --for`` takes.
            *what: The objects, and options such as a namespace.
            timeout: Seconds to wait.

        Raises:
            AssertionError: They did not meet it in time.
        """
        self("wait", f"--for={condition}", f"--timeout={timeout:.0f}s", *what, check=True, timeout=timeout + 30)
