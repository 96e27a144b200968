"""The way of a job: check → fetch → prepare → train ⇄ checkpoint → evaluate → export → prove → publish."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop_trainer import evaluation, registry, sources, threads
from strop_trainer.context import Clock, Settings, StopRequest, say
from strop_trainer.errors import Preempted, TrainerError, bad_configuration, bad_data, explain
from strop_trainer.exit_codes import ExitCode
from strop_trainer.methods import check_method
from strop_trainer.plan import OnnxPrecision, Plan, load_plan
from strop_trainer.progress import Progress
from strop_trainer.record import RunRecord
from strop_trainer.sources.model_folder import ModelFolder, check_model_folder, fingerprint
from strop_trainer.tasks import task_named
from strop_trainer.tasks.base import Dataset, Encoded, Question, Task
from strop_trainer.termination import PublishedVersion, TerminationMessage

if TYPE_CHECKING:
    from strop_trainer.batches import Batch
    from strop_trainer.evaluation import Sample
    from strop_trainer.methods import LoadedModel
    from strop_trainer.proof import ProofResult
    from strop_trainer.tasks.base import Example
    from strop_trainer.training import TrainResult


@dataclass
class Run:
    """A job on its way: each stage reads what the ones before it have found out."""

    settings: Settings
    plan: Plan
    task: Task
    threads: int
    stop: StopRequest
    clock: Clock
    progress: Progress
    dataset: Dataset = field(init=False)
    model: ModelFolder = field(init=False)
    base_fingerprint: str = field(init=False)
    loaded: LoadedModel = field(init=False)
    total_parameters: int = 0
    trainable_parameters: int = 0
    encoded: Encoded = field(init=False)
    held_out: list[Batch] = field(init=False)
    questions: list[Question] = field(init=False)
    packed: bool = field(init=False)
    set_pass: Callable[[int, int], None] = field(init=False)
    result: TrainResult = field(init=False)
    metrics_base: dict[str, float] = field(default_factory=dict)
    metrics_tuned: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    exports: dict[OnnxPrecision, Path] = field(default_factory=dict)
    proofs: list[ProofResult] = field(default_factory=list)
    published: PublishedVersion | None = None

    @property
    def output(self) -> str:
        """Name of the model in the registry."""
        return self.plan.placement.output.model

    def artifact(self, name: str) -> Path:
        """Return where a part of the version is made."""
        return self.settings.artifacts / name


def check(run: Run) -> None:
    """Refuse what cannot work, before anything is fetched; read the rows if they are here."""
    training = run.plan.training
    check_method(training)
    evaluation.check_gates(training.evaluation, run.task)
    registry.clean_staging(run.settings.registry, run.output, run.settings.job_uid)
    registry.check_writable(run.settings.registry, run.output, run.settings.job_uid)
    run.settings.work.mkdir(parents=True, exist_ok=True)
    if all(sources.is_local(file.source) for file in [*training.dataset.train, *training.dataset.validation]):
        read_rows(run)
    if sources.is_local(training.model.source):
        fetch_model(run)


def fetch(run: Run) -> None:
    """Fetch what is remote: the rows first, so that a wrong one is told before a large model comes."""
    if not hasattr(run, "dataset"):
        read_rows(run)
    if not hasattr(run, "model"):
        fetch_model(run)


def read_rows(run: Run) -> None:
    """Read and check all rows."""
    plan = run.plan.training.dataset
    train = [found for file in plan.train for found in sources.fetch_files(file, run.settings)]
    validation = [found for file in plan.validation for found in sources.fetch_files(file, run.settings)]
    run.dataset = run.task.read(train, validation, plan, run.plan.training.hyperparameters.seed)
    counts = run.dataset.statistics
    say(f"  rows: {counts.train_rows} to train, {counts.validation_rows} held out, from {', '.join(counts.files)}")
    if counts.duplicates:
        say(f"  note: {counts.duplicates} training rows repeat an earlier one")
    if counts.leaked:
        say(f"  note: {counts.leaked} held-out rows are in the training rows: their metrics say little")
    if counts.leaked_prompts > counts.leaked:
        say(f"  note: {counts.leaked_prompts} held-out prompts are in the training rows")


def fetch_model(run: Run) -> None:
    """Fetch the base model and judge its folder."""
    training = run.plan.training
    path = sources.fetch_model(training.model, run.settings)
    run.model = check_model_folder(path, training.model.source, chat=run.task.needs_chat_template)
    if training.artifact.onnx:
        from strop_trainer.export.genai import check_exportable  # noqa: PLC0415 - knows ONNX, not torch

        check_exportable(path)
    say(f"  model: {run.model.architecture}, {run.model.weight_bytes / 1e6:,.0f} MB of weights")


def prepare(run: Run) -> None:
    """Load torch, tokens and weights."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # from here on, nothing is asked of the hub
    plan = run.plan.training
    hyperparameters = plan.hyperparameters
    with ThreadPoolExecutor(1) as pool:
        hashing: Future[str] = pool.submit(fingerprint, run.model.path)
        import torch  # noqa: PLC0415 - seconds: not before the rows have been found right

        from strop_trainer import methods  # noqa: PLC0415
        from strop_trainer.batches import micro_batches  # noqa: PLC0415

        quiet_libraries()
        torch.set_num_threads(run.threads)
        if hyperparameters.deterministic:
            torch.use_deterministic_algorithms(mode=True)
        methods.check_architecture(run.model.model_type, run.model.architecture)
        tokenizer = methods.load_tokenizer(run.model.path)
        run.encoded = run.task.encode(run.dataset.train, tokenizer, hyperparameters.max_length)
        held = run.task.encode(
            run.dataset.validation[: plan.evaluation.max_rows], tokenizer, hyperparameters.max_length
        )
        asked = max(plan.evaluation.generate_rows, plan.artifact.proof.rows)
        run.questions = run.task.questions(run.dataset.validation, tokenizer, hyperparameters.max_length, asked)
        if not run.questions and (plan.evaluation.generate_rows or plan.artifact.onnx):
            raise bad_data(
                f"dataset: no held-out row leaves room for an answer in {hyperparameters.max_length} tokens "
                "(training.maxLength)"
            )
        run.loaded = methods.load_model(run.model.path, plan, tokenizer)
        run.total_parameters = run.loaded.total_parameters
        run.trainable_parameters = run.loaded.trainable_parameters
        speed_up_adapters(run)
        choose_packing(run)
        groups = micro_batches(
            held.examples, hyperparameters.micro_batch_size, packed=run.packed, tokens=pass_tokens(run)
        )
        run.held_out = [make_batch(run, group) for group in groups]
        run.base_fingerprint = hashing.result()
    describe(run)


