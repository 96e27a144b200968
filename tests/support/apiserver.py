"""A real API server for tests: etcd, kube-apiserver and kube-controller-manager.

There is no scheduler and no node: objects are validated, stored, watched and
garbage-collected, Jobs create their pods, and no pod ever runs.
"""

import hashlib
import json
import shutil
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.kubectl import Kubectl
from tests.support.paths import CLUSTER_SCRIPTS, binaries
from tests.support.ports import free_ports

ISSUER = "https://kubernetes.default.svc.cluster.local"
START_SECONDS = 90.0
STOP_SECONDS = 15.0
LOG_TAIL_LINES = 15


class ApiServer:
    """One API server with its own store, certificates and users.

    Use it as a context manager, or call ``start`` and ``stop``. Its processes
    end with the thread that started it, however that ends.

    Attributes:
        folder: Holds the store, the certificates and the logs, until ``stop``.
        url: The address of the server.
        kubeconfig: Credentials of a cluster administrator.
        kubectl: kubectl with these credentials.
        audit_log: What was asked of the server, one JSON object a line, where it was told to keep it.
    """

    def __init__(self, *, audit: bool = False) -> None:
        """Chooses the ports.

        Args:
            audit: Whether the server keeps what is asked of it.
        """
        self._audit = audit
        self._binaries = binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="strop-apiserver-"))
        self._port, self._etcd_port, self._etcd_peer_port = free_ports(3)
        self._pki = self.folder / "pki"
        self.audit_log = self.folder / "audit.jsonl"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.url = f"https://127.0.0.1:{self._port}"
        self.kubeconfig = self._pki / "admin.kubeconfig"
        self.kubectl = Kubectl(self._binaries / "kubectl", self.kubeconfig)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def certificate_authority(self) -> Path:
        """The certificate that the server's own is signed with."""
        return self._pki / "ca.crt"

    def start(self) -> None:
        """Starts the programs and returns when the server answers and its controllers work.

        Raises:
            RuntimeError: A program ended or was not ready in time; the end of its log is in the message.
        """
        self._make_certificates()
        self.start_etcd()
        self.start_apiserver()
        self.start_controller_manager()

    def start_etcd(self) -> None:
        """Starts etcd alone."""
        client = f"http://127.0.0.1:{self._etcd_port}"
        peer = f"http://127.0.0.1:{self._etcd_peer_port}"
        self._start(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def start_apiserver(self) -> None:
        """Starts kube-apiserver alone and waits until it is ready.

        Raises:
            RuntimeError: It is not ready in time.
        """
        pki = self._pki
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={self._port}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={pki / 'service-account.pub'}",
            f"--service-account-signing-key-file={pki / 'service-account.key'}",
            # Left at 1 minute, a server that is told to stop waits that long for open watches.
            "--shutdown-delay-duration=0s",
            "--request-timeout=30s",
            *self._audit_flags(),
        )
        self._wait("kube-apiserver", self._answers)

    def start_controller_manager(self) -> None:
        """Starts kube-controller-manager alone and waits until it has made its first object.

        Raises:
            RuntimeError: It is not ready in time.
        """
        pki = self._pki
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
            "--use-service-account-credentials",
            f"--root-ca-file={pki / 'ca.crt'}",
            f"--service-account-private-key-file={pki / 'service-account.key'}",
        )
        self._wait("kube-controller-manager", self._has_default_service_account)

    def stop(self) -> None:
        """Ends the programs and removes their files. Does nothing when called again."""
        for name in reversed(list(self._processes)):
            self.stop_program(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop_program(self, name: str) -> None:
        """Kills one program, as a crash would; a ``start_…`` method brings it back.

        Args:
            name: ``etcd``, ``kube-apiserver`` or ``kube-controller-manager``.
        """
        process = self._processes.pop(name)
        process.kill()
        process.wait(STOP_SECONDS)

    def client_kubeconfig(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Returns a kubeconfig of a user that a client certificate names.

        Args:
            user: The user's name.
            groups: The groups it is a member of.
        """
        name = "client-" + hashlib.sha256("\0".join([user, *groups]).encode()).hexdigest()[:12]
        subject = "".join(f"/O={_escape(group)}" for group in groups) + f"/CN={_escape(user)}"
        self._run_pki("certificate", name, subject)
        self._run_pki("kubeconfig", name, self.url)
        return self._pki / f"{name}.kubeconfig"

    def token_kubeconfig(self, token: str, name: str = "token") -> Path:
        """Returns a kubeconfig that holds a bearer token.

        Args:
            token: The token.
            name: The file's name, without its ending; a file of that name is written over.
        """
        path = self._pki / f"{name}.kubeconfig"
        path.touch(mode=0o600)
        config = Kubectl(self._binaries / "kubectl", path)
        authority = f"--certificate-authority={self.certificate_authority}"
        config("config", "set-cluster", "strop", f"--server={self.url}", authority, "--embed-certs", check=True)
        config("config", "set-credentials", name, f"--token={token}", check=True)
        config("config", "set-context", "strop", "--cluster=strop", f"--user={name}", check=True)
        config("config", "use-context", "strop", check=True)
        return path

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """Returns a kubeconfig that holds a token of a ServiceAccount that exists.

        Raises:
            AssertionError: There is no such ServiceAccount.
        """
        token = self.kubectl("create", "token", name, f"--namespace={namespace}", "--duration=12h", check=True)
        return self.token_kubeconfig(token.stdout.strip(), f"service-account-{namespace}-{name}")

    def kubectl_as(self, kubeconfig: Path) -> Kubectl:
        """Returns kubectl with the credentials of another kubeconfig."""
        return Kubectl(self._binaries / "kubectl", kubeconfig)

    def _make_certificates(self) -> None:
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        alternatives = ",".join([*(f"DNS:{name}" for name in names), "IP:127.0.0.1", "IP:10.96.0.1"])
        self._run_pki("authority")
        self._run_pki("certificate", "apiserver", "/CN=kube-apiserver", alternatives)
        self._run_pki("certificate", "admin", "/O=system:masters/CN=admin")
        self._run_pki("kubeconfig", "admin", self.url)

    def _audit_flags(self) -> list[str]:
        if not self._audit:
            return []
        policy = self.folder / "audit-policy.json"
        rules = {"omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}
        policy.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", **rules}))
        return [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]

    def _run_pki(self, *args: str) -> None:
        subprocess.run([CLUSTER_SCRIPTS / "pki", self._pki, *args], check=True, capture_output=True)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _start(self, name: str, *args: str) -> None:
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                # A test run that is killed must not leave servers behind.
                ["setpriv", "--pdeathsig", "SIGKILL", self._binaries / name, *args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + START_SECONDS
        while not ready():
            for each, process in self._processes.items():
                if process.poll() is not None:
                    msg = f"{each} ended with {process.returncode}; the end of its log:\n{self._log_tail(each)}"
                    raise RuntimeError(msg)
            if time.monotonic() > end:
                msg = f"{name} was not ready within {START_SECONDS:.0f} s; the end of its log:\n{self._log_tail(name)}"
                raise RuntimeError(msg)
            time.sleep(0.05)

    def _log_tail(self, name: str) -> str:
        return "\n".join(self._log(name).read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def _request(self, path: str) -> bool:
        context = ssl.create_default_context(cafile=str(self.certificate_authority))
        context.load_cert_chain(self._pki / "admin.crt", self._pki / "admin.key")
        try:
            with urllib.request.urlopen(f"{self.url}{path}", context=context, timeout=5):  # noqa: S310 - https
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _answers(self) -> bool:
        return self._request("/readyz")

    def _has_default_service_account(self) -> bool:
        return self._request("/api/v1/namespaces/default/serviceaccounts/default")


def _escape(value: str) -> str:
    """Escapes a name for the subject of a certificate as openssl reads it."""
    return value.replace("\\", "\\\\").replace("/", "\\/").replace("+", "\\+")
