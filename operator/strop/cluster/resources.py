"""The resources that the operator calls, by kind: where each lies under the API server's paths."""

from __future__ import annotations

from typing import Final, NamedTuple

from strop.api.names import GROUP, VERSION


class Resource(NamedTuple):
    """One resource of the API server."""

    group: str
    """Empty for the core group."""
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As manifests have it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of an object or a list; without a namespace, of the list over all of them."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        inside = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{inside}/{self.plural}" + "".join(f"/{part}" for part in (name, subresource) if part)


JOBS: Final = Resource(GROUP, VERSION, "finetunejobs", "FineTuneJob")
POOLS: Final = Resource(GROUP, VERSION, "computepools", "ComputePool", namespaced=False)
VERSIONS: Final = Resource(GROUP, VERSION, "modelversions", "ModelVersion")
BATCH_JOBS: Final = Resource("batch", "v1", "jobs", "Job")
PODS: Final = Resource("", "v1", "pods", "Pod")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
SERVICES: Final = Resource("", "v1", "services", "Service")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
CLAIMS: Final = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
POLICIES: Final = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")
TOKEN_REVIEWS: Final = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)

KUEUE_GROUP: Final = "kueue.x-k8s.io"


def workloads(version: str) -> Resource:
    """Return Kueue's Workloads in the version that the cluster prefers."""
    return Resource(KUEUE_GROUP, version, "workloads", "Workload")


BY_KIND: Final = {
    resource.kind: resource
    for resource in (
        JOBS,
        POOLS,
        VERSIONS,
        BATCH_JOBS,
        PODS,
        CONFIG_MAPS,
        SERVICES,
        SECRETS,
        CLAIMS,
        POLICIES,
        LEASES,
        EVENTS,
        TOKEN_REVIEWS,
    )
}


def resource_of(manifest: dict[str, object]) -> Resource:
    """Return the resource of a manifest."""
    kind, api_version = str(manifest["kind"]), str(manifest["apiVersion"])
    if kind == "Workload":
        return workloads(api_version.partition("/")[2])
    return BY_KIND[kind]
