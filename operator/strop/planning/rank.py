"""The rank of a low-rank adapter, by what is known of the data before a row is read."""

from __future__ import annotations

from typing import Final

from strop.api.finetunejob import FineTuneJobSpec
from strop.api.quantities import MIB
from strop.planning.lengths import longest_row
from strop.planning.presets import ModelFacts, Shape
from strop_trainer.capacity import FEW_BITS_A_ROW, TOKENS_A_PARAMETER

_RANKS: Final = (16, 32, 64, 128)
"""A rank below the first saves little beside the frozen weights. The last bounds what is taken by itself: rows that
need more raise the question of method full."""
_CONFIG_MAP: Final = "configmap://"
_CONFIG_MAP_BYTES: Final = MIB
"""That Kubernetes lets a ConfigMap hold."""
_SOURCE: Final = "Schulman et al. 2025, LoRA Without Regret"


def choose_rank(spec: FineTuneJobSpec, facts: ModelFacts) -> tuple[int, str]:
    """Return the rank where the job gives none, and why.

    It is the lowest of 16, 32, 64 and 128 whose adapter holds what the rows can tell: a token tells about one bit, a
    parameter keeps about two (LoRA Without Regret; the second by Allen-Zhu & Li 2024). A rank higher than that does no
    harm but for memory; one too low learns more slowly. The best learning rate hardly depends on it.
    """
    least, most = _RANKS[0], _RANKS[-1]
    if spec.task in FEW_BITS_A_ROW:
        tells = "which answer is better" if spec.task == "preference" else "labels"
        return least, f"rows that tell {tells} have a few bits each: a low rank holds them ({_SOURCE})"
    known = _most_tokens(spec, facts)
    if known is None or facts.shape is None:
        missing = "size of the model" if known else "number of rows (without dataset.maxRows)"
        return least, (
            f"enough for instruction data of usual size ({_SOURCE}); the {missing} is not known, and the trainer "
            "notes where the learnt tokens are more than the adapter holds"
        )
    tokens, words = known
    a_rank = parameters_a_rank(facts.shape)
    enough = next((rank for rank in _RANKS if TOKENS_A_PARAMETER * rank * a_rank >= tokens), None)
    rank = enough or most
    holds = f"{rank * a_rank / 1e6:.1f}M parameters hold about {_in_words(TOKENS_A_PARAMETER * rank * a_rank)} tokens"
    if enough is None:
        return rank, f"the highest that is taken by itself: {holds}, and {words} may have more ({_SOURCE})"
    return rank, f"{holds}, and {words} have at most {_in_words(tokens)} ({_SOURCE})"


def parameters_a_rank(shape: Shape) -> int:
    """Return inputs + outputs of all linear layers: what an adapter has of parameters for each of its rank."""
    return shape.layers * sum(inputs + outputs for inputs, outputs in shape.linear_layers)


def _most_tokens(spec: FineTuneJobSpec, facts: ModelFacts) -> tuple[int, str] | None:
    """Return the tokens that one pass has at most, and of what, in words; None where nothing bounds them."""
    found: list[tuple[int, str]] = []
    rows, length = spec.dataset.max_rows, longest_row(spec, facts)
    if rows is not None:
        found.append((rows * length, f"{rows:,} rows of {length} tokens"))
    sources = [file.source for file in spec.dataset.train]
    if all(source.startswith(_CONFIG_MAP) for source in sources):
        maps = {source.removeprefix(_CONFIG_MAP).partition("/")[0] for source in sources}
        many = "a ConfigMap" if len(maps) == 1 else f"{len(maps)} ConfigMaps"
        # A token has a byte at least.
        found.append((len(maps) * _CONFIG_MAP_BYTES, f"the rows of {many}"))
    return min(found, default=None)


def _in_words(tokens: int) -> str:
    return f"{tokens / 1e6:.1f}M" if tokens >= 1e6 else f"{tokens:,}"  # noqa: PLR2004 - a million
