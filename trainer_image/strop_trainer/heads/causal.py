"""Causal language models: they answer in words, and are published for ONNX Runtime GenAI."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from strop_trainer import evaluation
from strop_trainer.capacity import capacity_note
from strop_trainer.context import say
from strop_trainer.device import CPU, release
from strop_trainer.documents import AdapterProof
from strop_trainer.errors import bad_data
from strop_trainer.heads.exports import export_each, export_on_bases
from strop_trainer.heads.merged import EXACT, hold_merged, prove_merged, prove_reloaded, put_near, rounds
from strop_trainer.heads.unfit import in_their_places
from strop_trainer.lengths import in_words, lost_in_words, measure_lengths
from strop_trainer.plan import CPU_PASS_TOKENS
from strop_trainer.shared_bases import ADAPTER_FILE, ADAPTER_FOLDER
from strop_trainer.tasks.given_template import keep_given_template
from strop_trainer.tasks.plain_template import keep_template
from strop_trainer.tasks.row_store import spread
from strop_trainer.tasks.rows import RowRules, UnfitRowsError
from strop_trainer.threads import give_back_freed_memory

if TYPE_CHECKING:
    from strop_trainer.batches import Batch
    from strop_trainer.methods import LoadedModel
    from strop_trainer.run import Run
    from strop_trainer.tasks.base import Encoded, Example, Question

RELOADED_BATCHES = 4
"""In half precision; in fp32, which takes several times longer on a CPU, one tells more than these."""
RELOADED_POSITIONS = 256
"""Of each, which bounds what is kept of them."""
ROUNDED_PRODUCTS = 7
"""Matrix products of a layer: attention's four and the MLP's three."""


def reloaded_limit(precision: str, layers: int) -> float:
    """Return by what share of their norm logits may differ between the trained model and PEFT's own of its adapter.

    The two compute in another order. In half precision each product rounds by 2^-8, and the errors of so many products
    add up as those of a random walk: 0.042 was seen with the 30 layers of SmolLM2-135M, whose limit is 0.057.

    Args:
        precision: in which both compute here; fp32 on a CPU, that of training on an accelerator, whose memory need not
            have room for fp32 weights of what has just fitted.
        layers: of the model.
    """
    if precision == "fp32":
        return EXACT
    return 2**-8 * math.sqrt(ROUNDED_PRODUCTS * layers)


def layers_of(config: Any) -> int:
    """Return the layers that a logit has gone through; attention to a source counts as a layer of its own."""
    if not config.is_encoder_decoder:
        return int(config.get_text_config().num_hidden_layers)
    decoder = getattr(config, "num_decoder_layers", None) or config.decoder_layers
    return int(config.num_hidden_layers) + 2 * int(decoder)


class CausalHead:
    """The next token: chat and whatever else is learnt and answered as text."""

    unit = "sequences"
    """What an example is, in words."""

    def prepare(self, run: Run) -> None:
        """Load tokens and weights, and decide how rows share a forward pass."""
        from strop_trainer.batches import micro_batches, switch_of, with_sides  # noqa: PLC0415

        plan = run.plan.training
        hyperparameters = plan.hyperparameters
        self.check_architecture(run)
        tokenizer = self.tokenizer(run, plan.model.chat_template)
        run.encoded = self.encode(run, run.dataset.train, tokenizer)
        held_out, evaluated = run.dataset.validation, plan.evaluation.max_rows
        held = self.encode(run, spread(held_out, evaluated)[:evaluated], tokenizer)
        asked = max(plan.evaluation.generate_rows, plan.artifact.proof.rows)
        run.questions = self._questions(run, spread(held_out, asked), tokenizer, asked)
        if not run.questions and (plan.evaluation.generate_rows or plan.artifact.onnx):
            raise bad_data(
                f"dataset.validation: found no row whose prompt is shorter than {hyperparameters.max_length} tokens "
                "(training.maxLength), expected at least one to be answered"
            )
        run.chat_template = tokenizer.chat_template
        self.load(run)
        switch = switch_of(run.loaded.base.config)
        run.encoded.examples[:] = with_sides(run.encoded.examples, switch)
        groups = micro_batches(
            with_sides(held.examples, switch),
            hyperparameters.micro_batch_size,
            packed=run.packed,
            tokens=self.pass_tokens(run),
        )
        run.held_out = [self.make_batch(run, group) for group in groups]
        _describe(run, self.pass_tokens(run), self.unit)

    def check_architecture(self, run: Run) -> None:
        """Check that transformers itself has the model.

        Raises:
            TrainerError: it has not (exit 78).
        """
        from strop_trainer import methods  # noqa: PLC0415 - torch

        methods.check_architecture(run.model.model_type, run.model.architecture)

    def tokenizer(self, run: Run, template: str | None) -> Any:
        """Load the tokenizer, with a chat template in place of its own where one is given."""
        from strop_trainer import methods  # noqa: PLC0415

        return methods.load_tokenizer(run.model.path, template)

    def load(self, run: Run) -> None:
        """Load the weights, add what is trained, and try how rows can share a forward pass."""
        self.load_weights(run)
        speed_up_adapters(run)
        _choose_packing(run)

    def load_weights(self, run: Run) -> None:
        """Load the weights and add what is trained."""
        from strop_trainer import methods  # noqa: PLC0415

        tokenizer = self.tokenizer(run, run.chat_template)
        # Weights that are dealt out are put on the accelerator in parts.
        device = CPU if run.apart else run.device
        run.loaded = methods.load_model(run.model.path, run.plan.training, tokenizer, device)

    def encode(self, run: Run, rows: Sequence[bytes], tokenizer: Any) -> Encoded:
        """Return rows as tokens.

        Raises:
            TrainerError: some cannot be learnt from, with their files and places (exit 65).
        """
        with _told_in_their_places(run):
            return run.task.encode(rows, tokenizer, run.plan.training.hyperparameters.max_length)

    def _questions(self, run: Run, rows: Sequence[bytes], tokenizer: Any, asked: int) -> list[Question]:
        """Return what the model is asked of held-out rows, of which not all need have been evaluated."""
        with _told_in_their_places(run):
            return run.task.questions(rows, tokenizer, run.plan.training.hyperparameters.max_length, asked)

    def make_batch(self, run: Run, examples: Sequence[Example]) -> Batch:
        """Return one forward pass over rows, packed or padded."""
        from strop_trainer import batches  # noqa: PLC0415

        return batches.pack(examples) if run.packed else batches.pad(examples, run.loaded.tokenizer.pad_token_id)

    def pass_tokens(self, run: Run) -> int | None:
        """Return the tokens that a packed forward pass is bounded to, or None."""
        return CPU_PASS_TOKENS if run.device == CPU else None

    def before_training(self, run: Run, identity: Mapping[str, str]) -> None:
        """Do nothing: the loss goes by the rows alone."""

    def loss(self, run: Run) -> Callable[[Batch], Any]:
        """Return the cross-entropy of the target tokens, in nats."""
        from strop_trainer.chunked_logits import summed  # noqa: PLC0415 - seconds

        model = run.loaded.model
        return lambda batch: summed(model, batch.to(run.device))

    def held_out_metrics(self, run: Run) -> dict[str, float]:
        """Measure the model as it is now; consumes no randomness."""
        return self.measure(run, run.loaded.model)

    def measure(self, run: Run, model: Any) -> dict[str, float]:
        """Return eval_loss, perplexity and token_accuracy of a model on the held-out rows."""
        return evaluation.held_out_metrics(model, run.held_out)

    def measure_merged(self, run: Run, merged: Any) -> dict[str, float]:
        """Return the same of the merged model, whose base is the published one."""
        return self.measure(run, merged)

    def evaluate(self, run: Run) -> None:
        """Measure the loss, and let both models answer some of the held-out rows."""
        asked = run.questions[: run.plan.training.evaluation.generate_rows]
        with run.loaded.as_base() as base:
            run.metrics_base = self.measure(run, base)
            before = self.answers(run, base, run.loaded.tokenizer, asked)
        run.metrics_tuned = self.held_out_metrics(run)
        after = self.answers(run, run.loaded.model, run.loaded.tokenizer, asked)
        if not asked:
            return
        references = [question.references for question in asked]
        run.metrics_base |= run.task.score(before, references)
        run.metrics_tuned |= run.task.score(after, references)
        rows = zip(asked, before, after, strict=True)
        run.samples = [evaluation.Sample(q.prompt, q.reference, base, tuned, q.messages) for q, base, tuned in rows]

    def answers(self, run: Run, model: Any, tokenizer: Any, asked: Sequence[Question]) -> list[str]:
        """Return a model's greedy answers; packed attention takes no mask, and is changed for that."""
        if not asked:
            return []
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        attention = base.config._attn_implementation
        if run.packed:
            base.set_attn_implementation("sdpa")
        found = evaluation.answer(model, tokenizer, asked, run.plan.training.evaluation.max_new_tokens)
        if run.packed:
            base.set_attn_implementation(attention)
        return found

    def export(self, run: Run) -> None:
        """Write the adapter, fold it into the base model and build the ONNX folders."""
        from strop_trainer.export.merge import save_tuned  # noqa: PLC0415 - seconds

        artifact, template = run.plan.training.artifact, run.loaded.tokenizer.chat_template
        merged, tokenizer = run.artifact("merged"), run.loaded.tokenizer
        if not run.loaded.has_adapter:
            save_tuned(run.loaded.model, run.model.path, merged)
            del run.loaded
        else:
            moved = bool(run.loaded.start) or run.plan.training.method.type == "qlora"
            trained = _save_adapter(run, moved=moved)
            if artifact.onnx or artifact.merged or moved:
                self._merge(run, trained, tokenizer, moved=moved)
        for folder in ("merged", "adapter"):
            keep_given_template(run.plan.training.model.chat_template, run.artifact(folder))
        keep_template(template, run.artifact("merged"))
        give_back_freed_memory()
        if artifact.onnx:
            self.export_onnx(run)

    def _merge(self, run: Run, trained: _Trained | None, tokenizer: Any, *, moved: bool) -> None:
        """Fold the adapter into the base model, compare, and measure what is published.

        Args:
            run: with its adapter written, and nothing loaded.
            trained: what it is held to; None where its base had other weights.
            tokenizer: of the model.
            moved: whether it had.

        Raises:
            TrainerError: it is not what was trained, or misses a gate (exit 76).
        """
        from strop_trainer.batches import ATTENTION  # noqa: PLC0415
        from strop_trainer.export.merge import merge_adapter  # noqa: PLC0415 - seconds

        plan = run.plan.training
        out = run.artifact("merged") if plan.artifact.onnx or plan.artifact.merged else None
        found = merge_adapter(run.model.path, run.artifact("adapter"), out, partial(_look, run))
        if trained is None or rounds(run.model.path, plan.hyperparameters.precision):
            run.merged = prove_merged(found)
        else:
            limit = trained.limit(found.model.config)
            run.merged = prove_merged(found, trained.logits, limit)
        merged = found.model
        put_near(run, merged)
        answers: list[str] = []
        asked = run.questions[: plan.evaluation.generate_rows] if moved else []
        if run.packed:
            merged.set_attn_implementation(ATTENTION)
        metrics = self.measure_merged(run, merged)
        if asked:
            answers = self.answers(run, merged, tokenizer, asked)
            metrics |= run.task.score(answers, [question.references for question in asked])
        hold_merged(run, metrics, answers, moved=moved)

    def export_onnx(self, run: Run) -> None:
        """Build the ONNX folders from the merged model, and the adapter's file with its base graphs."""
        artifact, template = run.plan.training.artifact, run.chat_template
        if artifact.onnx_form != "adapter":
            from strop_trainer.export.genai import export_onnx  # noqa: PLC0415 - seconds

            export_each(run, artifact.onnx, export_onnx)
        if artifact.onnx_form is not None:
            export_on_bases(run)
            keep_template(template, run.artifact(ADAPTER_FOLDER))

    def prove(self, run: Run) -> None:
        """Compare logits, tokens and answers."""
        from strop_trainer.proof import Adapted, with_scores  # noqa: PLC0415 - numpy
        from strop_trainer.proof import prove as compare  # noqa: PLC0415
        from strop_trainer.proof_rows import ProofRow  # noqa: PLC0415

        plan = run.plan.training
        rows = [ProofRow(q.row_ids, len(q.prompt_ids), q.reference, q.messages) for q in run.questions]
        adapted = Adapted(run.artifact(ADAPTER_FOLDER) / ADAPTER_FILE, run.bases) if run.bases else None
        found = compare(
            run.artifact("merged"),
            run.exports,
            rows,
            plan.artifact.proof,
            plan.evaluation.max_new_tokens,
            adapted=adapted,
        )
        run.proofs += [with_scores(proof, run.questions, run.task.score) for proof in found]
        if why := next((proof.template for proof in found if proof.template), None):
            say(f"  note: ONNX Runtime GenAI and the chat template: {why}; let transformers render prompts")


