"""Pods for tests in a real cluster."""

import time
from typing import Any

from tests.support.cluster import BASE_IMAGE
from tests.support.kubectl import Kubectl

USER = 65532


def restricted_pod(
    name: str, command: list[str] | None = None, *, image: str = BASE_IMAGE, **spec: Any
) -> dict[str, Any]:
    """Returns a pod that meets the restricted Pod Security Standard on a read-only root file system.

    Args:
        name: The pod's name.
        command: What it runs; the image's own entry point if none is given.
        image: An image that the nodes have.
        **spec: Further fields of the pod's spec; ``resources`` and ``volumeMounts`` go to the container.
    """
    container = {key: spec.pop(key) for key in ("resources", "volumeMounts", "env") if key in spec}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    **({"command": command} if command else {}),
                    **container,
                }
            ],
            **spec,
        },
    }


def run_to_end(kubectl: Kubectl, namespace: str, pod: dict[str, Any], *, timeout: float = 120.0) -> str:
    """Creates a pod, waits until it has succeeded and returns what it printed.

    Args:
        kubectl: Credentials that may create pods.
        namespace: Where to create it.
        pod: The pod.
        timeout: Seconds to wait.

    Raises:
        AssertionError: It failed or did not end in time; its description and log are in the message.
    """
    name = pod["metadata"]["name"]
    kubectl.apply(pod, arguments=("-n", namespace))
    end = time.monotonic() + timeout
    phase = ""
    while phase not in {"Succeeded", "Failed"} and time.monotonic() < end:
        time.sleep(0.2)
        phase = kubectl.get("pod", name, "-n", namespace)["status"].get("phase", "")
    log = kubectl("logs", "-n", namespace, name).stdout
    if phase != "Succeeded":
        description = kubectl("describe", "pod", "-n", namespace, name).stdout
        msg = f"pod {name} is {phase} after at most {timeout:.0f} s:\n{log}\n{description}"
        raise AssertionError(msg)
    return log
