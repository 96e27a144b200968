"""From a job to its Plan: everything resolved, every automatic value with its reason. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from strop.api import names
from strop.api.distributed import DistributedSpec, ranks_of
from strop.api.finetunejob import (
    DataSource,
    FineTuneJobSpec,
    OnnxSpec,
    OutputSpec,
    ResourcesSpec,
)
from strop.api.quantities import GIB, format_bytes, memory_quantity
from strop.planning import encoder_decoders
from strop.planning.by_model import check_by_model, check_plan_by_model, lacks_onnx
from strop.planning.chooser import Chooser, given
from strop.planning.hyperparameters import resolve_checkpoint, resolve_evaluation, resolve_hyperparameters
from strop.planning.inputs import Job, PlanError, PlanSettings, Pool
from strop.planning.labelled import ANSWER_ONNX
from strop.planning.labelled import ONNX as LABEL_ONNX
from strop.planning.memory import estimate_memory, host_bytes, kept_bytes, pod_bytes, work_volume_bytes
from strop.planning.methods import resolve_method
from strop.planning.pools import AUTO, Fit, Needs, choose_checkpointing, choose_pool
from strop.planning.presets import ModelFacts, model_facts
from strop_trainer.encoder_decoders import TASKS
from strop_trainer.plan import (
    LABEL_TASKS,
    METRICS,
    PROMPT_METHODS,
    TEMPLATE_TASKS,
    ArtifactPlan,
    DataFile,
    DatasetPlan,
    DistributedPlan,
    DistributedStrategy,
    MethodType,
    ModelSource,
    OnnxPrecision,
    OutputPlacement,
    PlacementPlan,
    Plan,
    ProofPlan,
    Task,
    TrainingPlan,
    plan_digest,
    with_hyperparameters,
)

_MODEL_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_MODEL_NAME_LENGTH: Final = 63
_UNKNOWN_WORK_VOLUME: Final = "50Gi"
_ONNX: Final[tuple[list[OnnxPrecision], str]] = (["fp32", "int4"], "fp32 is exact, int4 is small and fast on CPUs")


def resolve(job: Job, pools: Sequence[Pool], settings: PlanSettings | None = None) -> Plan:
    """Return the Plan of a job.

    Args:
        job: the job, valid by its schema.
        pools: all pools there are, in any order.
        settings: what the installation decides; None takes the defaults.

    Raises:
        PlanError: the job asks for what this version cannot do, or no pool can take it.
    """
    settings = settings or PlanSettings()
    _refuse_unsupported(job.spec)
    facts = model_facts(job.spec.model)
    chooser = Chooser()
    training = resolve_training(job.spec, facts, chooser)
    placement = _placement(job, pools, settings, facts=facts, training=training, chooser=chooser)
    return Plan(
        digest=plan_digest(training),
        training=training,
        placement=placement,
        resolved=chooser.resolved,
        licence=facts.licence,
    )


def resolve_training(spec: FineTuneJobSpec, facts: ModelFacts, chooser: Chooser) -> TrainingPlan:
    """Return what is computed. It takes no pool and no settings: that is what makes the digest the same anywhere."""
    check_by_model(spec, facts)
    revision = _revision(spec, facts, chooser)
    if facts.images:
        chooser.fixed(
            "images",
            "not read",
            f"the text part alone is trained ({facts.basis}); ONNX and merged model are that part, an adapter is for "
            "the whole model",
        )
    method = resolve_method(spec, facts, chooser)
    distributed = resolve_distributed(spec, chooser)
    hyperparameters = resolve_hyperparameters(spec, method, facts, chooser)
    training = TrainingPlan(
        task=spec.task,
        model=ModelSource(
            source=spec.model.source,
            revision=revision,
            sha256=spec.model.sha256,
            chat_template=spec.model.chat_template,
        ),
        dataset=_dataset(spec, chooser),
        method=method,
        hyperparameters=hyperparameters,
        distributed=distributed,
        evaluation=resolve_evaluation(spec, chooser),
        checkpoint=resolve_checkpoint(spec, hyperparameters, chooser),
        artifact=_artifact(spec, facts, chooser),
    )
    check_plan_by_model(training, facts)
    return training


def resolve_distributed(spec: FineTuneJobSpec, chooser: Chooser) -> DistributedPlan:
    """Resolve `spec.distributed`. It goes by the job alone, never by its pool."""
    given, ranks = spec.distributed or DistributedSpec(), ranks_of(spec)
    chooser.choose(
        "distributed.processesPerNode", given.processes_per_node, ranks, "one process has all CPUs, or an accelerator"
    )
    usual: tuple[DistributedStrategy, str] = ("none", "one rank shares nothing")
    if ranks > 1:
        usual = "ddp", "the fastest where each rank has room for all of the model's state"
    strategy = chooser.choose("distributed.strategy", given.strategy, *usual)
    chooser.choose("distributed.offload", given.offload, "nothing", "all stays where it is computed, which is fastest")
    return DistributedPlan(strategy=strategy, world_size=ranks, offload=given.offload)


def _revision(spec: FineTuneJobSpec, facts: ModelFacts, chooser: Chooser) -> str | None:
    """Return the job's revision, else the preset's pin, with why; None: there is none, or the hub's main."""
    model, revision = spec.model, spec.model.revision
    if facts.revision is not None:
        revision = chooser.choose(
            "model.revision",
            revision,
            facts.revision,
            f"pinned by {facts.basis}, so that a run can be repeated; another commit, tag or branch overrides it",
        )
    elif model.source.startswith("hf://"):
        chooser.choose(
            "model.revision",
            model.revision,
            "main",
            "its commit is asked for once, kept to, and named in the version; pin it to repeat a run exactly",
        )
    if spec.task in TEMPLATE_TASKS:
        chooser.choose("model.chatTemplate", model.chat_template, "the model's", "prompts are what the model knows")
    return revision


