"""The stages of a job, one function each."""

from __future__ import annotations

import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from strop_trainer import evaluation, registry, sources
from strop_trainer.addresses import shown
from strop_trainer.context import muted, say
from strop_trainer.device import CPU, prepare_device, release
from strop_trainer.device import peak_bytes as device_peak_bytes
from strop_trainer.documents import RankUse
from strop_trainer.errors import Preempted, TrainerError, bad_configuration
from strop_trainer.exit_codes import ExitCode
from strop_trainer.heads import head_for
from strop_trainer.heads.exports import publish_on_bases
from strop_trainer.lengths import measure_lengths
from strop_trainer.methods import check_method
from strop_trainer.model_checks import check_model, fit_length, lacks_onnx
from strop_trainer.plan import Plan
from strop_trainer.precision import settle_precision
from strop_trainer.ranks.team import join
from strop_trainer.recomputation import settle_checkpointing
from strop_trainer.record import RunRecord
from strop_trainer.run import Run
from strop_trainer.sources.model_folder import check_model_folder, fingerprint
from strop_trainer.sources.text_part import cut, fit_whole
from strop_trainer.tasks.by_model import BY_MODEL, task_for
from strop_trainer.tasks.encoder_decoder import EncoderDecoderTask
from strop_trainer.tasks.gates import check_gates, check_label_gates
from strop_trainer.tasks.given_template import check_template
from strop_trainer.termination import PublishedVersion
from strop_trainer.threads import give_back_freed_memory, set_threads


def check(run: Run) -> None:
    """Refuse what cannot work, before anything is fetched; read the rows if they are here."""
    training = run.plan.training
    check_method(training)
    if training.model.chat_template is not None:
        check_template(training.model.chat_template)
    check_placement(run.plan)
    if run.task.name not in BY_MODEL:
        check_gates(training.evaluation, run.task)
    registry.clean_staging(run.settings.registry, run.output, run.settings.job_uid)
    registry.check_writable(run.settings.registry, run.output, run.settings.job_uid)
    run.settings.work.mkdir(parents=True, exist_ok=True)
    files = [*training.dataset.train, *training.dataset.validation]
    take_in(
        run, rows=all(sources.is_local(file.source) for file in files), model=sources.is_local(training.model.source)
    )


def check_placement(plan: Plan) -> None:
    """Refuse ranks that are placed otherwise than they are computed for."""
    placed, ranks = plan.placement, plan.training.distributed.world_size
    if placed.nodes != 1 or placed.processes_per_node != ranks:
        raise bad_configuration(
            f"placement: found {placed.nodes} nodes of {placed.processes_per_node} ranks for a training of {ranks}, "
            "allowed: one node with all of them"
        )


def fetch(run: Run) -> None:
    """Fetch what is remote: the rows first, so that a wrong one is told before a large model comes."""
    take_in(run, rows=True, model=True)


def take_in(run: Run, *, rows: bool, model: bool) -> None:
    """Read the rows and fetch the model where they are not there yet; the model first where it decides on the rows."""
    parts: list[tuple[str, bool, Callable[[Run], None]]] = [("dataset", rows, read_rows), ("model", model, fetch_model)]
    if run.task.name in BY_MODEL:
        parts = [parts[1], ("dataset", rows and model, read_rows)]
    for name, wanted, take in parts:
        if wanted and not hasattr(run, name):
            take(run)


def read_rows(run: Run) -> None:
    """Read and check all rows."""
    plan = run.plan.training.dataset
    train = [found for file in plan.train for found in sources.fetch_files(file, run.settings)]
    validation = [found for file in plan.validation for found in sources.fetch_files(file, run.settings)]
    run.dataset = run.task.read(train, validation, plan, run.plan.training.hyperparameters.seed)
    check_label_gates(run.plan.training.evaluation, run.task, run.dataset.train)
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
    run.model = check_model_folder(
        path, shown(training.model.source), chat=run.task.needs_chat_template and training.model.chat_template is None
    )
    run.task = task_for(run.task, run.model)
    run.head = head_for(run.task)
    check_model(training, run.task, run.model)
    if why := lacks_onnx(training, run.task, run.model):
        run.leave_out_onnx()
        say(f"  note: no ONNX is published, which the job does not ask for: {why}")
    fitted, note = fit_length(run.plan, run.model)
    if note:
        run.settle(fitted.training)
        say(f"  note: {note}")
    if run.model.whole is not None:
        path, size = cut(path, shown(training.model.source), run.settings.fetched)
        run.model = replace(run.model, path=path, weight_bytes=size)
        say("  note: this model reads images beside text; its text part is trained, which reads text alone")
    say(f"  model: {run.model.architecture}, {run.model.weight_bytes / 1e6:,.0f} MB of weights")