@contextmanager
def _told_in_their_places(run: Run) -> Iterator[None]:
    """Let an error that counts rows name their files and lines."""
    try:
        yield
    except UnfitRowsError as error:
        rules: RowRules | None = getattr(run.task, "rules", None)
        if rules is None:
            raise
        raise in_their_places(run, error, rules) from None


def _save_adapter(run: Run, *, moved: bool) -> _Trained | None:
    """Write the adapter, drop the loaded model, and try the adapter where it was trained on the published base.

    Returns:
        what the merged model is held to; None where the base was another.

    Raises:
        TrainerError: loaded again, it is not what was trained (exit 76).
    """
    loaded = run.loaded
    del run.loaded
    loaded.save_adapter(run.artifact("adapter"), run.plan.training.model.source.removeprefix("hf://"))
    if not moved and loaded.model.device.type == CPU:
        loaded.model.float()
    trained = None if moved else _Trained(loaded, _look(run, loaded.model))
    # What comes now is made from the untouched base; the two need not be in memory at once.
    del loaded
    give_back_freed_memory()
    release(run.device)
    if trained is not None:
        run.reloaded = _reload(run, trained)
        give_back_freed_memory()
    return trained


class _Trained:
    """What an adapter that is loaded again is held to, and the model that it is merged into."""

    def __init__(self, loaded: LoadedModel, logits: list[Any]) -> None:
        self.logits = logits
        self.folder, self.plan, self.device = loaded.folder, loaded.plan, loaded.model.device

    @property
    def exact(self) -> bool:
        """Whether the logits are those of fp32."""
        return self.device.type == CPU

    def limit(self, config: Any) -> float:
        """Return by what share of their norm the logits may differ from those of a model of this configuration."""
        return reloaded_limit("fp32" if self.exact else self.plan.hyperparameters.precision, layers_of(config))


