"""What a worker says of its training. Needs nothing: peers have environments of their own."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

STACK = ("torch", "transformers", "peft")


def peak_bytes() -> int:
    """Return the most memory of this process that was ever in RAM."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def stack() -> str:
    """Return the versions of the libraries that a trainer's speed is made of."""
    return ", ".join(f"{name} {version(name).partition('+')[0]}" for name in STACK)


def tell(history: Iterable[Mapping[str, Any]], **more: int) -> None:
    """Print one JSON object: the seconds of training in a Trainer's log history, and what else is given."""
    seconds = next(entry["train_runtime"] for entry in history if "train_runtime" in entry)
    print(json.dumps({"seconds": seconds, "stack": stack(), **more}))