def quiet_libraries() -> None:
    """Keep the log for what the job's author can use."""
    import huggingface_hub.constants  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    # What the libraries tell each other about names that will change.
    warnings.filterwarnings("ignore", category=FutureWarning)
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def speed_up_adapters(run: Run) -> None:
    """Let the adapters compute in less memory and time than in PEFT's general way."""
    from strop_trainer.lora_linear import replace_forward  # noqa: PLC0415

    counter, replaced = replace_forward(run.loaded.model, run.plan.training.hyperparameters.seed)
    say(f"  {replaced} linear layers with an adapter")

    def set_pass(step: int, micro: int) -> None:
        counter.step, counter.micro = step, micro

    run.set_pass = set_pass


def choose_packing(run: Run) -> None:
    """Pack where the plan asks for it and the model keeps rows apart; else pad."""
    from strop_trainer import batches  # noqa: PLC0415

    hyperparameters, base = run.plan.training.hyperparameters, run.loaded.model.get_base_model()
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


def make_batch(run: Run, examples: list[Example] | Any) -> Batch:
    """Return one forward pass over rows."""
    from strop_trainer import batches  # noqa: PLC0415

    return batches.pack(examples) if run.packed else batches.pad(examples, run.loaded.tokenizer.pad_token_id)


def pass_tokens(run: Run) -> int | None:
    """Return the tokens that a packed forward pass is bounded to, or None."""
    from strop_trainer.batches import CPU_PASS_TOKENS  # noqa: PLC0415

    return CPU_PASS_TOKENS if run.loaded.model.device.type == "cpu" else None


