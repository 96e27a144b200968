"""What the installation decides for every job's children: images, the progress server, the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Installation:
    """The part of the operator's settings that child objects are built from."""

    namespace: str
    """The operator's own namespace."""
    trainer_image: str
    """Where the Plan names none."""
    progress_url: str
    """https address of the progress server, without a path."""
    progress_ca: str = ""
    """PEM certificates that the progress server's certificate is checked against."""
    progress_port: int = 8443
    """Port of the operator's pods, not of the Service in front of them."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    operator_labels: Mapping[str, str] = field(default_factory=dict)
    network_policy: bool = True
