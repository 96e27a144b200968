"""The main job end to end: cluster, images, chart, one FineTuneJob, and what comes out of it.

    python examples/demo.py up      # safe to run again: goes on from what is there
    python examples/demo.py down    # removes the demo and its cluster; caches stay

On kind where Docker and kind are there, else on the embedded two-node cluster of tests/cluster.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("STROP_CACHE") or Path.home() / ".cache" / "strop")
HARNESS = ROOT / "tests" / "cluster"
NAMESPACE = "demo"
SYSTEM = "strop-system"
JOB = "quickstart"
KIND_CLUSTER = "strop"
OPERATOR_IMAGE = "localhost/strop-operator:dev"
TRAINER_IMAGE = "localhost/strop-trainer:dev"
JOB_TIMEOUT_S = 1800
ENDED_BADLY = ("Failed", "Invalid")
MODEL = "smollm2-135m-instruct"

console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
started = time.monotonic()


class DemoError(RuntimeError):
    """A step did not work; the message says which."""


def step(title: str) -> None:
    """Print a step's title with the seconds since the start."""
    console.print(f"[bold cyan]== {title}[/] [dim]({time.monotonic() - started:.0f} s)[/]")


def run(*command: str | Path, env: dict[str, str] | None = None, capture: bool = False, **options: Any) -> str:
    """Run a command; return its output where captured.

    Raises:
        DemoError: it failed.
    """
    result = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **(env or {})},
        text=True,
        stdout=subprocess.PIPE if capture else None,
        check=False,
        **options,
    )
    if result.returncode:
        raise DemoError(f"{' '.join(str(part) for part in command[:4])} … ended with {result.returncode}")
    return result.stdout or ""