def describe(run: Run) -> None:
    """Print every number that was derived."""
    from strop_trainer.training import Schedule, resident_bytes  # noqa: PLC0415

    plan, encoded, loaded = run.plan.training.hyperparameters, run.encoded, run.loaded
    schedule = Schedule.of(plan, len(encoded.examples))
    per_step = encoded.tokens / len(encoded.examples) * plan.effective_batch_size
    say(
        f"  tokens: {encoded.tokens:,} in {len(encoded.examples)} sequences, {encoded.target_tokens:,} "
        f"({encoded.target_tokens / encoded.tokens:.0%}) of them said by the assistant and learnt"
    )
    if encoded.truncated:
        say(f"  note: {encoded.truncated} sequences are longer than {plan.max_length} tokens and lose their end")
    if encoded.dropped:
        say(f"  note: {encoded.dropped} sequences have nothing left to learn and are left out")
    say(
        f"  parameters: {loaded.total_parameters:,}, of them {loaded.trainable_parameters:,} "
        f"({loaded.trainable_parameters / loaded.total_parameters:.2%}) trained"
    )
    bound = f", about {pass_tokens(run)} tokens" if run.packed and pass_tokens(run) else ""
    say(
        f"  steps: {schedule.total_steps} ({schedule.steps_per_epoch} an epoch, {schedule.warmup_steps} of warm-up) of "
        f"{plan.effective_batch_size} rows, about {per_step:,.0f} tokens; "
        f"a forward pass has at most {plan.micro_batch_size} rows{bound}"
    )
    say(f"  precision {plan.precision}, {run.threads} threads, {resident_bytes() / 1e9:.2f} GB in memory")


def train(run: Run) -> None:
    """Train, from the newest checkpoint where there is one."""
    from strop_trainer.batches import target_logits  # noqa: PLC0415
    from strop_trainer.training import Trainer, peak_bytes  # noqa: PLC0415

    training = run.plan.training
    identity = {
        "plan": run.plan.digest,
        "dataset": run.dataset.statistics.fingerprint,
        "base model": run.base_fingerprint,
    }
    trainer = Trainer(
        parameters=run.loaded.trainable,
        plan=training.hyperparameters,
        checkpoint=training.checkpoint,
        examples=run.encoded.examples,
        make_batch=lambda examples: make_batch(run, examples),
        forward=lambda batch: target_logits(run.loaded.model, batch),
        packed=run.packed,
        pass_tokens=pass_tokens(run),
        checkpoints=run.settings.checkpoints,
        metrics_file=run.settings.metrics,
        identity=identity,
        stop=run.stop,
        progress=run.progress,
        evaluate=lambda: evaluation.held_out_metrics(run.loaded.model, run.held_out),
        evaluate_every=training.evaluation.every_steps,
        on_pass=run.set_pass,
    )
    run.loaded.model.train()
    with run.stop.deferred():
        run.result = trainer.run()
        if run.stop.requested:  # after the last step: its checkpoint is there
            raise Preempted
    say(f"  {run.result.tokens_per_second:,.0f} tokens/s, at most {peak_bytes() / 1e9:.2f} GB in memory")


def evaluate(run: Run) -> None:
    """Measure the base and the tuned model on the same held-out rows, and hold the result to the job's gates."""
    plan, model = run.plan.training.evaluation, run.loaded.model
    asked = run.questions[: plan.generate_rows]
    with model.disable_adapter():
        run.metrics_base = evaluation.held_out_metrics(model, run.held_out)
    run.metrics_tuned = evaluation.held_out_metrics(model, run.held_out)
    if asked:
        base = model.get_base_model()
        attention = base.config._attn_implementation
        if run.packed:
            base.set_attn_implementation("sdpa")
        with model.disable_adapter():
            before = evaluation.answer(model, run.loaded.tokenizer, asked, plan.max_new_tokens)
        after = evaluation.answer(model, run.loaded.tokenizer, asked, plan.max_new_tokens)
        if run.packed:
            base.set_attn_implementation(attention)
        references = [question.reference for question in asked]
        run.metrics_base |= run.task.score(before, references)
        run.metrics_tuned |= run.task.score(after, references)
        rows = zip(asked, before, after, strict=True)
        run.samples = [evaluation.Sample(q.prompt, q.reference, base, tuned, q.messages) for q, base, tuned in rows]
    say(f"  {'':<16}{'base':>10}{'tuned':>10}")
    for name, tuned in run.metrics_tuned.items():
        say(f"  {name:<16}{run.metrics_base[name]:>10.4f}{tuned:>10.4f}")
    run.progress.report({"eval_loss": round(run.metrics_tuned["eval_loss"], 6)})
    evaluation.apply_gates(run.metrics_tuned, plan)


