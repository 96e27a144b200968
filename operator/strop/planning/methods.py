"""What a method needs: its own options, and the learning rate that it learns at."""

from __future__ import annotations

from typing import Final

from strop.api.finetunejob import FineTuneJobSpec, LoraSpec, PromptSpec
from strop.planning.chooser import Chooser, given
from strop.planning.presets import ModelFacts
from strop.planning.rank import choose_rank
from strop_trainer.plan import LORA_METHODS, PROMPT_METHODS, LoraPlan, MethodPlan, MethodType

_ALPHA: Final = 32
_RSLORA_ALPHA: Final = 8
_VIRTUAL_TOKENS: Final = 20
_FULL_LEARNING_RATE: Final = 5e-5
_LORA_FACTOR: Final = 10
_UNKNOWN_SIZE_LEARNING_RATE: Final = 2e-5
_REFERENCE_HIDDEN: Final = 2000
_SIZE_EXPONENT: Final = {"qwen": 0.0775}
_DEFAULT_SIZE_EXPONENT: Final = 0.781
_OWN_LEARNING_RATES: Final[dict[MethodType, tuple[float, str]]] = {
    "ia3": (8e-3, "as PEFT's guide, for three epochs; the paper's 3e-3 is for a thousand steps (Liu et al. 2022)"),
    "prompt-tuning": (3e-2, "as PEFT's guide: the tokens are all there is to learn, and take large steps"),
    "prefix-tuning": (1e-2, "as P-tuning v2's range for prefixes without reparametrisation (Liu et al. 2022)"),
    "p-tuning": (1e-3, "as PEFT's guide: the network that makes the tokens takes steps of its own usual size"),
}
_STARTS: Final[dict[MethodType, tuple[str, str]]] = {
    "prompt-tuning": (
        "tokens of the vocabulary",
        "a better start than noise (Lester et al. 2021, figure 3)",
    ),
    "prefix-tuning": (
        "what the model has in mind after tokens of its vocabulary",
        "a better start than noise (Li & Liang 2021, section 7.4)",
    ),
    "p-tuning": (
        "tokens of the vocabulary",
        "the last layer is solved for them: what a network of random weights makes is unlike any token",
    ),
}


def resolve_method(spec: FineTuneJobSpec, facts: ModelFacts, chooser: Chooser) -> MethodPlan:
    """Resolve `spec.method`."""
    method = spec.method
    chooser.choose(
        "method.type",
        given(method, "type"),
        method.type,
        "an adapter learns what all weights do from rows of usual number, in a fraction of the memory "
        "(LoRA Without Regret)",
    )
    if method.type == "qlora":
        chooser.fixed(
            "quantization",
            "nf4, double",
            "4 bits by NormalFloat's values, and the scales of the blocks quantized once more (Dettmers et al. 2023)",
        )
    if method.type in LORA_METHODS:
        return MethodPlan(type=method.type, lora=_lora(spec, facts, chooser))
    if method.type in PROMPT_METHODS:
        tokens = chooser.choose(
            "method.prompt.virtualTokens",
            (method.prompt or PromptSpec()).virtual_tokens,
            _VIRTUAL_TOKENS,
            "more than 20 gain little (Lester et al. 2021)",
        )
        if method.type == "p-tuning":
            chooser.fixed(
                "width",
                facts.shape.hidden if facts.shape else "the model's",
                "that of the model, of the three linear layers that make the tokens, as PEFT has them",
            )
        chooser.fixed("start", *_STARTS[method.type])
        return MethodPlan(type=method.type, virtual_tokens=tokens)
    if method.type == "ia3":
        chooser.fixed(
            "modules",
            "keys, values, the MLP's product",
            "what the paper scales (Liu et al. 2022, section 3.3), by the names that the model's layers have",
        )
    return MethodPlan(type=method.type)