def prepare(run: Run) -> None:
    """Load torch, tokens and weights."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # from here on, nothing is asked of the hub
    with ThreadPoolExecutor(1) as pool:
        hashing: Future[str] = pool.submit(fingerprint, run.model.whole or run.model.path)
        import torch  # noqa: PLC0415 - seconds: not before the rows have been found right

        quiet_libraries(deepspeed=run.plan.training.distributed.is_zero)
        accelerators = run.plan.placement.resources.accelerators
        run.device = prepare_device(accelerators)
        run.team = join(run.plan.training.distributed, os.environ, run.device, accelerators)
        torch.set_num_threads(run.threads)
        settle_precision(run)
        settle_checkpointing(run)
        if run.plan.training.hyperparameters.deterministic:
            torch.use_deterministic_algorithms(mode=True)
        run.head.prepare(run)
        # Told at the end, when the model is gone.
        run.total_parameters = run.loaded.total_parameters
        run.base_parameters = run.loaded.base_parameters
        run.trainable_parameters = run.loaded.trainable_parameters
        run.base_fingerprint = hashing.result()


def quiet_libraries(*, deepspeed: bool) -> None:
    """Keep the log for what the job's author can use.

    Args:
        deepspeed: whether it is used.
    """
    import accelerate.utils.other  # noqa: PLC0415
    import huggingface_hub.constants  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    if not deepspeed:
        # Whoever saves a model would import it, to see whether the model is one of its own.
        accelerate.utils.other.is_deepspeed_available = lambda: False
    # It misses optional kernels, and says so whether it is used or not.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # What the libraries tell each other about names that will change.
    warnings.filterwarnings("ignore", category=FutureWarning)
    # Marian's tokenizer would normalise punctuation with it where it is asked to; nobody asks.
    warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def train(run: Run) -> None:
    """Train, from the newest checkpoint where there is one."""
    from strop_trainer.ranks.sharing import optimisation_of  # noqa: PLC0415
    from strop_trainer.roofline import work_of_model  # noqa: PLC0415
    from strop_trainer.training import Trainer, forget_peak, peak_bytes  # noqa: PLC0415

    training = run.plan.training
    identity = {
        "plan": run.plan.digest,
        "dataset": run.dataset.statistics.fingerprint,
        "base model": run.base_fingerprint,
    }
    run.head.before_training(run, identity)
    trainer = Trainer(
        optimise=lambda schedule: optimisation_of(run, schedule),
        plan=training.hyperparameters,
        checkpoint=training.checkpoint,
        examples=run.encoded.examples,
        make_batch=lambda examples: run.head.make_batch(run, examples),
        packed=run.packed,
        pass_tokens=run.head.pass_tokens(run),
        checkpoints=run.settings.checkpoints,
        metrics_file=run.settings.metrics,
        identity=identity,
        stop=run.stop,
        progress=run.progress,
        evaluate=lambda: run.head.held_out_metrics(run),
        evaluate_every=training.evaluation.every_steps,
        on_pass=run.set_pass,
        device=run.device,
        team=run.team,
    )
    run.loaded.model.train()
    run.work = work_of_model(run.loaded.base)
    with run.stop.deferred():
        run.loading_peak_bytes, begin = peak_bytes(), time.process_time()
        forget_peak()
        run.result = trainer.run()
        if run.team.any(run.stop.requested):  # after the last step: its checkpoint is there
            raise Preempted
        run.use = run.team.gather(peak_bytes(), device_peak_bytes(run.device), time.process_time() - begin)
        run.team.leave()
        apart, run.team = run.apart, replace(run.team, joined=False)
    for rank, (memory, device_memory, _) in enumerate(run.use):
        who = f"rank {rank}: " if run.team.size > 1 else ""
        held = f", {device_memory / 1e9:.2f} GB of the {run.device} device's" if run.device != CPU else ""
        say(f"  {who}at most {memory / 1e9:.2f} GB in memory{held}")
    say(f"  {run.result.tokens_per_second:,.0f} tokens/s{in_words(run)}")
    if run.team.size > 1 and run.team.leads:
        use_all_threads(run)
    if apart and run.team.leads:
        put_together(run, identity)


def in_words(run: Run) -> str:
    """Return how near training came to what this machine can do, behind its tokens a second."""
    found = run.roofline
    if found is None:
        return ""
    return (
        f", {found.flops_per_second / 1e9:,.0f} GFLOP/s: {found.share:.0%} of the "
        f"{found.peak_flops_per_second / 1e9:,.0f} that a matrix product in "
        f"{run.plan.training.hyperparameters.precision} reaches here"
    )


def put_together(run: Run, identity: Mapping[str, str]) -> None:
    """Load the model anew, whose weights were dealt out, with what was trained from the last checkpoint."""
    from strop_trainer.checkpoints import load_newest  # noqa: PLC0415 - torch
    from strop_trainer.optimisation import load_parameters  # noqa: PLC0415

    del run.loaded
    give_back_freed_memory()
    with muted("told in prepare"):
        run.head.load(run)
    last = load_newest(run.settings.checkpoints, identity)
    if last is None or last.step != run.result.steps:
        raise TrainerError(ExitCode.INTERNAL, "checkpoints: the last one cannot be read")
    load_parameters(run.loaded.trainable, last.tensors)


def use_all_threads(run: Run) -> None:
    """Take the threads of the other ranks as well, which have gone."""
    import torch  # noqa: PLC0415

    run.threads, _ = set_threads(os.environ, 1)
    torch.set_num_threads(run.threads)


def evaluate(run: Run) -> None:
    """Measure the base and the tuned model on the same held-out rows, and hold the result to the job's gates."""
    give_back_freed_memory()  # what training's passes held
    run.head.evaluate(run)
    give_back_freed_memory()
    say(f"  {'':<16}{'base':>10}{'tuned':>10}")
    for name, tuned in run.metrics_tuned.items():
        say(f"  {name:<16}{run.metrics_base[name]:>10.4f}{tuned:>10.4f}")
    run.progress.report({"eval_loss": round(run.metrics_tuned["eval_loss"], 6)})
    evaluation.apply_gates(run.metrics_tuned, run.plan.training.evaluation)


