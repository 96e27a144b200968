"""Models of encoder and decoder: they read one text and write another, and are published as two ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from strop_trainer.encoder_decoders import precisions_of
from strop_trainer.evaluation import ANSWER_ROWS, ANSWER_TOKENS
from strop_trainer.heads.causal import CausalHead, speed_up_adapters
from strop_trainer.heads.exports import export_each
from strop_trainer.tasks.base import Example
from strop_trainer.tasks.encoder_decoder import SourceQuestion

if TYPE_CHECKING:
    from strop_trainer.batches import Batch
    from strop_trainer.run import Run


class EncoderDecoderHead(CausalHead):
    """Trained, measured and saved as a causal model; read, asked, exported and proven in its own way."""

    unit = "rows"

    def check_architecture(self, run: Run) -> None:
        """Do nothing: the folder's configuration has told."""

    def tokenizer(self, run: Run, template: str | None) -> Any:
        """Load the tokenizer; where a token is in the text is not asked."""
        from strop_trainer import methods  # noqa: PLC0415

        return methods.load_tokenizer(run.model.path, template, fast=False)

    def load(self, run: Run) -> None:
        """Load the weights and add what is trained; rows are never packed."""
        self.load_weights(run)
        speed_up_adapters(run)
        run.packed = False

    def make_batch(self, run: Run, examples: Sequence[Example]) -> Batch:
        """Return one forward pass over rows, padded."""
        from strop_trainer import batches  # noqa: PLC0415

        return batches.pad_pairs(examples, run.loaded.tokenizer.pad_token_id)

    def pass_tokens(self, run: Run) -> int | None:
        """Return None: rows are never packed."""
        del run
        return None

    def answers(self, run: Run, model: Any, tokenizer: Any, asked: Sequence[Any]) -> list[str]:
        """Return a model's greedy answers, in the order of the questions."""
        from strop_trainer.batches import alike, pad  # noqa: PLC0415
        from strop_trainer.export.encoder_decoder import generate  # noqa: PLC0415
        from strop_trainer.export.reference import decode  # noqa: PLC0415
        from strop_trainer.greedy import end_tokens  # noqa: PLC0415

        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        training = base.training
        base.eval()
        ends, found = end_tokens(base, tokenizer), dict[int, str]()
        max_new_tokens = run.plan.training.evaluation.max_new_tokens
        lengths = [len(question.prompt_ids) + max_new_tokens for question in asked]
        # Questions that begin alike and are of like length go together.
        order = sorted(range(len(asked)), key=lambda at: (asked[at].given, len(asked[at].prompt_ids)))
        for given, group in groupby(order, lambda at: asked[at].given):
            for chosen in alike(list(group), lengths, ANSWER_TOKENS, rows=ANSWER_ROWS):
                sources = [Example(asked[at].prompt_ids, [False] * len(asked[at].prompt_ids)) for at in chosen]
                output = generate(
                    base,
                    pad(sources, tokenizer.pad_token_id).to(base.device).inputs,
                    given=given,
                    ends=ends,
                    max_new_tokens=max_new_tokens,
                    pad_id=tokenizer.pad_token_id,
                )
                for at, row in zip(chosen, output.sequences[:, len(given) :].tolist(), strict=True):
                    end = next((position for position, token in enumerate(row) if token in ends), len(row))
                    found[at] = decode(tokenizer, row[:end]).strip()
        base.train(training)
        return [found[at] for at in range(len(asked))]

    def export_onnx(self, run: Run) -> None:
        """Build the ONNX folders from the merged model."""
        from strop_trainer.export.encoder_decoder import export_encoder_decoder, keep_begin  # noqa: PLC0415 - seconds

        asked = [question for question in run.questions if isinstance(question, SourceQuestion)]
        begins = {(question.given, question.languages) for question in asked}
        if len(begins) == 1:  # else the languages differ, and whoever asks says which
            keep_begin(run.artifact("merged"), *begins.pop())
        export_each(run, precisions_of(run.plan.training), export_encoder_decoder)

    def prove(self, run: Run) -> None:
        """Compare logits, tokens and answers."""
        from strop_trainer.heads.encoder_decoder_proof import prove_encoder_decoder  # noqa: PLC0415 - numpy
        from strop_trainer.proof import with_scores  # noqa: PLC0415

        plan = run.plan.training
        found = prove_encoder_decoder(
            run.artifact("merged"),
            run.exports,
            [question for question in run.questions if isinstance(question, SourceQuestion)],
            plan.artifact.proof,
            plan.evaluation.max_new_tokens,
        )
        run.proofs += [with_scores(proof, run.questions, run.task.score) for proof in found]