def export(run: Run) -> None:
    """Write the adapter, fold it into the base model and build the ONNX folders."""
    artifact = run.plan.training.artifact
    shutil.rmtree(run.settings.artifacts, ignore_errors=True)
    run.settings.artifacts.mkdir(parents=True)
    source = run.plan.training.model.source
    run.loaded.model.peft_config["default"].base_model_name_or_path = source.removeprefix("hf://")
    # "auto" would look for the base model's configuration under its name, to see whether the vocabulary has grown.
    run.loaded.model.save_pretrained(run.artifact("adapter"), save_embedding_layers=False)
    # The merged model is made from the untouched base, in fp32; both need not be in memory.
    del run.loaded
    run.held_out = []
    gc.collect()
    if not artifact.onnx and not artifact.merged:
        return
    from strop_trainer.export.genai import export_onnx  # noqa: PLC0415 - seconds
    from strop_trainer.export.merge import merge_adapter  # noqa: PLC0415

    merge_adapter(run.model.path, run.artifact("adapter"), run.artifact("merged"))
    gc.collect()
    for position, precision in enumerate(artifact.onnx):
        begin = time.monotonic()
        folder = run.artifact("onnx" if position == 0 else f"onnx-{precision}")
        export_onnx(run.artifact("merged"), folder, precision)
        run.exports[precision] = folder
        size = sum(file.stat().st_size for file in folder.iterdir())
        say(f"  {folder.name}: {precision}, {size / 1e6:,.0f} MB in {time.monotonic() - begin:.1f} s")


def prove(run: Run) -> None:
    """Compare each export with PyTorch on held-out rows; what differs too much is not published."""
    artifact = run.plan.training.artifact
    if not run.exports:
        say("  nothing was exported")
        return
    from strop_trainer.proof import ProofRow  # noqa: PLC0415 - numpy
    from strop_trainer.proof import prove as compare  # noqa: PLC0415

    rows = [ProofRow(q.row_ids, len(q.prompt_ids), q.reference) for q in run.questions]
    limit = run.plan.training.evaluation.max_new_tokens
    run.proofs = compare(run.artifact("merged"), run.exports, rows, artifact.proof, limit)
    for proof in run.proofs:
        found = proof.summary()
        say(
            f"  {found.artifact}: {'proven' if found.passed else 'FAILED'}; logits differ by "
            f"{found.max_logit_difference}, tokens agree {found.token_agreement}, "
            f"perplexity ratio {found.perplexity_ratio}"
        )
    failed = [f"{proof.artifact}: {'; '.join(proof.reasons)}" for proof in run.proofs if not proof.passed]
    if failed:
        raise TrainerError(ExitCode.PROOF_FAILED, "not published, the export missed its proof: " + " | ".join(failed))


def publish(run: Run) -> None:
    """Stage the version in the registry and rename it to the next number."""
    from strop_trainer.report import write_reports  # noqa: PLC0415 - matplotlib, jinja2

    def fill(stage: Path) -> None:
        with run.stop.immediate():
            registry.copy_tree(run.artifact("adapter"), stage / "adapter")
            for folder in run.exports.values():
                registry.copy_tree(folder, stage / folder.name)
            if run.plan.training.artifact.merged:
                registry.copy_tree(run.artifact("merged"), stage / "merged")
            shutil.copyfile(run.settings.metrics, stage / "metrics.jsonl")
            write_reports(stage, make_record(run))

    with run.stop.deferred():
        where = registry.publish(
            run.settings.registry,
            run.output,
            run.settings.job_uid,
            fill,
            plan_digest=run.plan.digest,
            aliases=run.plan.placement.output.aliases,
        )
        counts = run.dataset.statistics
        run.published = PublishedVersion(
            model=run.output,
            version=where.version,
            path=f"{run.plan.placement.namespace}/{run.output}/{where.version}",
            manifest_sha256=where.manifest_sha256,
            plan_digest=run.plan.digest,
            base_fingerprint=run.base_fingerprint,
            dataset_fingerprint=counts.fingerprint,
            train_rows=counts.train_rows,
            validation_rows=counts.validation_rows,
            trainable_parameters=run.trainable_parameters,
            size_bytes=where.size_bytes,
            metrics_base=run.metrics_base,
            metrics_tuned=run.metrics_tuned,
            proofs=[proof.summary() for proof in run.proofs],
        )
        shutil.rmtree(run.settings.artifacts, ignore_errors=True)
    say(f"  {run.published.path}: {where.size_bytes / 1e6:,.0f} MB")


