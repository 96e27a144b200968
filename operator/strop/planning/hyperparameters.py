"""Values that are left to Strop, each with where it comes from.

They go by what the job says and by what is known of the model, never by the pool: the same job gives the same plan
digest wherever it runs. Nor by the number of rows, which nobody knows before the trainer has read them. What only the
pool or the machine can tell is left as auto.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from strop.api import names
from strop.api.distributed import ranks_of
from strop.api.finetunejob import FineTuneJobSpec, TrainingSpec
from strop.planning.chooser import Chooser
from strop.planning.chooser import given as given_of
from strop.planning.encoder_decoders import PACKING as PADDED
from strop.planning.encoder_decoders import is_encoder_decoder
from strop.planning.inputs import PlanError
from strop.planning.labelled import (
    PACKING,
    label_learning_rate,
    question_learning_rate,
)
from strop.planning.lengths import CONVERSATIONS, usual_length
from strop.planning.methods import learning_rate_of
from strop.planning.preference import BETA, EPOCHS, WARMUP, preference_learning_rate, sequences_of
from strop.planning.presets import ModelFacts
from strop_trainer.plan import (
    LABEL_TASKS,
    PROMPT_METHODS,
    CheckpointPlan,
    EvaluationPlan,
    Hyperparameters,
    MethodPlan,
    Precision,
    Task,
)

_SMALL_MODEL: Final = 1_000_000_000
_EPOCHS: Final = 3.0
_SHORT_RUN_STEPS: Final = 100
_BATCH: Final = 16
_SMALL_BATCH: Final = 8
_FEW_ROWS: Final = 256
_PASS_TOKENS: Final = 2048
_LONG_ANSWERS: Final = ("summarization", "translation")
_TEXT_TOKENS: Final = 128
_SEED: Final = 42
_CHECKPOINTS_A_RUN: Final = 10
_CHECKPOINT_STEPS: Final = 50


def resolve_hyperparameters(
    spec: FineTuneJobSpec, method: MethodPlan, facts: ModelFacts, chooser: Chooser
) -> Hyperparameters:
    """Resolve `spec.training` for a resolved method.

    Raises:
        PlanError: a row may be longer than the model can read.
    """
    given = spec.training or TrainingSpec()
    pick = chooser.choose
    labels = spec.task in LABEL_TASKS
    pairs = spec.task == "preference"
    learning_rate = pick("training.learningRate", given.learning_rate, *_learning_rate(spec, facts))
    scheduler = pick(
        "training.scheduler",
        given.scheduler,
        "linear",
        "falling linearly to zero does as well as or better than cosine (Bergsma et al. 2025, Straight to Zero)",
    )
    if given.max_steps is None:
        usual = EPOCHS if pairs else (_EPOCHS, _usual_epochs(spec.task))
        epochs = pick("training.epochs", given.epochs, *usual)
    else:
        epochs = _EPOCHS
    warmup_ratio = pick("training.warmupRatio", given.warmup_ratio, *(WARMUP if pairs else _warmup(given.max_steps)))
    weight_decay = pick("training.weightDecay", given.weight_decay, 0.0, _no_decay(method))
    max_grad_norm = pick("training.maxGradNorm", given.max_grad_norm, 1.0, "the usual bound (Brown et al. 2020)")
    max_length = _max_length(given, method, facts, chooser, usual_length(spec.task, facts))
    row_tokens = sequences_of(spec.task) * max_length
    why = _usual_batch(spec.task, method)
    effective, micro = _batch(spec.dataset.max_rows, given, row_tokens, chooser, ranks_of(spec), why)
    packing = pick(
        "training.packing",
        given.packing,
        *(PADDED if is_encoder_decoder(facts) and not labels else _packing(method, labels=labels)),
    )
    precision: Precision = pick(
        "training.precision",
        given.precision,
        "auto",
        "bf16, or fp32 where a CPU without bf16 is faster in it and the pod has the memory, or an accelerator has no "
        "bf16: found out when training begins, so that the plan is the same anywhere",
    )
    gradient_checkpointing: bool | Literal["auto"] = pick(
        "training.gradientCheckpointing", given.gradient_checkpointing, *_checkpointing(method, facts, labels=labels)
    )
    seed = pick("training.seed", given.seed, _SEED, "fixed, so that a run can be repeated")
    deterministic = pick(
        "training.deterministic",
        given.deterministic,
        True,  # noqa: FBT003
        "a run that was interrupted ends as one that was not",
    )
    chooser.fixed("optimizer", "adamw", "AdamW (Loshchilov & Hutter 2019), betas 0.9 and 0.999, its state in fp32")
    beta = pick("training.preferenceBeta", given.preference_beta, *BETA) if pairs else None
    return Hyperparameters(
        learning_rate=learning_rate,
        scheduler=scheduler,
        warmup_ratio=warmup_ratio,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        optimizer="adamw",
        epochs=epochs,
        max_steps=given.max_steps,
        effective_batch_size=effective,
        micro_batch_size=micro,
        max_length=max_length,
        packing=packing,
        preference_beta=beta,
        precision=precision,
        gradient_checkpointing=gradient_checkpointing,
        seed=seed,
        deterministic=deterministic,
    )


def resolve_evaluation(spec: FineTuneJobSpec, chooser: Chooser) -> EvaluationPlan:
    """Resolve `spec.evaluation`."""
    given, default = spec.evaluation, EvaluationPlan()
    chooser.choose(
        "evaluation.everySteps", given.every_steps if given else None, "never", "the loss is measured at the end alone"
    )
    for bound in ("minimum", "maximum"):
        value: dict[str, float] | None = getattr(given, bound) if given else None
        chooser.choose(f"evaluation.{bound}", value, {}, "no gate: what is measured is published whatever it is")
    return EvaluationPlan(
        every_steps=given.every_steps if given else None,
        max_rows=chooser.choose(
            "evaluation.maxRows", given.max_rows if given else None, default.max_rows, "a loss steady enough to compare"
        ),
        generate_rows=chooser.choose(
            "evaluation.generateRows",
            given.generate_rows if given else None,
            default.generate_rows,
            "answers take long to generate on a CPU; more rows make the metric finer",
        ),
        max_new_tokens=chooser.choose(
            "evaluation.maxNewTokens",
            given.max_new_tokens if given else None,
            *(
                (_TEXT_TOKENS, "a few sentences")
                if spec.task in _LONG_ANSWERS
                else (default.max_new_tokens, "short answers")
            ),
        ),
        minimum=(given.minimum if given else None) or {},
        maximum=(given.maximum if given else None) or {},
    )


def resolve_checkpoint(spec: FineTuneJobSpec, hyperparameters: Hyperparameters, chooser: Chooser) -> CheckpointPlan:
    """Resolve `spec.checkpoint`: about ten in a run whose number of steps is known or bounded, else every 50 steps."""
    given = spec.checkpoint
    steps = hyperparameters.max_steps
    if steps is None and spec.dataset.max_rows is not None:
        steps = math.ceil(hyperparameters.epochs * spec.dataset.max_rows / hyperparameters.effective_batch_size)
    if steps is None:
        value, reason = _CHECKPOINT_STEPS, "the number of rows is not known before they are read"
    else:
        value, reason = max(1, math.ceil(steps / _CHECKPOINTS_A_RUN)), f"about ten in at most {steps} steps"
    every = chooser.choose("checkpoint.everySteps", given.every_steps if given else None, value, reason)
    keep = chooser.choose(
        "checkpoint.keep",
        given_of(spec.checkpoint, "keep"),
        CheckpointPlan(every_steps=every).keep,
        "the newest, and one to fall back to",
    )
    return CheckpointPlan(every_steps=every, keep=keep)


def _learning_rate(spec: FineTuneJobSpec, facts: ModelFacts) -> tuple[float, str]:
    if spec.task in LABEL_TASKS:
        return label_learning_rate(spec, facts)
    if spec.task == "question-answering":
        return question_learning_rate(spec, facts)
    return preference_learning_rate(spec, facts) if spec.task == "preference" else learning_rate_of(spec, facts)


def _warmup(max_steps: int | None) -> tuple[float, str]:
    if max_steps is not None and max_steps < _SHORT_RUN_STEPS:
        return 0.1, f"a run of {max_steps} steps is short: 3 % would be a step or two"
    return 0.03, "as QLoRA's (Dettmers et al. 2023)"


def _no_decay(method: MethodPlan) -> str:
    if method.lora is not None:
        return "the low rank regularises already (QLoRA)"
    return "a few passes at a low rate stay near the base model" if method.type == "full" else "few parameters"


def _checkpointing(method: MethodPlan, facts: ModelFacts, *, labels: bool) -> tuple[bool | Literal["auto"], str]:
    if labels and facts.parameters is None:
        return False, "encoders are small"
    if method.type == "prefix-tuning":
        return False, "what is recomputed would not see the prefix"
    if facts.parameters is None or facts.parameters > _SMALL_MODEL:
        return "auto", (
            "off where all activations fit in the pool's memory by the estimate, else on, which takes less memory and "
            "about a third more time (Chen et al. 2016)"
        )
    return False, "activations of a model up to 1B fit"


def _packing(method: MethodPlan, *, labels: bool) -> tuple[bool, str]:
    if labels:
        return PACKING
    if method.type in PROMPT_METHODS:
        return False, f"{method.type} puts tokens in front of each row"
    return True, "no time is spent on padding; rows are kept apart by their position ids"


def _max_length(
    given: TrainingSpec, method: MethodPlan, facts: ModelFacts, chooser: Chooser, usual: tuple[int, str]
) -> int:
    context, virtual = facts.context_length, method.virtual_tokens or 0
    limit = None if context is None else max(1, context - virtual)
    if given.max_length is not None and limit is not None and given.max_length > limit:
        besides = f" less {virtual} virtual tokens" if virtual else ""
        raise PlanError(
            names.Reason.INVALID,
            f"spec.training.maxLength: found {given.max_length}, allowed: up to {limit}, the model's context length"
            f"{besides} ({facts.basis})",
        )
    return chooser.choose(
        "training.maxLength",
        given.max_length,
        min(usual[0], limit or usual[0]),
        usual[1],
    )


def _usual_epochs(task: Task) -> str:
    if task in LABEL_TASKS:
        return "three passes, of BERT's two to four (Devlin et al. 2019, appendix A.3)"
    of = "instruction data" if task in CONVERSATIONS else "small sets of rows"
    return f"three passes, as is usual for {of}"


def _usual_batch(task: Task, method: MethodPlan) -> str:
    """Return why the usual number of rows makes a step."""
    if task in LABEL_TASKS:
        return "the smaller of BERT's 16 and 32 (Devlin et al. 2019, appendix A.3): more steps"
    if method.type == "qlora":
        return "QLoRA's for 7B and 13B (Dettmers et al. 2023); LoRA loses by large batches (LoRA Without Regret)"
    if method.lora is not None:
        return "LoRA loses by large batches (LoRA Without Regret); QLoRA's for 7B and 13B"
    return "small, so that a small set of rows makes enough steps"


def _batch(  # noqa: PLR0917 - what decides it
    rows: int | None, given: TrainingSpec, row_tokens: int, chooser: Chooser, ranks: int, reason: str
) -> tuple[int, int]:
    """Return (effective, micro) batch size, the first a multiple of the second and of the ranks."""
    batch = _BATCH
    if rows is not None and rows <= _FEW_ROWS:
        batch, reason = _SMALL_BATCH, f"few rows (at most {rows}): smaller batches give more steps"
    micro = given.micro_batch_size
    unit = (micro or 1) * ranks
    rounded = math.ceil(batch / unit) * unit
    if rounded != batch:
        shared = f" x {ranks} ranks" if ranks > 1 else ""
        batch, reason = rounded, f"{reason}; a multiple of {f'microBatchSize {micro}' if micro else '1'}{shared}"
    effective = chooser.choose("training.effectiveBatchSize", given.effective_batch_size, batch, reason)
    if micro is not None:
        return effective, micro
    limit = max(1, _PASS_TOKENS // row_tokens)
    micro = max(size for size in range(1, min(effective, limit) + 1) if effective % (size * ranks) == 0)
    return effective, chooser.choose(
        "training.microBatchSize",
        None,
        micro,
        f"the most that divides the batch within {_PASS_TOKENS} tokens a forward pass, or one row",
    )
