"""What a model is worth on rows that it has not learnt from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from strop_trainer.batches import Batch, alike, switch_of
from strop_trainer.chunked_logits import cross_entropy, summed
from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.greedy import end_tokens, greedily
from strop_trainer.plan import EvaluationPlan
from strop_trainer.tasks.base import Question

ANSWER_ROWS = 32
"""Rows that are answered in one batch, at most."""
ANSWER_TOKENS = 4096
"""Tokens of a batch's prompts and answers, at most, but for a single row: keys and values of all are held, and they are
to stay below what training needs beside the weights."""


@dataclass(frozen=True)
class Sample:
    """One held-out row with the models' answers, for the report."""

    prompt: str
    reference: str
    base: str
    tuned: str
    messages: list[dict[str, str]] = dataclasses.field(default_factory=list)
    """The prompt as it is given to a chat template; empty where the task has none."""
    merged: str | None = None
    """Of the merged model, where the adapter was trained on other weights than it is merged into."""


def held_out_metrics(model: Any, batches: Sequence[Batch]) -> dict[str, float]:
    """Return eval_loss (mean over the target tokens, nats), perplexity and token_accuracy; consumes no randomness."""
    import torch  # noqa: PLC0415 - seconds

    training = model.training
    model.eval()
    loss = hits = count = 0.0
    with torch.no_grad():
        for batch in (batch.to(model.device) for batch in batches):
            lost, hit = summed(model, batch, _loss_and_hits).tolist()
            loss, hits, count = loss + lost, hits + hit, count + batch.targets
    model.train(training)
    mean = loss / count
    return {
        "eval_loss": mean,
        "perplexity": math.exp(mean) if mean < 700 else math.inf,  # noqa: PLR2004 - the largest float is e^709
        "token_accuracy": hits / count,
    }


def _loss_and_hits(logits: Any, labels: Any) -> Any:
    """Return the cross-entropy and how many labels are the likeliest token: two sums, float64."""
    import torch  # noqa: PLC0415

    return torch.stack([cross_entropy(logits, labels).double(), (logits.argmax(-1) == labels).sum().double()])


def answer(model: Any, tokenizer: Any, questions: Sequence[Question], max_new_tokens: int) -> list[str]:
    """Return the model's greedy answers, in the order of the questions. The model's attention must take a mask.

    Args:
        model: in whatever mode; it is left as it was.
        tokenizer: of the model.
        questions: prompts of any length.
        max_new_tokens: length of an answer at most.
    """
    import torch  # noqa: PLC0415 - seconds

    training = model.training
    model.eval()
    ends = end_tokens(model, tokenizer)
    # Questions of like length go together: less padding.
    lengths = [len(question.prompt_ids) + max_new_tokens for question in questions]
    order = sorted(range(len(questions)), key=lengths.__getitem__)
    answers: dict[int, str] = {}
    for chosen in alike(order, lengths, ANSWER_TOKENS, rows=ANSWER_ROWS, switch=switch_of(model.config)):
        longest = max(len(questions[index].prompt_ids) for index in chosen)
        ids = torch.full((len(chosen), longest), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, index in enumerate(chosen):
            prompt = questions[index].prompt_ids
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        with (
            torch.no_grad(),
            greedily(model, ends=ends, pad_id=tokenizer.pad_token_id, max_new_tokens=max_new_tokens),
        ):
            output = model.generate(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))
        for index, row in zip(chosen, output[:, longest:].tolist(), strict=True):
            end = next((at for at, token in enumerate(row) if token in ends), len(row))
            answers[index] = tokenizer.decode(row[:end], skip_special_tokens=True).strip()
    model.train(training)
    return [answers[index] for index in range(len(questions))]


def apply_gates(metrics: dict[str, float], plan: EvaluationPlan, which: str = "tuned") -> None:
    """Stop a result that misses what the job asks for.

    Args:
        metrics: of a model on held-out rows.
        plan: with the gates.
        which: model it is, for the message.

    Raises:
        TrainerError: it does (exit 76), with the numbers.
    """
    missed = [
        f"{name}: found {metrics.get(name, math.nan):.4g}, {words} {bound:.4g}"
        for bounds, words, holds in (
            (plan.minimum, "expected at least", lambda found, bound: found >= bound),
            (plan.maximum, "expected at most", lambda found, bound: found <= bound),
        )
        for name, bound in bounds.items()
        if not holds(metrics.get(name, math.nan), bound)
    ]
    if missed:
        raise TrainerError(
            ExitCode.PROOF_FAILED,
            f"the {which} model misses a metric gate and is not published: " + "; ".join(missed),
            reason="MetricGateMissed",
        )
