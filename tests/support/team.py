"""A team's namespace in the two-node cluster: a tiny model on a claim, rows, and a shelf that shows what comes out."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.support.cluster import Cluster, image_archive
from tests.support.data import chat_rows
from tests.support.helm import CHART, NAMESPACE, RELEASE, helm
from tests.support.models import tiny_llama
from tests.support.paths import REPOSITORY
from tests.support.pods import restricted_pod
from tests.support.waiting import wait_until
from tests.support.world import Document, World

ENFORCE = "pod-security.kubernetes.io/enforce"
ON_CPU = {"strop.dev/pool": "cpu"}
LEASE_SECONDS = 5
RESOURCES = {"cpu": "900m", "memory": "2Gi"}
TRAIN_SECONDS = 240.0
"""A tiny model's whole way on a loaded machine."""


def install(cluster: Cluster, **values: Any) -> None:
    """Installs the chart with the demo's values, and others; or brings the release that is there to them."""
    demo = yaml.safe_load((REPOSITORY / "examples" / "demo-values.yaml").read_text())
    helm(
        *("upgrade", "--install", RELEASE, CHART, "--namespace", NAMESPACE, "--wait", "--timeout", "120s"),
        values=demo | {"controller": {"leaseSeconds": LEASE_SECONDS}} | values,
        kubeconfig=cluster.kubeconfig,
        timeout=180,
    )


@contextmanager
def release(cluster: Cluster) -> Iterator[None]:
    """The chart and the demo's pools, in a namespace that enforces the restricted Pod Security Standard.

    They are removed afterwards if they were not there.
    """
    assert image_archive("strop-operator").exists(), "run tests/cluster/build-images operator"
    found = helm("list", "--namespace", NAMESPACE, "--output", "json", kubeconfig=cluster.kubeconfig).stdout
    was_there = RELEASE in {each["name"] for each in json.loads(found)}
    labels = {ENFORCE: "restricted"}
    cluster.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
    install(cluster)
    cluster.kubectl("apply", "-f", str(REPOSITORY / "examples" / "pools.yaml"), check=True)
    yield
    if not was_there:
        cluster.kubectl("delete", "-f", str(REPOSITORY / "examples" / "pools.yaml"), check=True)
        helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", kubeconfig=cluster.kubeconfig)


class Team(World):
    """One namespace, which enforces the restricted Pod Security Standard."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        """Makes the namespace and puts a tiny model on the claim `models`.

        Args:
            cluster: The cluster.
            namespace: Its name.
            folder: Where the model may be made.
        """
        super().__init__(cluster, namespace, **{ENFORCE: "restricted"})
        rows = "".join(json.dumps(row) + "\n" for row in chat_rows(24))
        self.core.replace_namespaced_config_map(
            "rows", namespace, {"metadata": {"name": "rows"}, "data": {"train.jsonl": rows}}
        )
        claims = ("models", "strop-models")
        shelf = restricted_pod(
            "shelf",
            ["sleep", "infinity"],
            volumeMounts=[{"name": name, "mountPath": f"/{name}"} for name in claims],
            volumes=[{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims],
            nodeSelector=ON_CPU,
            terminationGracePeriodSeconds=0,
        )
        self.kubectl.apply(shelf, arguments=("-n", namespace))
        self.kubectl.wait("condition=Ready", "pod/shelf", "-n", namespace)
        self.shelve(tiny_llama(folder / "model"))

    def shelve(self, model: Path) -> None:
        """Puts a model's folder on the claim `models`, under its own name."""
        archive = subprocess.run(["tar", "-C", str(model.parent), "-c", model.name], check=True, capture_output=True)
        command = ("exec", "-i", "-n", self.namespace, "shelf", "--", "tar", "-C", "/models", "--no-same-owner", "-x")
        subprocess.run(
            [self.kubectl.binary, *command],
            input=archive.stdout,
            env={**os.environ, "KUBECONFIG": str(self.kubectl.kubeconfig)},
            check=True,
        )

    def apply(self, name: str, **spec: Any) -> Document:
        """Applies a job that is done in seconds, unless told otherwise."""
        small = {
            "model": {"source": "pvc://models/model", "parameters": "1M"},
            "training": {"maxSteps": 6, "maxLength": 128, "precision": "fp32"},
            "evaluation": {"generateRows": 2, "maxNewTokens": 8},
            "output": {"onnx": {"precisions": ["fp32"]}},
            "compute": {"pool": "cpu", "resources": RESOURCES},
        }
        return super().apply(name, **{**small, **spec})

    def on_shelf(self, *command: str) -> str:
        """Runs a command in the shelf, which sees /models and /strop-models."""
        return self.kubectl("exec", "-n", self.namespace, "shelf", "--", *command, check=True).stdout

    def says(self, name: str, words: str, seconds: float = 60.0) -> None:
        """Waits until a job's message holds certain words."""
        wait_until(
            lambda: words in self.status(name).get("message", ""),
            lambda: f"{name} says {words!r}: {self.story(name)}",
            seconds,
        )