def learning_rate_of(spec: FineTuneJobSpec, facts: ModelFacts) -> tuple[float, str]:
    """Return the peak learning rate and why.

    Full fine-tuning's falls with the width of the model: 5e-5 x (2000 / hidden)^p, with p 0.0775 for the Qwen and 0.781
    for the Llama family, rounded to one digit; LoRA's is ten times that (Schulman et al. 2025, LoRA Without Regret, and
    its published code). It agrees with QLoRA's 2e-4 at 7B and with 1e-3 at 135M. Families that were not measured take
    Llama's exponent, which their architecture shares. Adapters that start at the principal part of the weights learn
    as full fine-tuning does; the other methods have rates of their own.
    """
    method = spec.method
    if method.type in _OWN_LEARNING_RATES:
        return _OWN_LEARNING_RATES[method.type]
    lora = method.lora or LoraSpec()
    factor, words = float(_LORA_FACTOR), " x 10 for LoRA"
    if method.type == "full":
        factor, words = 1.0, ""
    elif lora.initialization in {"pissa", "olora"}:
        factor = 1.0
        words = f" as for full fine-tuning, since {lora.initialization} starts at the weights' principal part"
    elif lora.plus_ratio is not None and lora.plus_ratio > 1:
        factor /= 2
        words = " x 10 for LoRA / 2 for LoRA+, whose B matrices learn faster (Hayou et al. 2024)"
    if facts.shape is None:
        rate = factor * _UNKNOWN_SIZE_LEARNING_RATE
        return rate, f"the size of the model is not known: 2e-5{words}, which makes QLoRA's 2e-4 for 7B"
    exponent = _SIZE_EXPONENT.get(facts.family, _DEFAULT_SIZE_EXPONENT)
    hidden = facts.shape.hidden
    exact = _FULL_LEARNING_RATE * factor * (_REFERENCE_HIDDEN / hidden) ** exponent
    return float(f"{exact:.0e}"), (
        f"5e-5{words} x (2000 / hidden size {hidden})^{exponent}, one digit (LoRA Without Regret); {facts.basis}"
    )


def _lora(spec: FineTuneJobSpec, facts: ModelFacts, chooser: Chooser) -> LoraPlan:
    lora = spec.method.lora or LoraSpec()
    rank = chooser.choose("method.lora.rank", lora.rank, *choose_rank(spec, facts))
    alpha = chooser.choose("method.lora.alpha", lora.alpha, *_alpha(lora, rank))
    dropout = chooser.choose(
        "method.lora.dropout",
        lora.dropout,
        0.0,
        "a few passes do well without (LoRA Without Regret), and its masks take time in each adapted layer",
    )
    if lora.target_modules is None:
        chooser.choose(
            "method.lora.targetModules",
            None,
            "all-linear",
            "all linear layers but the head: adapting attention alone learns less (QLoRA; LoRA Without Regret)",
        )
    chooser.choose("method.lora.modulesToSave", lora.modules_to_save, [], "the adapter is all that is trained")
    chooser.choose(
        "method.lora.useRslora",
        given(lora, "use_rslora"),
        False,  # noqa: FBT003
        "alpha / rank, which the learning rate is meant for; alpha / sqrt(rank) serves high ranks (Kalajdzievski 2023)",
    )
    chooser.choose(
        "method.lora.initialization",
        given(lora, "initialization"),
        lora.initialization,
        "at no effect, so that training starts at the base model as it is (Hu et al. 2021)",
    )
    chooser.choose("method.lora.plusRatio", lora.plus_ratio, 1, "A and B learn at one rate; LoRA+ is 16 or so")
    return LoraPlan(
        rank=rank,
        alpha=alpha,
        dropout=dropout,
        target_modules=lora.target_modules or "all-linear",
        modules_to_save=lora.modules_to_save or [],
        use_rslora=lora.use_rslora,
        initialization=lora.initialization,
        plus_ratio=lora.plus_ratio,
    )


def _alpha(lora: LoraSpec, rank: int) -> tuple[int, str]:
    if lora.initialization in {"pissa", "olora"}:
        return rank, f"the rank: the adapter is a part of the weights, at its own scale ({lora.initialization})"
    if lora.use_rslora:
        return _RSLORA_ALPHA, "alpha / sqrt(rank) is 2 at rank 16, as without rsLoRA, and falls more slowly with rank"
    return _ALPHA, "with alpha 32 the best learning rate hardly depends on the rank (LoRA Without Regret)"