class Cluster:
    """A cluster that the demo may use, and how images get into it."""

    def __init__(self) -> None:
        self.kind = self._has_kind()
        self.kubeconfig = CACHE / ("kind.kubeconfig" if self.kind else "cluster/kubeconfig")

    @staticmethod
    def _has_kind() -> bool:
        if not (shutil.which("docker") and shutil.which("kind")):
            return False
        probe = subprocess.run(["docker", "info"], capture_output=True, check=False)
        return probe.returncode == 0

    def up(self) -> None:
        if not self.kind:
            run(HARNESS / "install-packages")
            run(HARNESS / "build-binaries")
            run(HARNESS / "up")
            return
        if KIND_CLUSTER not in run("kind", "get", "clusters", capture=True).split():
            run(
                "kind",
                "create",
                "cluster",
                "--name",
                KIND_CLUSTER,
                "--config",
                ROOT / "kind-config.yaml",
                "--wait",
                "2m",
            )
        self.kubeconfig.write_text(
            run("kind", "get", "kubeconfig", "--name", KIND_CLUSTER, capture=True), encoding="utf-8"
        )

    def images(self) -> None:
        if not self.kind:
            run(HARNESS / "build-images")
            for name in ("strop-operator", "strop-trainer"):
                run(HARNESS / "load-image", CACHE / "images" / f"{name}.tar")
            return
        for image, dockerfile in ((OPERATOR_IMAGE, "operator"), (TRAINER_IMAGE, "trainer_image")):
            run("docker", "build", "--tag", image, "--file", ROOT / dockerfile / "Dockerfile", ROOT)
            run("kind", "load", "docker-image", "--name", KIND_CLUSTER, image)

    def operator_image(self) -> str:
        """Return what tells one build of the operator's image from another."""
        if self.kind:
            return run("docker", "inspect", "--format", "{{.Id}}", OPERATOR_IMAGE, capture=True).strip()
        return (CACHE / "images" / "strop-operator.tar").resolve().stem

    def down(self) -> None:
        if self.kind:
            run("kind", "delete", "cluster", "--name", KIND_CLUSTER)
        else:
            run(HARNESS / "down", "--wipe")

    def kubectl(self, *arguments: str | Path, capture: bool = False, **options: Any) -> str:
        return run("kubectl", *arguments, env={"KUBECONFIG": str(self.kubeconfig)}, capture=capture, **options)

    def helm(self, *arguments: str | Path) -> None:
        run("helm", *arguments, env={"KUBECONFIG": str(self.kubeconfig)})

    def get(self, *arguments: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json", capture=True))
        return document


def install(cluster: Cluster) -> None:
    """Install the chart, and the namespace in which a data scientist works."""
    cluster.helm(
        *("upgrade", "--install", "strop", ROOT / "charts" / "strop", "--namespace", SYSTEM, "--create-namespace"),
        *("--values", ROOT / "examples" / "demo-values.yaml", "--wait", "--timeout", "3m"),
        # The tag stays when the image is built anew: its digest makes the Deployment roll.
        *("--set-string", f"podAnnotations.image={cluster.operator_image()}"),
    )
    cluster.kubectl("apply", "-f", ROOT / "examples" / "pools.yaml", "-f", ROOT / "examples" / "demo-namespace.yaml")


def provide_inputs(cluster: Cluster) -> None:
    """Put the base model into a claim, as a platform team would once, and the rows into a ConfigMap."""
    folder = CACHE / "models" / MODEL
    run(sys.executable, ROOT / "examples" / "prepare_model.py", folder)
    cluster.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/shelf", "--timeout=180s")
    on_shelf = f"/volumes/base-models/{MODEL}"
    try:
        cluster.kubectl(
            "-n", NAMESPACE, "exec", "shelf", "--", "test", "-e", f"{on_shelf}/.complete", stderr=subprocess.DEVNULL
        )
    except DemoError:
        console.print(f"copying {MODEL} into the claim base-models")
        with subprocess.Popen(["tar", "-C", str(folder), "-cf", "-", "."], stdout=subprocess.PIPE) as archive:
            script = f"mkdir -p {on_shelf} && tar -C {on_shelf} --no-same-owner -xf - && touch {on_shelf}/.complete"
            cluster.kubectl("-n", NAMESPACE, "exec", "-i", "shelf", "--", "sh", "-c", script, stdin=archive.stdout)


def summary(job: dict[str, Any]) -> str:
    """Return one line on a job: phase, progress, loss, ETA, or why it waits."""
    status = job.get("status", {})
    progress = status.get("progress") or {}
    parts = [f"{status.get('phase', 'Pending'):<10}"]
    if progress.get("stage"):
        parts.append(f"{progress['stage']:<8}")
    if progress.get("totalSteps"):
        parts.append(f"step {progress.get('step', 0)}/{progress['totalSteps']} ({progress.get('percent', 0)} %)")
    for key, word in (("loss", "loss"), ("evalLoss", "eval loss")):
        if progress.get(key):
            parts.append(f"{word} {progress[key]}")
    if progress.get("etaSeconds"):
        parts.append(f"{progress['etaSeconds']} s left")
    if len(parts) == 1 and status.get("message"):
        parts.append(status["message"])
    return "  ".join(parts)


def clear_away(cluster: Cluster) -> None:
    """Delete the job of an earlier demo that has failed: it stays failed, whatever is applied."""
    names = ("-n", NAMESPACE, "finetunejob", JOB)
    phase = cluster.kubectl("get", *names, "--ignore-not-found", "-o", "jsonpath={.status.phase}", capture=True)
    if phase in ENDED_BADLY:
        console.print(f"an earlier demo left the job {phase}; it is replaced")
        cluster.kubectl("delete", *names, "--timeout=120s")


def follow(cluster: Cluster) -> dict[str, Any]:
    """Show the job's progress until it ends; return it.

    Raises:
        DemoError: it failed, or did not end in time.
    """
    end, last, pause = time.monotonic() + JOB_TIMEOUT_S, "", threading.Event()
    while time.monotonic() < end:
        job = cluster.get("-n", NAMESPACE, "finetunejob", JOB)
        if (line := summary(job)) != last:
            console.print(f"   [dim]{time.monotonic() - started:5.0f} s[/]  {line}")
            last = line
        phase = job.get("status", {}).get("phase")
        if phase == "Complete":
            return job
        if phase in ENDED_BADLY:
            raise DemoError(f"the job is {phase}: {job['status'].get('message')}")
        pause.wait(1)
    raise DemoError(f"the job did not end in {JOB_TIMEOUT_S} s: {last}")


def show(cluster: Cluster, job: dict[str, Any]) -> None:
    """Show the artifact: registry tree, ModelVersion, metrics, and one question asked twice."""
    version = job["status"]["modelVersion"]
    record = cluster.get("-n", NAMESPACE, "modelversion", version["name"])["spec"]
    path = f"/volumes/{version['claim']}/{version['path']}"

    step("The registry volume")
    cluster.kubectl(
        "-n",
        NAMESPACE,
        "exec",
        "shelf",
        "--",
        "sh",
        "-c",
        f"cd {path} && find . -type f -printf '%10s  %P\\n' | sort -k2",
    )

    step(f"ModelVersion {version['name']}")
    cluster.kubectl("-n", NAMESPACE, "get", "modelversion", version["name"])
    table = Table("metric (held-out rows)", "base", "tuned")
    for metric in record.get("metrics", []):
        table.add_row(metric["name"], *(f"{metric[side]:.4g}" if side in metric else "–" for side in ("base", "tuned")))
    console.print(table)
    for proof in record.get("proofs", []):
        numbers = ", ".join(proof["judgedBy"])
        console.print(f"proof of {proof['artifact']}: {'passed' if proof['passed'] else 'FAILED'} by {numbers}")

    step("The same question, to the base model and to the tuned ONNX model")
    script = (ROOT / "examples" / "ask.py").read_text(encoding="utf-8")
    cluster.kubectl(
        *("-n", NAMESPACE, "exec", "-i", "shelf", "--", "python3", "-", f"/volumes/base-models/{MODEL}", path),
        input=script,
    )


def up() -> None:
    """Do all of it."""
    cluster = Cluster()
    step("Cluster: " + ("kind" if cluster.kind else "embedded, two nodes"))
    cluster.up()
    step("Images, from our Dockerfiles")
    cluster.images()
    step("helm upgrade --install strop charts/strop")
    install(cluster)
    step("Base model and data")
    provide_inputs(cluster)
    clear_away(cluster)
    step("kubectl apply -f examples/quickstart.yaml")
    cluster.kubectl("-n", NAMESPACE, "apply", "-f", ROOT / "examples" / "quickstart.yaml")
    job = follow(cluster)
    show(cluster, job)
    step("Done")
    console.print(f"export KUBECONFIG={cluster.kubeconfig}   # kubectl -n {NAMESPACE} get ftj,mv\nmake demo-down")


def main() -> int:
    """Entry point."""
    action = sys.argv[1] if len(sys.argv) == 2 else ""
    try:
        if action == "up":
            up()
        elif action == "down":
            Cluster().down()
        else:
            console.print("usage: demo.py up|down")
            return 64
    except DemoError as error:
        console.print(f"[bold red]the demo stopped:[/] {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
