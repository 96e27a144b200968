"""A namespace with a job's inputs on a real API server, and a hand that plays the kubelet there."""

import json
from typing import Any

from kubernetes import client, config
from kubernetes.client import ApiException

from tests.support.apiserver import ApiServer
from tests.support.cluster import Cluster
from tests.support.waiting import wait_until

Document = dict[str, Any]
GROUP = ("strop.dev", "v1alpha1")
ROWS = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


class World:
    """One namespace, as an administrator sees it.

    Attributes:
        namespace: Its name.
        core: Core API, with the administrator's rights.
        custom: Custom resources, with the administrator's rights.
    """

    def __init__(self, server: ApiServer | Cluster, namespace: str, **labels: str) -> None:
        """Makes the namespace with a registry claim, a claim with a model, and a ConfigMap with rows."""
        self._api = config.new_client_from_config(str(server.kubeconfig))
        self._audit_log = server.audit_log if isinstance(server, ApiServer) else None
        self.kubectl = server.kubectl
        self.namespace = namespace
        self.core = client.CoreV1Api(self._api)
        self.batch = client.BatchV1Api(self._api)
        self.custom = client.CustomObjectsApi(self._api)
        self.core.create_namespace({"metadata": {"name": namespace, "labels": labels}})
        wait_until(self._has_account, "the namespace's service account")
        for name in ("models", "strop-models"):
            self.claim(name)
        self.rows("rows", {"train.jsonl": ROWS})

    def close(self) -> None:
        """Closes all connections."""
        self._api.close()

    def _has_account(self) -> bool:
        try:
            self.core.read_namespaced_service_account("default", self.namespace)
        except ApiException:
            return False
        return True

    def claim(self, name: str) -> None:
        """Makes a claim; nothing binds it."""
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        self.core.create_namespaced_persistent_volume_claim(self.namespace, {"metadata": {"name": name}, "spec": spec})

    def rows(self, name: str, data: dict[str, str]) -> None:
        """Makes a ConfigMap."""
        self.core.create_namespaced_config_map(self.namespace, {"metadata": {"name": name}, "data": data})

    def apply(self, name: str, **spec: Any) -> Document:
        """Applies a job as a user does."""
        manifest = {
            "apiVersion": "strop.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "task": "chat",
                "model": {"source": "pvc://models/model", "parameters": "135M"},
                "dataset": {"train": [{"source": "configmap://rows/train.jsonl"}]},
                **spec,
            },
        }
        self.kubectl("apply", "-f", "-", input=json.dumps(manifest), check=True)
        return self.job(name)

    def job(self, name: str) -> Document:
        """Returns a job; empty where there is none."""
        try:
            found: Document = self.custom.get_namespaced_custom_object(*GROUP, self.namespace, "finetunejobs", name)
        except ApiException as error:
            if error.status == 404:
                return {}
            raise
        return found

    def patch(self, name: str, **spec: Any) -> None:
        """Changes fields of a job's spec."""
        self.custom.patch_namespaced_custom_object(*GROUP, self.namespace, "finetunejobs", name, {"spec": spec})

    def delete(self, name: str) -> None:
        """Asks for a job's deletion, and does not wait."""
        self.custom.delete_namespaced_custom_object(*GROUP, self.namespace, "finetunejobs", name)

    def status(self, name: str) -> Document:
        """Returns a job's status; empty where there is none."""
        found: Document = self.job(name).get("status") or {}
        return found

    def phase(self, name: str) -> str:
        """Returns a job's phase; empty where there is none."""
        return str(self.status(name).get("phase", ""))

    def condition(self, name: str, kind: str) -> tuple[str, str]:
        """Returns status and reason of a condition; empty where there is none."""
        for each in self.status(name).get("conditions", []):
            if each["type"] == kind:
                return each["status"], each["reason"]
        return "", ""

    def story(self, name: str) -> str:
        """Returns what is known of a job, for a person who asks why it does not move."""
        pods = [{"name": pod["metadata"]["name"], **pod["status"]} for pod in self.pods(name)]
        events = [event["message"] for event in self.kubectl.get("events", "-n", self.namespace)["items"]]
        log = self.kubectl("logs", "-n", self.namespace, f"job/{name}", "--tail=30").stdout
        return f"{self.status(name)}\npods: {pods}\nevents: {events}\n{log}"

    def reaches(self, name: str, phase: str, seconds: float = 20.0) -> Document:
        """Waits until a job is in a phase, and returns its status."""
        wait_until(lambda: self.phase(name) == phase, lambda: f"{name} reaches {phase}: {self.story(name)}", seconds)
        return self.status(name)

    def pods(self, job: str) -> list[Document]:
        """Returns the trainer pods of a job."""
        found = self.core.list_namespaced_pod(self.namespace, label_selector=f"strop.dev/job={job}").items
        documents: list[Document] = [self._api.sanitize_for_serialization(pod) for pod in found]
        return documents

    def first_pod(self, job: str) -> Document:
        """Waits for a trainer pod that has not ended."""
        live: list[Document] = []

        def found() -> bool:
            live[:] = [pod for pod in self.pods(job) if pod["status"].get("phase") in (None, "Pending", "Running")]
            return bool(live)

        wait_until(found, lambda: f"a pod of {job}: {self.story(job)}")
        return live[0]

    def next_pod(self, job: str, before: Document) -> Document:
        """Waits for the trainer pod that takes the place of another."""

        def is_another() -> bool:
            return bool(self.first_pod(job)["metadata"]["uid"] != before["metadata"]["uid"])

        wait_until(is_another, lambda: f"another pod of {job}: {self.story(job)}", 60)
        return self.first_pod(job)

    def play_kubelet(self, pod: Document, phase: str, state: Document | None = None, **status: Any) -> None:
        """Writes what a kubelet would report of the trainer's container."""
        container = {
            "name": "trainer",
            "image": pod["spec"]["containers"][0]["image"],
            "imageID": "",
            "ready": phase == "Running",
            "restartCount": 0,
            "state": state or {"running": {"startedAt": "2026-01-01T00:00:10Z"}},
        }
        body = {"status": {"phase": phase, "containerStatuses": [container], **status}}
        self.core.patch_namespaced_pod_status(pod["metadata"]["name"], self.namespace, body)

    def play_end(self, pod: Document, code: int, message: str = "", reason: str = "Error") -> None:
        """Writes the end of a trainer with an exit code and a termination message."""
        terminated = {
            "exitCode": code,
            "reason": reason if code else "Completed",
            "message": message,
            "startedAt": "2026-01-01T00:00:10Z",
            "finishedAt": "2026-01-01T00:09:58Z",
        }
        self.play_kubelet(pod, "Failed" if code else "Succeeded", {"terminated": terminated})

    def names(self, plural: str, group: str = "", job: str = "") -> list[str]:
        """Returns the names of all objects of a kind, or those of a job."""
        arguments = ("-l", f"strop.dev/job={job}") if job else ()
        kind = f"{plural}.{group}" if group else plural
        items = self.kubectl.get(kind, "-n", self.namespace, *arguments)["items"]
        return sorted(item["metadata"]["name"] for item in items)

    def path(self, job: str) -> str:
        """Returns a job's path at the API server."""
        return f"/apis/strop.dev/v1alpha1/namespaces/{self.namespace}/finetunejobs/{job}"

    def audit(self) -> list[Document]:
        """Returns all that was asked of the API server so far."""
        assert self._audit_log is not None
        return [json.loads(line) for line in self._audit_log.read_text().splitlines()]
