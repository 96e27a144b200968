"""What `helm test` runs in the cluster: the operator answers by its Service's name, and its resources are served.

Environment: READY_URL, the operator's readiness address; STROP_KINDS, comma-separated plural names of its resources.
"""

import json
import os
import ssl
import sys
import urllib.request
from pathlib import Path

API_GROUP = "https://kubernetes.default.svc/apis/strop.dev/v1alpha1"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_SECONDS = 10.0


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


def main() -> int:
    """Return 0 where all is well, else 1 with the reason on the standard error."""
    try:
        fetch(os.environ["READY_URL"])
        missing = missing_kinds(fetch(API_GROUP, ACCOUNT), set(os.environ["STROP_KINDS"].split(",")))
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if missing:
        sys.stderr.write(f"not served under strop.dev/v1alpha1: {', '.join(sorted(missing))}\n")
        return 1
    sys.stdout.write("the operator is ready and its resources are served\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
