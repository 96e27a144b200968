"""Causal language models that learn from preferences, by direct preference optimisation (DPO, Rafailov et al. 2023).

With x the prompt, c and r the chosen and the rejected answer, p the model and q the model before training:

    loss = -log sigmoid(beta * ((log p(c|x) - log q(c|x)) - (log p(r|x) - log q(r|x))))

beta * log(p/q) is the reward of an answer (equations 5 and 7). q's log-probabilities are computed once, before the
first step, by the model that is then trained: there is no second one in memory.

Legend: P pairs of a pass, N tokens of their answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

from strop_trainer import batches
from strop_trainer.batches import Batch
from strop_trainer.checkpoints import load_newest, save_checkpoint
from strop_trainer.chunked_logits import in_parts, token_losses
from strop_trainer.context import say
from strop_trainer.heads.causal import CausalHead
from strop_trainer.plan import PROMPT_METHODS
from strop_trainer.progress import Part
from strop_trainer.tasks.preference import ANSWERS, Pair

if TYPE_CHECKING:
    from strop_trainer.run import Run
    from strop_trainer.tasks.base import Example

REFERENCE: Final = "reference"
"""Folder of the log-probabilities before training, beside the checkpoints."""
TIE: Final = 0.5
"""What a pair counts whose answers are rewarded alike, as all are by the model before training."""


@dataclass(frozen=True)
class PairBatch(Batch):
    """Input of one forward pass over pairs: both sequences of a pair stand next to each other."""

    lengths: tuple[int, ...] = ()
    """Tokens of each answer: chosen, rejected, chosen, rejected, …; their sum is N."""
    reference: Any = None
    """(P, 2) log-probabilities before training, chosen and rejected; fp32."""

    @property
    def targets(self) -> int:
        """P: the loss is a mean over pairs."""
        return len(self.lengths) // len(ANSWERS)

    def to(self, device: Any) -> Self:
        """Return the batch with its tensors on a device."""
        return replace(super().to(device), reference=self.reference.to(device))


class PreferenceHead(CausalHead):
    """DPO. Loaded, exported and proven as any causal model."""

    unit = "pairs"

    def make_batch(self, run: Run, examples: Sequence[Example]) -> PairBatch:
        """Return one forward pass over pairs, packed or padded."""
        import torch  # noqa: PLC0415

        pairs = _pairs(examples)
        sides = [side for pair in pairs for side in pair.sides]
        batch = super().make_batch(run, sides)
        return PairBatch(
            **{name: getattr(batch, name) for name in ("inputs", "keep", "select", "labels", "tokens")},
            lengths=tuple(side.target_count for side in sides),
            reference=torch.tensor([pair.reference for pair in pairs], dtype=torch.float32),
        )

    def before_training(self, run: Run, identity: Mapping[str, str]) -> None:
        """Give all pairs their log-probabilities before training: those of an earlier attempt, else computed now.

        They are the model's own, which is the base model yet; tokens in front of each row, which change it from the
        start, are left out.
        """
        import torch  # noqa: PLC0415

        begin, folder = time.monotonic(), run.settings.work / REFERENCE
        found = load_newest(folder, identity)
        if found is not None:
            train, held = found.tensors["train"], found.tensors["held_out"]
        else:
            say(f"  what the model gives {len(run.encoded.examples)} pairs before training is computed once")
            total = len(run.encoded.examples) + sum(batch.targets for batch in run.held_out)
            part = Part(run.progress, "reference", total, "pairs")
            prompts = run.plan.training.method.type in PROMPT_METHODS
            with run.loaded.as_base() if prompts else nullcontext(run.loaded.model) as model:
                train = self._train_reference(run, model, part)
                held = torch.cat([_counted(part, _log_probabilities(model, batch)) for batch in run.held_out])
            part.end()
            answers = {"train": train, "held_out": held}
            save_checkpoint(folder, 0, answers.items(), {}, keep=1, identity=identity)
            say(f"  {len(train) + len(held)} pairs, held-out ones included, in {time.monotonic() - begin:.1f} s")
        run.encoded.examples[:] = [
            replace(pair, reference=tuple(values))
            for pair, values in zip(_pairs(run.encoded.examples), train.tolist(), strict=True)
        ]
        run.held_out = _with_reference(run.held_out, held)

    def _train_reference(self, run: Run, model: Any, part: Part) -> Any:
        """Return (rows, 2) log-probabilities of the training pairs by the model as it is."""
        import torch  # noqa: PLC0415

        hyperparameters, pairs = run.plan.training.hyperparameters, _pairs(run.encoded.examples)
        found = torch.empty(len(pairs), len(ANSWERS))
        # In portions as in training, so that a pair has the neighbours in a pass that it may have there.
        for start in range(0, len(pairs), hyperparameters.effective_batch_size):
            portion = pairs[start : start + hyperparameters.effective_batch_size]
            groups = batches.micro_batches(
                portion, hyperparameters.micro_batch_size, packed=run.packed, tokens=self.pass_tokens(run)
            )
            for group in groups:
                values = _counted(part, _log_probabilities(model, self.make_batch(run, group)))
                found[[pair.row for pair in _pairs(group)]] = values
        return found

    def loss(self, run: Run) -> Callable[[Batch], Any]:
        """Return DPO's loss; `before_training` has given the pairs their reference."""
        from torch.nn.functional import logsigmoid  # noqa: PLC0415

        model, beta = run.loaded.model, _beta(run)

        def loss(batch: Batch) -> Any:
            moved: Any = batch.to(model.device)
            rewards = beta * (answer_log_probabilities(model, moved) - moved.reference)
            return -logsigmoid(rewards[:, 0] - rewards[:, 1]).sum()

        return loss

    def measure(self, run: Run, model: Any) -> dict[str, float]:
        """Measure a model on the held-out pairs; see `measured`."""
        held: list[Any] = run.held_out
        found = [_log_probabilities(model, batch) for batch in held]
        return measured(found, [batch.reference for batch in held], _beta(run))

    def measure_merged(self, run: Run, merged: Any) -> dict[str, float]:
        """Measure the merged model against the base model as it is published, not as it was trained on."""
        import torch  # noqa: PLC0415
        from transformers import AutoModelForCausalLM  # noqa: PLC0415

        from strop_trainer.heads.merged import put_near  # noqa: PLC0415

        base = AutoModelForCausalLM.from_pretrained(
            run.model.path, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        put_near(run, base)
        base.set_attn_implementation(merged.config._attn_implementation)
        found, reference = ([_log_probabilities(model, batch) for batch in run.held_out] for model in (merged, base))
        return measured(found, reference, _beta(run))


def answer_log_probabilities(model: Any, batch: PairBatch) -> Any:
    """Return (P, 2) log-probabilities of the chosen and the rejected answers: sums over their tokens, in fp32."""
    import torch  # noqa: PLC0415

    losses = torch.cat(in_parts(model, batch, token_losses))
    return -torch.stack([answer.sum() for answer in losses.split(batch.lengths)]).view(-1, len(ANSWERS))


def measured(found: Sequence[Any], reference: Sequence[Any], beta: float) -> dict[str, float]:
    """Return the metrics of a model on pairs.

    - eval_loss: DPO's, mean over the pairs; ln 2 for the model before training.
    - reward_accuracy: share of the pairs whose chosen answer is rewarded more; rewarded alike counts a half.
    - reward_margin: reward of the chosen answer less that of the rejected one, mean over the pairs.
    - chosen_likelier: share of the pairs whose chosen answer is the likelier one, whatever it was before training.

    Args:
        found: (P, 2) log-probabilities by the model, chosen and rejected, of each batch.
        reference: the same before training.
        beta: DPO's.
    """
    import torch  # noqa: PLC0415

    now, before = torch.cat(list(found)).double(), torch.cat(list(reference)).double()
    gains = beta * (now - before)
    margins, likelier = gains[:, 0] - gains[:, 1], now[:, 0] - now[:, 1]
    return {
        "eval_loss": float(-torch.nn.functional.logsigmoid(margins).mean()),
        "reward_accuracy": float(torch.heaviside(margins, torch.tensor(TIE, dtype=margins.dtype)).mean()),
        "reward_margin": float(margins.mean()),
        "chosen_likelier": float(torch.heaviside(likelier, torch.tensor(TIE, dtype=likelier.dtype)).mean()),
    }


def _log_probabilities(model: Any, batch: Any) -> Any:
    """Return `answer_log_probabilities` without a gradient, of the model in evaluation mode, in the host's memory."""
    import torch  # noqa: PLC0415

    training = model.training
    model.eval()
    with torch.no_grad():
        found = answer_log_probabilities(model, batch.to(model.device)).cpu()
    model.train(training)
    return found


def _counted(part: Part, values: Any) -> Any:
    part.add(len(values))
    return values


def _with_reference(held_out: Sequence[Any], reference: Any) -> list[Any]:
    parts = reference.split([batch.targets for batch in held_out])
    return [replace(batch, reference=part) for batch, part in zip(held_out, parts, strict=True)]


def _pairs(examples: Sequence[Example]) -> list[Pair]:
    return [example for example in examples if isinstance(example, Pair)]


def _beta(run: Run) -> float:
    beta = run.plan.training.hyperparameters.preference_beta
    assert beta is not None  # noqa: S101 - check_model refuses a plan without it
    return beta
