"""What a worker says of its training. Needs nothing: peers have environments of their own."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterable, Mapping
from typing import Any


def peak_bytes() -> int:
    """Return the most memory of this process that was ever in RAM."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tell(history: Iterable[Mapping[str, Any]], **more: int) -> None:
    """Print one JSON object: the seconds of training in a Trainer's log history, and what else is given."""
    seconds = next(entry["train_runtime"] for entry in history if "train_runtime" in entry)
    print(json.dumps({"seconds": seconds, **more}))
