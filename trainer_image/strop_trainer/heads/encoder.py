"""Models that put out labels or places: encoders, and decoders that transformers has such a head for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from strop_trainer.context import say
from strop_trainer.device import CPU
from strop_trainer.encoder_decoders import precisions_of
from strop_trainer.evaluation import Sample
from strop_trainer.heads import encoder_model
from strop_trainer.heads.exports import export_each
from strop_trainer.heads.label_losses import LOSSES
from strop_trainer.heads.merged import EXACT, hold_merged, prove_merged, prove_reloaded, put_near, rounds
from strop_trainer.lengths import in_words, lost_in_words, measure_lengths
from strop_trainer.tasks.row_store import spread
from strop_trainer.threads import give_back_freed_memory

if TYPE_CHECKING:
    from pathlib import Path

    from strop_trainer.batches import Batch
    from strop_trainer.run import Run
    from strop_trainer.tasks.base import Example
    from strop_trainer.tasks.labelled import LabelledExample, LabelledTask, Labels, Outputs

PROVEN_ROWS = 200
"""Held-out rows on which both sides are run, at most: one pass each, so more than where answers are generated."""
PROVEN_ANSWERS = 8


class EncoderHead:
    """Classification of texts and words, and answers that are parts of a text."""

    labels: Labels
    held: list[list[LabelledExample]]
    rows: Sequence[bytes]
    pad_id: int
    base: tuple[dict[str, float], list[Any]]
    """What the untrained head says: metrics and predictions; measured first, as method full changes all weights."""

    def __init__(self, task: LabelledTask) -> None:
        self.task = task

    def prepare(self, run: Run) -> None:
        """Collect the labels, turn rows into tokens, load the model with a head of its own."""
        from strop_trainer import methods  # noqa: PLC0415 - torch

        plan, task = run.plan.training, self.task
        hyperparameters = plan.hyperparameters
        encoder_model.check_labelled_architecture(run.model.model_type, task.auto_class)
        tokenizer = methods.load_tokenizer(run.model.path)
        config = json.loads((run.model.path / "config.json").read_bytes())
        tokenizer.model_input_names = encoder_model.input_names(config)
        self.labels, self.pad_id = task.labels(run.dataset.train), int(tokenizer.pad_token_id)
        run.encoded = task.tokenize(run.dataset.train, tokenizer, hyperparameters.max_length, self.labels)
        evaluated = plan.evaluation.max_rows
        self.rows = spread(run.dataset.validation, evaluated)[:evaluated]
        held = task.tokenize(self.rows, tokenizer, hyperparameters.max_length, self.labels)
        size = hyperparameters.micro_batch_size
        examples: list[Any] = list(held.examples)
        self.held = [examples[start : start + size] for start in range(0, len(examples), size)]
        new = self.load(run)
        run.packed, run.questions = False, []
        run.set_pass = lambda _step, _micro: None
        run.held_out = [self.make_batch(run, part) for part in self.held]
        self.base = self._measure(run)
        self._describe(run, new)

    def load(self, run: Run) -> tuple[str, ...]:
        """Load the model with a head of its own and add what is trained; return the names of what is new."""
        from strop_trainer import methods  # noqa: PLC0415 - torch

        plan, task = run.plan.training, self.task
        hyperparameters = plan.hyperparameters
        tokenizer = methods.load_tokenizer(run.model.path)
        tokenizer.model_input_names = encoder_model.input_names(
            json.loads((run.model.path / "config.json").read_bytes())
        )
        found = encoder_model.load_with_head(
            run.model.path,
            task.auto_class,
            self.labels,
            hyperparameters.seed,
            bf16=hyperparameters.precision == "bf16" and plan.method.type != "full",
            pad_id=self.pad_id,
            quantized_on=run.device if plan.method.type == "qlora" else None,
        )
        methods.check_vocabulary(found.model, tokenizer)
        run.loaded = methods.prepare_method(
            found.model.to(CPU if run.apart else run.device),
            encoder_model.plan_with_head(plan, found),
            tokenizer,
            run.model.path,
            task.peft_type,
            found.new,
        )
        return found.new

    def make_batch(self, run: Run, examples: Sequence[Example]) -> Batch:
        """Return one forward pass over rows, padded."""
        import torch  # noqa: PLC0415

        from strop_trainer.batches import Batch  # noqa: PLC0415
        from strop_trainer.export.encoder import model_inputs  # noqa: PLC0415

        del run
        rows: list[Any] = list(examples)
        inputs = model_inputs(rows, self.pad_id)
        labels, select = LOSSES[self.task.peft_type].tensors(rows, inputs["input_ids"].shape[1])
        nothing = torch.empty(0, dtype=torch.long)
        return Batch(inputs, nothing, select, labels, sum(len(row.input_ids) for row in rows))

    def pass_tokens(self, run: Run) -> int | None:
        """Return None: rows are never packed."""
        del run
        return None

    def before_training(self, run: Run, identity: Mapping[str, str]) -> None:
        """Do nothing: the loss goes by the rows alone."""

    def loss(self, run: Run) -> Callable[[Batch], Any]:
        """Return the task's loss."""

        def loss(batch: Batch) -> Any:
            moved = batch.to(run.device)
            found = self._outputs(run.loaded.model, moved, mixed=self._mixed(run))
            return LOSSES[self.task.peft_type].loss(found, moved, self.labels)

        return loss

    def held_out_metrics(self, run: Run) -> dict[str, float]:
        """Return eval_loss and the task's metrics."""
        return self._measure(run)[0]

    def evaluate(self, run: Run) -> None:
        """Measure the tuned model, beside the untrained head and the most frequent answer."""
        before, predicted = self.base
        run.metrics_tuned, after = self._measure(run)
        baseline = self.task.baseline(run.dataset.train, self.rows, self.labels)
        run.metrics_base = before | {f"majority_{name}": value for name, value in baseline.items()}
        if baseline:
            say("  always the most frequent answer: " + ", ".join(f"{n} {v:.4f}" for n, v in baseline.items()))
        shown = zip(self.rows, predicted, after, strict=True)
        run.samples = [
            Sample(*self.task.show(row), self.task.show(row, base)[1], self.task.show(row, tuned)[1])
            for row, base, tuned in list(shown)[: run.plan.training.evaluation.generate_rows]
        ]

    def export(self, run: Run) -> None:
        """Write adapter, merged model and the ONNX folders."""
        from strop_trainer.export.merge import save_tuned  # noqa: PLC0415

        plan, merged = run.plan.training, run.artifact("merged")
        # What was trained on a base that is not the published one may say something else on that.
        moved = plan.method.type == "qlora"
        written = bool(precisions_of(plan)) or plan.artifact.merged
        if run.loaded.has_adapter:
            trained = self._save_adapter(run, moved=moved)
            if written or moved:
                self._merge(run, merged if written else None, trained, moved=moved)
        else:
            save_tuned(run.loaded.model, run.model.path, merged)
            del run.loaded
        run.held_out = []
        give_back_freed_memory()
        if not written:
            return
        from strop_trainer.export.encoder import export_encoder  # noqa: PLC0415

        longest = max((row for part in self.held for row in part), key=lambda row: len(row.input_ids))
        export_each(
            run,
            precisions_of(plan),
            partial(export_encoder, auto_class=self.task.auto_class, outputs=self.task.outputs, example=longest),
        )

    def _save_adapter(self, run: Run, *, moved: bool) -> list[Any] | None:
        """Write the adapter, drop the loaded model, and try the adapter where it was trained on the published base.

        Returns:
            what the trained model puts out, in fp32; None where its base was another.

        Raises:
            TrainerError: loaded again, it is not what was trained (exit 76).
        """
        plan, loaded, adapter = run.plan.training, run.loaded, run.artifact("adapter")
        del run.loaded
        loaded.save_adapter(adapter, plan.model.source.removeprefix("hf://"))
        trained = None if moved else self._look(run, loaded.model.to(CPU).float())
        # What comes now is made from the untouched base; the two need not be in memory at once.
        del loaded
        give_back_freed_memory()
        if trained is not None:
            again = encoder_model.load_adapter_with_head(
                run.model.path,
                adapter,
                self.task.auto_class,
                self.labels,
                seed=plan.hyperparameters.seed,
                pad_id=self.pad_id,
                bf16=plan.hyperparameters.precision == "bf16",
            )
            run.reloaded = prove_reloaded(trained, self._look(run, again), EXACT)
            del again
            give_back_freed_memory()
        return trained

    def _merge(self, run: Run, out: Path | None, trained: list[Any] | None, *, moved: bool) -> None:
        """Fold the adapter into the base model, compare, and measure what is published.

        Raises:
            TrainerError: it is not what was trained, or misses a gate (exit 76).
        """
        hyperparameters = run.plan.training.hyperparameters
        found = encoder_model.merge_with_head(
            run.model.path,
            run.artifact("adapter"),
            out,
            self.task.auto_class,
            self.labels,
            seed=hyperparameters.seed,
            pad_id=self.pad_id,
            look=partial(self._look, run),
        )
        run.merged = prove_merged(found, None if rounds(run.model.path, hyperparameters.precision) else trained)
        put_near(run, found.model)
        metrics, predicted = self._measure(run, found.model)
        shown = zip(self.rows, predicted, strict=True)
        answers = [self.task.show(row, said)[1] for row, said in list(shown)[: len(run.samples)]] if moved else []
        hold_merged(run, metrics, answers, moved=moved)

    def _look(self, run: Run, model: Any) -> list[Any]:
        """Return what an fp32 model on the CPU puts out for the first batch of held-out rows: a tensor an output."""
        import torch  # noqa: PLC0415

        from strop_trainer.export.encoder import split_rows  # noqa: PLC0415

        model.eval()
        with torch.no_grad():
            found = self._outputs(model, run.held_out[0], mixed=False)
        # Without padding, for which outputs mean nothing.
        rows = split_rows([output.numpy() for output in found], self.held[0])
        return [torch.cat([torch.from_numpy(part).flatten() for part in parts]) for parts in zip(*rows, strict=True)]

    def prove(self, run: Run) -> None:
        """Compare outputs, labels and metrics of each export with PyTorch's."""
        from strop_trainer.export import encoder  # noqa: PLC0415
        from strop_trainer.heads.encoder_proof import (  # noqa: PLC0415
            LabelProof,
            label_bounds,
            largest_difference,
        )
        from strop_trainer.proof import Answer, complaints  # noqa: PLC0415

        task, limits = self.task, run.plan.training.artifact.proof
        rows = self.rows[: max(limits.rows, PROVEN_ROWS)]
        batches = [[row for row in part if row.row < len(rows)] for part in self.held]
        batches = [part for part in batches if part]
        examples = [row for part in batches for row in part]
        exact = encoder.run_torch(run.artifact("merged"), task.auto_class, task.outputs, batches)
        expected = task.predict(exact, examples, rows, self.labels)
        metrics = task.measure(expected, rows, self.labels)
        for precision, folder in run.exports.items():
            found = encoder.run_onnx(folder, task.outputs, batches, self.pad_id, run.threads)
            predicted = task.predict(found, examples, rows, self.labels)
            measured = task.measure(predicted, rows, self.labels)
            difference = largest_difference(exact, found)
            agreement = sum(a == b for a, b in zip(expected, predicted, strict=True)) / len(rows)
            judged_by = label_bounds(precision, difference, agreement, (metrics, measured), limits)
            reasons = complaints(judged_by, finite=math.isfinite(difference))
            there = encoder.weight_precision(folder / encoder.FILE)
            if there != precision:
                reasons = [f"weights: found {there}, expected {precision}", *reasons]
            shown = zip(rows[:PROVEN_ANSWERS], expected, predicted, strict=False)
            answers = [Answer(task.show(row)[1], task.show(row, a)[1], task.show(row, b)[1]) for row, a, b in shown]
            run.proofs.append(
                LabelProof(
                    folder.name,
                    precision,
                    len(rows),
                    difference,
                    agreement,
                    metrics,
                    measured,
                    tuple(reasons),
                    tuple(answers),
                    tuple(judged_by),
                )
            )

    @staticmethod
    def _mixed(run: Run) -> bool:
        """Whether the loaded model is to compute in bf16; one that is trained in full does so by itself."""
        return run.plan.training.hyperparameters.precision == "bf16" and run.loaded.has_adapter

    def _outputs(self, model: Any, batch: Batch, *, mixed: bool) -> Outputs:
        import torch  # noqa: PLC0415

        # PEFT 0.21 drops token_type_ids on the way to a model for questions; an export reads them.
        called = model.base_model if hasattr(model, "get_base_model") else model
        with torch.autocast(model.device.type, torch.bfloat16, enabled=mixed):
            found = called(**batch.inputs)
        return tuple(getattr(found, name) for name in self.task.outputs)

    def _measure(self, run: Run, merged: Any = None) -> tuple[dict[str, float], list[Any]]:
        """Return metrics and predictions on the held-out rows, of the loaded model unless there is a merged one."""
        import torch  # noqa: PLC0415

        from strop_trainer.export.encoder import split_rows  # noqa: PLC0415

        model, mixed = (run.loaded.model, self._mixed(run)) if merged is None else (merged, False)
        training, outputs, loss, count = model.training, [], 0.0, 0
        model.eval()
        with torch.no_grad():
            for examples, batch in zip(self.held, run.held_out, strict=True):
                moved = batch.to(model.device)
                found = self._outputs(model, moved, mixed=mixed)
                loss += float(LOSSES[self.task.peft_type].loss(found, moved, self.labels))
                count += batch.targets
                outputs += split_rows([output.float().cpu().numpy() for output in found], examples)
        model.train(training)
        held = [row for part in self.held for row in part]
        predicted = self.task.predict(outputs, held, self.rows, self.labels)
        return {"eval_loss": loss / count, **self.task.measure(predicted, self.rows, self.labels)}, predicted

    def _describe(self, run: Run, new: Sequence[str]) -> None:
        from strop_trainer.schedule import Schedule  # noqa: PLC0415

        plan, encoded, names = run.plan.training.hyperparameters, run.encoded, self.labels.names
        loaded = run.loaded
        schedule = Schedule.of(plan, len(encoded.examples))
        if self.task.peft_type != "QUESTION_ANS":
            several = ", any number of them a row" if self.labels.several else ""
            say(f"  labels: {len(names)}{several}: {', '.join(names[:12])}{', …' if len(names) > 12 else ''}")  # noqa: PLR2004
        say(f"  tokens: {encoded.tokens:,} in {len(encoded.examples)} sequences; {', '.join(new)} trained in full")
        if lengths := measure_lengths(encoded.lengths, plan.max_length, in_pieces=encoded.in_pieces):
            say(f"  lengths: {in_words(lengths)}")
        for lost in lost_in_words(encoded, plan.max_length, "rows"):
            say(f"  note: {lost}")
        say(
            f"  parameters: {loaded.total_parameters:,}, of them {loaded.trainable_parameters:,} "
            f"({loaded.trainable_parameters / loaded.total_parameters:.2%}) trained"
        )
        say(
            f"  steps: {schedule.total_steps} ({schedule.steps_per_epoch} an epoch, {schedule.warmup_steps} of warm-up)"
            f" of {plan.effective_batch_size} rows; precision {plan.precision}, {run.threads} threads"
        )
