"""What `helm test` runs in the cluster: the operator answers by its Service's name, and its resources are served.

Right after an install a Service's address or name may take some seconds to work on every node: it asks for a minute.

Environment: READY_URL, the operator's readiness address; STROP_KINDS, comma-separated plural names of its resources.
"""

import json
import os
import ssl
import sys
import threading
import time
import urllib.request
from pathlib import Path

API_GROUP = "https://kubernetes.default.svc/apis/strop.dev/v1alpha1"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_SECONDS = 10.0
ASK_FOR_SECONDS = 60.0
PAUSE_SECONDS = 2.0


def fetch(url: str, account: Path | None = None) -> bytes:
    """Return what lies at an address; with an account's folder, by its token and certificate authority.

    Raises:
        OSError: it cannot be reached, or answers with an error.
    """
    request = urllib.request.Request(url)  # noqa: S310 - the addresses are the chart's
    context = None
    if account is not None:
        request.add_header("Authorization", f"Bearer {(account / 'token').read_text()}")
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context) as answer:  # noqa: S310
        return bytes(answer.read())


def missing_kinds(document: bytes, expected: set[str]) -> set[str]:
    """Return the expected resources that an API group's discovery document does not list."""
    return expected - {resource["name"] for resource in json.loads(document)["resources"]}


def problem() -> str | None:
    """Return what is wrong now."""
    try:
        fetch(os.environ["READY_URL"])
        missing = missing_kinds(fetch(API_GROUP, ACCOUNT), set(os.environ["STROP_KINDS"].split(",")))
    except OSError as error:
        return str(error)
    return f"not served under strop.dev/v1alpha1: {', '.join(sorted(missing))}" if missing else None


def main() -> int:
    """Return 0 as soon as all is well, else 1; each new reason is told at once on the standard error."""
    end, told = time.monotonic() + ASK_FOR_SECONDS, None
    while found := problem():
        if found != told:
            sys.stderr.write(f"{found}\n")
            sys.stderr.flush()
            told = found
        if time.monotonic() + PAUSE_SECONDS > end:
            return 1
        threading.Event().wait(PAUSE_SECONDS)
    sys.stdout.write("the operator is ready and its resources are served\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
