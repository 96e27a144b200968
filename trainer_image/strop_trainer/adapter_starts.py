"""Which layers an adapter that does not start at no effect is not for. Pure: the planner asks as well."""

from __future__ import annotations

from collections.abc import Sequence

from strop_trainer.plan import Initialization


def start_refusal(initialization: Initialization, embeddings: Sequence[str]) -> str | None:
    """Return why the adapters of embeddings do not start so, by the names found; None where there is no such layer.

    What was learnt from another start is saved as a change of twice the rank, which is of linear layers alone.
    """
    if initialization == "default" or not embeddings:
        return None
    return (
        f"method.lora.targetModules: found {', '.join(embeddings)}, an embedding, with initialization "
        f"{initialization}, allowed: linear layers, or initialization default"
    )