STAGES: tuple[Callable[[Run], None], ...] = (check, fetch, prepare, train, evaluate, export, prove, publish)


def make_record(run: Run) -> RunRecord:
    """Return all that the reports tell."""
    from strop_trainer.training import peak_bytes  # noqa: PLC0415

    return RunRecord(
        plan=run.plan,
        dataset=run.dataset.statistics,
        truncated=run.encoded.truncated,
        dropped=run.encoded.dropped,
        tokens=run.encoded.tokens,
        target_tokens=run.encoded.target_tokens,
        base_fingerprint=run.base_fingerprint,
        architecture=run.model.architecture,
        total_parameters=run.total_parameters,
        trainable_parameters=run.trainable_parameters,
        steps=run.result.steps,
        tokens_per_second=run.result.tokens_per_second,
        peak_bytes=peak_bytes(),
        threads=run.threads,
        packed=run.packed,
        metrics_base=run.metrics_base,
        metrics_tuned=run.metrics_tuned,
        samples=run.samples,
        proofs=run.proofs,
        stage_seconds=dict(run.clock.seconds),
        metrics_file=run.settings.metrics,
    )


def carry_out(run: Run) -> TerminationMessage:
    """Go the way of a job, stage by stage.

    Raises:
        TrainerError: it cannot go on.
        Preempted: a stop was requested.
    """
    for stage in STAGES:
        name = stage.__name__
        run.progress.report({"stage": name}, urgent=True)
        with run.clock.time(name):
            stage(run)
    say(f"\n{run.clock.table()}")
    found = " ".join(f"{name} {value:.4g}" for name, value in run.metrics_tuned.items())
    return TerminationMessage(
        stage="publish",
        reason="Published",
        message=f"published {run.published.path if run.published else 'nothing'}: {found}",
        stage_seconds=run.clock.seconds,
        published=run.published,
    )


def start(environment: Mapping[str, str], stop: StopRequest, clock: Clock) -> Run:
    """Read plan and surroundings, and set the threads before a library is loaded that counts the cores itself."""
    settings = Settings.from_environment(environment)
    try:
        plan = load_plan(settings.plan.read_bytes())
    except (OSError, ValueError) as error:
        raise bad_configuration(f"plan {settings.plan}: {error}") from None
    count, why = threads.set_threads(os.environ, plan.placement.processes_per_node)
    reused = threads.keep_freed_memory()
    say(f"Strop trainer: job {plan.placement.namespace}/{plan.placement.job}, plan {plan.digest}")
    say(f"  {count} threads ({why}); {'freed memory is reused' if reused else 'the default allocator'}")
    return Run(settings, plan, task_named(plan.training.task), count, stop, clock, Progress(environment))


def main() -> int:
    """Carry out the plan that the environment names; write the termination message, however it ends."""
    stop, clock = StopRequest(), Clock()
    stop.install()
    run: Run | None = None
    try:
        run = start(os.environ, stop, clock)
        message, code = carry_out(run), ExitCode.OK
    except Preempted:
        saved = "; it goes on from its newest checkpoint" if clock.stage != "check" else ""
        message = TerminationMessage(stage=clock.stage, reason="Preempted", message=f"stopped in {clock.stage}{saved}")
        code = ExitCode.PREEMPTED
    except Exception as unexpected:  # noqa: BLE001 - the last word must be said, whatever happens
        error = explain(unexpected)
        if error.exit_code is ExitCode.INTERNAL:
            traceback.print_exc()
        message = TerminationMessage(stage=error.stage or clock.stage, reason=error.reason, message=error.message)
        code = error.exit_code
    with stop.deferred():
        message = message.model_copy(update={"stage_seconds": clock.seconds})
        if run is not None and code is not ExitCode.OK:
            registry.clean_staging(run.settings.registry, run.output, run.settings.job_uid)
        if run is not None:
            run.progress.close()
        say(
            f"\n{message.reason}: {message.message}"
            if code is ExitCode.OK
            else f"\n{message.reason} in {message.stage}: {message.message}"
        )
        if log := os.environ.get("STROP_TERMINATION_LOG"):
            Path(log).write_text(message.dump(), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