def _look(run: Run, model: Any) -> list[Any]:
    """Return fp32 (N, V) on the host for the first batches of held-out rows: the first positions that count."""
    import torch  # noqa: PLC0415

    from strop_trainer.batches import ATTENTION, target_logits  # noqa: PLC0415

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    attention = base.config._attn_implementation
    if run.packed:
        base.set_attn_implementation(ATTENTION)
    model.eval()
    with torch.no_grad():
        found = [
            target_logits(model, batch.to(model.device))[:RELOADED_POSITIONS].float().cpu()
            for batch in run.held_out[: 1 if model.dtype == torch.float32 else RELOADED_BATCHES]
        ]
    if run.packed:
        base.set_attn_implementation(attention)
    return found


def _reload(run: Run, trained: _Trained) -> AdapterProof:
    """Return the proof that the adapter, loaded again onto the base model, answers as the model that was trained.

    Raises:
        TrainerError: it does not (exit 76).
    """
    from strop_trainer.methods import load_adapter  # noqa: PLC0415

    adapter = run.artifact("adapter")
    again = load_adapter(adapter, trained.folder, trained.plan, trained.device, exact=trained.exact)
    return prove_reloaded(trained.logits, _look(run, again), trained.limit(again.config))


def speed_up_adapters(run: Run) -> None:
    """Let the adapters compute in less memory and time than in PEFT's general way."""
    from strop_trainer.lora_linear import replace_forward  # noqa: PLC0415

    if run.apart:
        # It reads a layer's weights past the layer, where they are no more.
        run.set_pass = lambda _step, _micro: None
        return
    counter, replaced = replace_forward(run.loaded.model, run.plan.training.hyperparameters.seed)
    if replaced:
        say(f"  {replaced} linear layers with an adapter")

    def set_pass(step: int, micro: int) -> None:
        counter.step, counter.micro = step, micro

    run.set_pass = set_pass


