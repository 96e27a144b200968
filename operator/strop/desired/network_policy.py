"""The NetworkPolicy of trainer pods: nothing comes in; out goes only what the Plan needs."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from strop.desired.installation import Installation
from strop.desired.metadata import Manifest, Owner, metadata, policy_name, selector
from strop_trainer.plan import Plan

DNS_PORT = 53
HTTPS_PORT = 443


def build_network_policy(plan: Plan, owner: Owner, installation: Installation) -> Manifest:
    """Return the policy; pods of one job reach each other where there are several."""
    peers = [{"podSelector": {"matchLabels": selector(owner.name)}}] if plan.placement.nodes > 1 else []
    egress: list[Manifest] = [
        {"ports": [{"protocol": protocol, "port": DNS_PORT} for protocol in ("UDP", "TCP")]},
        {"to": [_operator(installation)], "ports": [{"protocol": "TCP", "port": installation.progress_port}]},
        *({"ports": [{"protocol": "TCP", "port": port}]} for port in remote_ports(plan)),
        *({"to": [peer]} for peer in peers),
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(plan, owner, policy_name(owner.name)),
        "spec": {
            "podSelector": {"matchLabels": selector(owner.name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers}] if peers else [],
            "egress": egress,
        },
    }


def remote_ports(plan: Plan) -> list[int]:
    """Return the TCP ports of the Plan's remote sources, sorted; empty where all are in the cluster."""
    dataset = plan.training.dataset
    sources = [plan.training.model.source, *(file.source for file in [*dataset.train, *dataset.validation])]
    return sorted({_port(source) for source in sources if source.startswith(("hf://", "https://"))})


def _port(source: str) -> int:
    return HTTPS_PORT if source.startswith("hf://") else urlsplit(source).port or HTTPS_PORT


def _operator(installation: Installation) -> dict[str, Any]:
    pods = {"podSelector": {"matchLabels": dict(installation.operator_labels)}} if installation.operator_labels else {}
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": installation.namespace}}, **pods}