def _dataset(spec: FineTuneJobSpec, chooser: Chooser) -> DatasetPlan:
    dataset, default = spec.dataset, DatasetPlan(train=[])
    chooser.choose("dataset.format", given(dataset, "format"), "auto", "by the suffix and content of each file")
    chooser.choose("dataset.columns", dataset.columns, {}, "the files name their columns as the task does")
    chooser.choose("dataset.maxRows", dataset.max_rows, "all", "more rows teach more")
    split = dataset.validation_split
    if dataset.validation is None:
        split = chooser.choose(
            "dataset.validationSplit", split, default.validation_split, "a tenth of the rows is held out"
        )
    return DatasetPlan(
        train=_files(dataset.train),
        validation=_files(dataset.validation or []),
        validation_split=default.validation_split if split is None else split,
        format=dataset.format,
        columns=dataset.columns or {},
        max_rows=dataset.max_rows,
    )


def _files(sources: Iterable[DataSource]) -> list[DataFile]:
    return [DataFile(source=item.source, revision=item.revision, sha256=item.sha256) for item in sources]


def _artifact(spec: FineTuneJobSpec, facts: ModelFacts, chooser: Chooser) -> ArtifactPlan:
    output = spec.output or OutputSpec()
    onnx, asked = output.onnx, output.onnx is not None and output.onnx.enabled
    if onnx is None and spec.method.type in PROMPT_METHODS:
        chooser.choose(
            "output.onnx.enabled",
            None,
            False,  # noqa: FBT003
            f"Strop exports no ONNX of {spec.method.type}, whose tokens stand in front of each row: its graphs read "
            "token ids alone and begin with an empty cache; the adapter is published",
        )
        onnx = OnnxSpec(enabled=False)
    elif onnx is None and lacks_onnx(spec, facts):
        why = f"ONNX Runtime GenAI's builder gives no right export of it ({facts.basis}); the adapter is published"
        onnx = OnnxSpec(enabled=chooser.choose("output.onnx.enabled", None, False, why))  # noqa: FBT003
    onnx = onnx or OnnxSpec()
    precisions, encoder = _precisions(spec.task, onnx, facts, chooser) if onnx.enabled else ([], None)
    form = None if onnx.form == "merged" else onnx.form
    if onnx.enabled:
        chooser.choose(
            "output.onnx.enabled",
            given(output.onnx, "enabled"),
            True,  # noqa: FBT003
            "it runs anywhere without PyTorch; a model whose architecture has no export is published without it",
        )
        chooser.choose(
            "output.onnx.form",
            given(output.onnx, "form"),
            "merged",
            "one model, which whatever runs ONNX loads; adapter is for many adapters on one base graph",
        )
        chooser.fixed("proof", f"up to {ProofPlan().rows} rows", _proof_in_words(ProofPlan()))
    merged = chooser.choose("output.merged", output.merged, *_merged(spec.method.type, exports=onnx.enabled))
    return ArtifactPlan(
        onnx=precisions, onnx_encoder=encoder, onnx_form=form, onnx_required=asked or None, merged=merged
    )


def _proof_in_words(proof: ProofPlan) -> str:
    return (
        f"against PyTorch, of fp32 logits within {proof.fp32_logits_tolerance:g} and {proof.fp32_token_agreement:.0%} "
        f"of tokens; of others perplexity up to x {proof.quantized_perplexity_ratio:g}; metrics at most "
        f"{proof.metric_drop:g} lower: else it is not published"
    )