def _choose_packing(run: Run) -> None:
    """Pack where the plan asks for it and the model keeps rows apart; else pad."""
    from strop_trainer import batches  # noqa: PLC0415

    hyperparameters, base = run.plan.training.hyperparameters, run.loaded.base
    run.packed = False
    if not hyperparameters.packing:
        return
    if base.config._attn_implementation != "sdpa":
        say(f"  rows are padded, not packed: this model's attention is {base.config._attn_implementation}")
        return
    batches.register_attention()
    base.set_attn_implementation(batches.ATTENTION)
    run.packed, why = batches.keeps_rows_apart(run.loaded.model, base.config.get_text_config().vocab_size)
    say(f"  rows are {'packed' if run.packed else 'padded, not packed'}: {why}")
    if not run.packed:
        base.set_attn_implementation("sdpa")


def _describe(run: Run, pass_tokens: int | None, unit: str) -> None:
    """Print every number that was derived; `unit` is what an example is, in words."""
    from strop_trainer.schedule import Schedule  # noqa: PLC0415
    from strop_trainer.training import resident_bytes  # noqa: PLC0415

    plan, encoded, loaded = run.plan.training.hyperparameters, run.encoded, run.loaded
    schedule = Schedule.of(plan, len(encoded.examples))
    per_step = encoded.tokens / len(encoded.examples) * plan.effective_batch_size
    say(
        f"  tokens: {encoded.tokens:,} in {len(encoded.examples)} {unit}, {encoded.target_tokens:,} "
        f"({encoded.target_tokens / encoded.tokens:.0%}) of them learnt"
    )
    if lengths := measure_lengths(encoded.lengths, plan.max_length, in_pieces=encoded.in_pieces):
        say(f"  lengths: {in_words(lengths)}")
    for lost in lost_in_words(encoded, plan.max_length, unit):
        say(f"  note: {lost}")
    say(
        f"  parameters: {loaded.total_parameters:,}, of them {loaded.trainable_parameters:,} "
        f"({loaded.trainable_parameters / loaded.total_parameters:.2%}) trained"
    )
    if note := capacity_note(run.plan.training, loaded.trainable_parameters, encoded.target_tokens):
        say(f"  note: {note}")
    bound = f", about {pass_tokens} tokens" if run.packed and pass_tokens else ""
    say(
        f"  steps: {schedule.total_steps} ({schedule.steps_per_epoch} an epoch, {schedule.warmup_steps} of warm-up) of "
        f"{plan.effective_batch_size} rows, about {per_step:,.0f} tokens; "
        f"a forward pass has at most {plan.micro_batch_size} rows{bound}"
    )
    say(
        f"  precision {plan.precision}, on {run.device}, {run.threads} threads, "
        f"{resident_bytes() / 1e9:.2f} GB in memory"
    )
