"""The operator's configuration: environment variables, read once at the start, refused in words when wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar, get_args

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat = Literal["text", "json"]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
Choice = TypeVar("Choice", bound=str)
Number = TypeVar("Number", int, float)

LOG_LEVELS: Final[tuple[LogLevel, ...]] = get_args(LogLevel)
LOG_FORMATS: Final[tuple[LogFormat, ...]] = get_args(LogFormat)
PULL_POLICIES: Final[tuple[PullPolicy, ...]] = get_args(PullPolicy)


@dataclass(frozen=True)
class Settings:
    """Everything the operator is told. The variable of each field stands under it."""

    namespace: str
    """STROP_NAMESPACE (required): the operator's own namespace; its Lease and its Secret are there."""
    trainer_image: str
    """STROP_TRAINER_IMAGE (required): trainer image of jobs and pools that name none."""
    progress_url: str
    """STROP_PROGRESS_URL (required): https address at which trainer pods reach the progress server, without a path,
    such as https://strop-progress.strop-system.svc:8443. Its host is the name in the server's certificate."""
    watch_namespaces: tuple[str, ...] = ()
    """STROP_WATCH_NAMESPACES: comma-separated namespaces whose jobs are looked after; empty: all."""
    trainer_pull_policy: PullPolicy = "IfNotPresent"
    """STROP_TRAINER_PULL_POLICY: imagePullPolicy of trainer pods."""
    trainer_pull_secrets: tuple[str, ...] = ()
    """STROP_TRAINER_PULL_SECRETS: comma-separated names of image pull Secrets in each job's namespace."""
    operator_labels: Mapping[str, str] = field(default_factory=dict)
    """STROP_OPERATOR_LABELS: labels of the operator's pods, as key=value,…; the trainers' NetworkPolicy lets them
    reach these pods on the progress port. Empty: any pod of the operator's namespace."""
    network_policy: bool = True
    """STROP_NETWORK_POLICY: whether each job gets a NetworkPolicy (nothing in; DNS, progress, remote sources out)."""
    pod_name: str = "strop-operator"
    """STROP_POD_NAME: name of this pod; identity in the Lease, reporting instance of Events."""
    leader_election: bool = True
    """STROP_LEADER_ELECTION: whether to wait for the Lease before working."""
    lease_name: str = "strop-operator"
    """STROP_LEASE_NAME: the Lease, in the operator's own namespace."""
    lease_seconds: float = 15.0
    """STROP_LEASE_SECONDS: how long a Lease that is not renewed is valid, in seconds; renewed every third of it."""
    tls_secret: str = "strop-progress-tls"
    """STROP_TLS_SECRET: Secret of the progress server's CA and certificate, in the operator's own namespace."""
    progress_port: int = 8443
    """STROP_PROGRESS_PORT: TLS port that trainers report to."""
    metrics_port: int = 8080
    """STROP_METRICS_PORT: plain port of /livez, /readyz and /metrics."""
    workers: int = 8
    """STROP_WORKERS: jobs that are reconciled at the same time."""
    sweep_seconds: float = 300.0
    """STROP_SWEEP_SECONDS: seconds between two sweeps over all jobs, which heal what a lost event left behind."""
    progress_seconds: float = 5.0
    """STROP_PROGRESS_SECONDS: shortest time between two writes of one job's progress, in seconds."""
    log_level: LogLevel = "INFO"
    """STROP_LOG_LEVEL: DEBUG, INFO, WARNING or ERROR."""
    log_format: LogFormat = "text"
    """STROP_LOG_FORMAT: text or json."""

    @property
    def progress_host(self) -> str:
        """The name that trainers know the progress server by."""
        return self.progress_url.removeprefix("https://").rsplit(":", 1)[0]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the STROP_* variables.

        Raises:
            ValueError: one is missing or wrong; names the variable, what was found and what is allowed.
        """
        read = _Reader(environment)
        return cls(
            namespace=read.text("STROP_NAMESPACE"),
            trainer_image=read.text("STROP_TRAINER_IMAGE"),
            progress_url=read.address("STROP_PROGRESS_URL"),
            watch_namespaces=read.names("STROP_WATCH_NAMESPACES"),
            trainer_pull_policy=read.choice("STROP_TRAINER_PULL_POLICY", PULL_POLICIES, cls.trainer_pull_policy),
            trainer_pull_secrets=read.names("STROP_TRAINER_PULL_SECRETS"),
            operator_labels=read.labels("STROP_OPERATOR_LABELS"),
            network_policy=read.flag("STROP_NETWORK_POLICY", default=cls.network_policy),
            pod_name=read.text("STROP_POD_NAME", cls.pod_name),
            leader_election=read.flag("STROP_LEADER_ELECTION", default=cls.leader_election),
            lease_name=read.text("STROP_LEASE_NAME", cls.lease_name),
            lease_seconds=read.number("STROP_LEASE_SECONDS", cls.lease_seconds, float, 3, 3600),
            tls_secret=read.text("STROP_TLS_SECRET", cls.tls_secret),
            progress_port=read.number("STROP_PROGRESS_PORT", cls.progress_port, int, 0, 65535),
            metrics_port=read.number("STROP_METRICS_PORT", cls.metrics_port, int, 0, 65535),
            workers=read.number("STROP_WORKERS", cls.workers, int, 1, 256),
            sweep_seconds=read.number("STROP_SWEEP_SECONDS", cls.sweep_seconds, float, 1, 86_400),
            progress_seconds=read.number("STROP_PROGRESS_SECONDS", cls.progress_seconds, float, 0, 60),
            log_level=read.choice("STROP_LOG_LEVEL", LOG_LEVELS, cls.log_level),
            log_format=read.choice("STROP_LOG_FORMAT", LOG_FORMATS, cls.log_format),
        )


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str | None = None) -> str:
        value = self._environment.get(name, "").strip() or default
        if value is None:
            raise ValueError(f"{name}: not set, but required")
        return value

    def address(self, name: str) -> str:
        value = self.text(name).rstrip("/")
        if not value.startswith("https://") or "/" in value.removeprefix("https://"):
            raise ValueError(f"{name}: found {value!r}, allowed is https://host:port without a path")
        return value

    def names(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self._environment.get(name, "").split(",") if part.strip())

    def labels(self, name: str) -> dict[str, str]:
        pairs = [part.partition("=") for part in self.names(name)]
        for key, separator, _ in pairs:
            if not separator or not key:
                raise ValueError(f"{name}: found {self._environment[name]!r}, allowed is key=value,key=value")
        return {key: value for key, _, value in pairs}

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.text(name, str(default)).lower()
        if value not in ("true", "false"):
            raise ValueError(f"{name}: found {value!r}, allowed are true and false")
        return value == "true"

    def choice(self, name: str, allowed: tuple[Choice, ...], default: Choice) -> Choice:
        value = self.text(name, default)
        for each in allowed:
            if each == value:
                return each
        raise ValueError(f"{name}: found {value!r}, allowed are {', '.join(allowed)}")

    def number(self, name: str, default: Number, kind: Callable[[str], Number], low: float, high: float) -> Number:
        text = self.text(name, str(default))
        wrong = ValueError(f"{name}: found {text!r}, allowed is a number from {low:g} to {high:g}")
        try:
            value = kind(text)
        except ValueError:
            raise wrong from None
        if not low <= value <= high:
            raise wrong
        return value