def _merged(method: MethodType, *, exports: bool) -> tuple[bool, str]:
    """Return whether the merged model is published where the job does not say, and why."""
    if method == "dora":
        return True, "vLLM, by its loader's rules, takes no DoRA adapter: it serves the merged model"
    if method == "full" and not exports:
        return True, "there is no ONNX export and no adapter: nothing else would be published"
    if method == "full":
        return False, "the ONNX model is the tuned one; true publishes it as safetensors, too"
    if method in PROMPT_METHODS:
        return False, "tokens in front of each row cannot be folded into the weights"
    return False, "the adapter is small and goes beside its base model; true publishes the whole model, too"


def _precisions(
    task: Task, onnx: OnnxSpec, facts: ModelFacts, chooser: Chooser
) -> tuple[list[OnnxPrecision], list[OnnxPrecision] | None]:
    """Return the precisions of an export, and those of a model with encoder where only its folder tells of one."""
    encoder: list[OnnxPrecision] | None = None
    if task in LABEL_TASKS:
        usual, why = LABEL_ONNX
    elif encoder_decoders.is_encoder_decoder(facts):
        usual, why = encoder_decoders.ONNX
    else:
        usual, why = _ONNX
        unknown = task in TASKS and facts.architecture is None
        if (unknown or task == "question-answering") and onnx.precisions is None:
            encoder, of_encoders = ANSWER_ONNX
            why = f"{why}; {', '.join(encoder)} {of_encoders}"
    return list(chooser.choose("output.onnx.precisions", onnx.precisions, usual, why)), encoder


def _placement(
    job: Job,
    pools: Sequence[Pool],
    settings: PlanSettings,
    *,
    facts: ModelFacts,
    training: TrainingPlan,
    chooser: Chooser,
) -> PlacementPlan:
    spec = job.spec
    output = _output(job, settings, chooser)
    given = spec.compute.resources or ResourcesSpec()
    chosen = choose_pool(job, pools, needs_of(given, facts, training))
    if training.hyperparameters.gradient_checkpointing == "auto":
        without = needs_of(given, facts, with_hyperparameters(training, gradient_checkpointing=False))
        chosen, why = choose_checkpointing(chosen, without, known=facts.architecture is not None)
        chooser.because("training.gradientCheckpointing", why)
    pool = chosen.pool
    if spec.compute.pool == AUTO:
        only = len(pools) == 1
        why = "the only pool there is" if only else f"the cheapest that fits (cost {pool.spec.cost:g})"
        chooser.choose("compute.pool", None, pool.name, why)
    _explain_resources(given, facts, chosen, chooser, ranks=training.distributed.world_size)
    sources = [spec.model.source, *(file.source for file in (*training.dataset.train, *training.dataset.validation))]
    return PlacementPlan(
        namespace=job.namespace,
        job=job.name,
        pool=pool.name,
        processes_per_node=training.distributed.world_size,
        image=spec.compute.image or pool.spec.image or settings.image,
        resources=chosen.resources.model_copy(update={"work_volume": _work_volume(spec, facts, training, chooser)}),
        output=output,
        estimate=chosen.estimate,
        fp32_memory=chosen.fp32_memory,
        gradient_checkpointing=chosen.checkpointing,
        claims=_authorities("pvc://", sources),
        config_maps=_authorities("configmap://", sources),
        secret=spec.credentials.name if spec.credentials else None,
    )


def needs_of(given: ResourcesSpec, facts: ModelFacts, training: TrainingPlan) -> Needs:
    """Return what a pod needs, as far as the size of the model and the method tell.

    Where it is open whether activations are recomputed, they are: that is what the job needs to run at all.
    """
    ranks, training = training.distributed.world_size, encoder_decoders.as_estimated(training, facts)
    if training.hyperparameters.gradient_checkpointing == "auto":
        training = with_hyperparameters(training, gradient_checkpointing=True)
    if facts.shape is None or facts.parameters is None:
        return Needs(
            cpu_estimate=None, accelerator_estimate=None, pod=None, host=None, given=given, nodes=1, ranks=ranks
        )
    on_cpu, on_accelerator = (
        estimate_memory(facts.shape, facts.parameters, training, accelerator=accelerator, basis=facts.basis)
        for accelerator in (False, True)
    )
    kept = kept_bytes(facts.shape, facts.parameters, training)
    host = host_bytes(facts.shape, facts.parameters, training, kept=kept)
    bare = training.model_copy(update={"artifact": ArtifactPlan(onnx=[])})
    pod_fp32 = None
    if training.hyperparameters.precision == "auto":
        exact = with_hyperparameters(training, precision="fp32")
        rank = estimate_memory(facts.shape, facts.parameters, exact, accelerator=False, basis=facts.basis)
        pod_fp32 = pod_bytes(rank, facts.shape, facts.parameters, exact)
    unexported = host_bytes(facts.shape, facts.parameters, bare, kept=kept)
    return Needs(
        cpu_estimate=on_cpu,
        accelerator_estimate=on_accelerator,
        pod=pod_bytes(on_cpu, facts.shape, facts.parameters, training),
        pod_fp32=pod_fp32,
        host=host,
        given=given,
        nodes=1,
        ranks=ranks,
        unexported=unexported if unexported < host and training.method.type != "full" else None,
    )