def export(run: Run) -> None:
    """Write the adapter, and fold it into the base model for ONNX."""
    shutil.rmtree(run.settings.artifacts, ignore_errors=True)
    run.settings.artifacts.mkdir(parents=True)
    run.head.export(run)
    release(run.device)


def prove(run: Run) -> None:
    """Compare each export with PyTorch on held-out rows; what differs too much is not published."""
    if not run.exports and not run.bases:
        say("  nothing was exported")
        return
    run.head.prove(run)
    for proof in run.proofs:
        found = proof.summary()
        say(f"  {found.artifact}: {'proven' if found.passed else 'FAILED'} by {', '.join(found.judged_by) or 'no run'}")
    failed = [f"{proof.artifact}: {'; '.join(proof.reasons)}" for proof in run.proofs if not proof.passed]
    if failed:
        raise TrainerError(ExitCode.PROOF_FAILED, "not published, the export missed its proof: " + " | ".join(failed))


def publish(run: Run) -> None:
    """Stage the version in the registry and rename it to the next number."""
    from strop_trainer.report import write_reports  # noqa: PLC0415 - matplotlib, jinja2

    def fill(stage: Path) -> None:
        with run.stop.immediate():
            if run.artifact("adapter").is_dir():
                registry.copy_tree(run.artifact("adapter"), stage / "adapter")
                if run.model.whole is not None:
                    fit_whole(stage / "adapter")
            for folder in run.exports.values():
                registry.copy_tree(folder, stage / folder.name)
            if run.bases:
                publish_on_bases(run, stage)
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
            base_commit=sources.commit_of(run.plan.training.model, run.settings),
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
        plan=run.given or run.plan,
        dataset=run.dataset.statistics,
        truncated=run.encoded.truncated,
        dropped=run.encoded.dropped,
        shortened=run.encoded.shortened,
        tokens=run.encoded.tokens,
        target_tokens=run.encoded.target_tokens,
        base_commit=sources.commit_of(run.plan.training.model, run.settings),
        dataset_commits=sources.dataset_commits(run.settings),
        base_fingerprint=run.base_fingerprint,
        architecture=run.model.architecture,
        text_part=run.model.whole is not None,
        encoder_decoder=isinstance(run.task, EncoderDecoderTask),
        total_parameters=run.total_parameters,
        base_parameters=run.base_parameters,
        trainable_parameters=run.trainable_parameters,
        steps=run.result.steps,
        tokens_per_second=run.result.tokens_per_second,
        precision=run.plan.training.hyperparameters.precision,
        gradient_checkpointing=run.plan.training.hyperparameters.gradient_checkpointing is True,
        roofline=run.roofline,
        peak_bytes=max(run.loading_peak_bytes, peak_bytes()),
        ranks=[
            RankUse(
                rank=rank,
                peak_bytes=int(memory),
                device_peak_bytes=int(held) if run.device != CPU else None,
                cpu_seconds=round(seconds, 1),
            )
            for rank, (memory, held, seconds) in enumerate(run.use)
        ],
        threads=run.threads,
        packed=run.packed,
        metrics_base=run.metrics_base,
        metrics_tuned=run.metrics_tuned,
        samples=run.samples,
        proofs=run.proofs,
        lengths=measure_lengths(
            run.encoded.lengths,
            run.plan.training.hyperparameters.max_length,
            in_pieces=run.encoded.in_pieces,
        ),
        reloaded=run.reloaded,
        merged=run.merged,
        stage_seconds=dict(run.clock.seconds),
        metrics_file=run.settings.metrics,
    )
