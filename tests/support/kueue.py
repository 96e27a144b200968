"""Kueue, played by a hand: its Workloads as a kind that takes anything, and what Kueue writes into them."""

from typing import Any

from tests.support.apiserver import ApiServer
from tests.support.world import Document, World

GROUP = "kueue.x-k8s.io"
VERSION = "v1beta1"


def install(server: ApiServer) -> None:
    """Makes the API server serve Workloads."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"plural": "workloads", "singular": "workload", "kind": "Workload", "listKind": "WorkloadList"}
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"workloads.{GROUP}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, a play of Kueue in tests"},
        },
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }
    server.kubectl.apply(definition)
    server.kubectl.wait("condition=Established", f"crd/workloads.{GROUP}")


class PlayedKueue:
    """What Kueue does for the Jobs of one namespace."""

    def __init__(self, world: World) -> None:
        self._world = world

    def queue(self, job: str, message: str) -> None:
        """Makes the Workload of a child Job, which waits."""
        child = self._world.batch.read_namespaced_job(job, self._world.namespace)
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": child.metadata.uid, "controller": True}
        metadata = {
            "name": f"job-{job}",
            "labels": {f"{GROUP}/job-uid": child.metadata.uid},
            "ownerReferences": [owner],
        }
        self._world.custom.create_namespaced_custom_object(
            *self._place(),
            {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Workload", "metadata": metadata, "spec": {"active": True}},
        )
        self.tell(job, "QuotaReserved", "False", message)

    def tell(self, job: str, kind: str, status: str, message: str) -> None:
        """Writes a condition of a Workload."""
        condition = {
            "type": kind,
            "status": status,
            "reason": "Pending",
            "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        body = {"status": {"conditions": [condition]}}
        self._world.custom.patch_namespaced_custom_object_status(*self._place(), f"job-{job}", body)

    def admit(self, job: str) -> None:
        """Lets a Job run."""
        self.tell(job, "QuotaReserved", "True", "")
        self._suspend(job, suspend=False)

    def stop(self, job: str) -> None:
        """Stops a Job, as Kueue does when its Workload is deactivated."""
        self._suspend(job, suspend=True)

    def workload(self, job: str) -> Document:
        """Returns the Workload of a Job."""
        found: Document = self._world.custom.get_namespaced_custom_object(*self._place(), f"job-{job}")
        return found

    def _suspend(self, job: str, *, suspend: bool) -> None:
        self._world.batch.patch_namespaced_job(job, self._world.namespace, {"spec": {"suspend": suspend}})

    def _place(self) -> tuple[Any, ...]:
        return GROUP, VERSION, self._world.namespace, "workloads"