def _explain_resources(given: ResourcesSpec, facts: ModelFacts, chosen: Fit, chooser: Chooser, *, ranks: int) -> None:
    resources = chosen.resources
    if given.memory is None:
        if chosen.estimate is None:
            reason = f"a whole node's: the size of the model is known from {facts.basis}"
        elif chosen.sized_by_fp32 and chosen.fp32_memory is not None:
            reason = f"{format_bytes(chosen.fp32_memory)} in fp32 and a tenth more, from {facts.basis}"
        elif resources.accelerators:
            reason = f"weights and export beside the accelerator, from {facts.basis}"
        else:
            of = f"{ranks} ranks of " if ranks > 1 else "estimate "
            reason = f"{of}{format_bytes(chosen.estimate.total)} and a tenth more, from {facts.basis}"
        chooser.choose("compute.resources.memory", None, resources.memory, reason)
    if given.cpu is None:
        chooser.choose("compute.resources.cpu", None, resources.cpu, f"all that a node of pool {chosen.pool.name} has")
    if given.accelerators is None and resources.accelerators:
        chooser.choose("compute.resources.accelerators", None, resources.accelerators, "one a rank")


def _work_volume(spec: FineTuneJobSpec, facts: ModelFacts, training: TrainingPlan, chooser: Chooser) -> str:
    given = spec.checkpoint.size if spec.checkpoint else None
    if facts.shape is None or facts.parameters is None:
        return chooser.choose("checkpoint.size", given, _UNKNOWN_WORK_VOLUME, "the size of the model is not known")
    # An archive on a claim is unpacked on the work volume.
    downloads = not spec.model.source.startswith("pvc://") or spec.model.source.endswith((".tar.gz", ".tgz"))
    needed = work_volume_bytes(facts.shape, facts.parameters, training, downloads=downloads, cut=facts.images)
    size = memory_quantity(needed, step=GIB)
    return chooser.choose("checkpoint.size", given, size, "the merged model in fp32, its exports, and checkpoints")


def _output(job: Job, settings: PlanSettings, chooser: Chooser) -> OutputPlacement:
    output = job.spec.output or OutputSpec()
    model = chooser.choose("output.model", output.model, job.name, "the job's name")
    if len(model) > _MODEL_NAME_LENGTH or not _MODEL_NAME.fullmatch(model):
        raise PlanError(
            names.Reason.INVALID,
            f"metadata.name: found {model}, which is also the model's name where spec.output.model is left out, "
            f"allowed: up to {_MODEL_NAME_LENGTH} of a-z, 0-9 and '-'",
        )
    claim = chooser.choose(
        "output.claim", output.claim.name if output.claim else None, settings.default_claim, "the registry's claim"
    )
    return OutputPlacement(claim=claim, model=model, aliases=output.aliases or [])


def _authorities(scheme: str, sources: Iterable[str]) -> list[str]:
    """Return the names after a scheme, each once, in alphabetical order."""
    return sorted({source.removeprefix(scheme).partition("/")[0] for source in sources if source.startswith(scheme)})


def check_job(job: Job) -> None:
    """Refuse a job that cannot be planned, whatever pools there are.

    Raises:
        PlanError: field, found and allowed.
    """
    _refuse_unsupported(job.spec)
    resolve_training(job.spec, model_facts(job.spec.model), Chooser())
    _output(job, PlanSettings(), Chooser())


def _refuse_unsupported(spec: FineTuneJobSpec) -> None:
    """Refuse what admission refuses, too: a job may have been admitted by the schema of a newer version."""
    if spec.task not in METRICS:
        raise _unsupported("task", spec.task, tuple(METRICS))
    accelerators = spec.compute.resources.accelerators if spec.compute.resources else None
    ranks = ranks_of(spec)
    if accelerators not in {None, 0, ranks}:
        raise _unsupported("compute.resources.accelerators", str(accelerators), ("0", f"{ranks} (one a rank)"))


def _unsupported(field: str, found: str, allowed: Sequence[str]) -> PlanError:
    return PlanError(
        names.Reason.UNSUPPORTED,
        f"spec.{field}: found {found}, allowed in this version: {', '.join(allowed)}",
    )
