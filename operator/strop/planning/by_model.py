"""What a known base model asks of a job: told by its preset, before anything is fetched. Pure."""

from __future__ import annotations

from typing import Final

from strop.api import names
from strop.api.finetunejob import FineTuneJobSpec, OutputSpec
from strop.planning.encoder_decoders import is_encoder_decoder
from strop.planning.inputs import PlanError
from strop.planning.presets import Architecture, ModelFacts, has_experts, refusal_of
from strop_trainer.adapter_starts import start_refusal
from strop_trainer.encoder_decoders import plan_refusal, task_refusal
from strop_trainer.plan import LABEL_TASKS, METRICS, TrainingPlan
from strop_trainer.text_parts import text_part_refusal

_EMBEDDING: Final = "embed_tokens"
_ENDS: Final = ("lm_head", _EMBEDDING)
"""Layers that may be adapted as well, where each has weights of its own."""


def check_by_model(spec: FineTuneJobSpec, facts: ModelFacts) -> None:
    """Refuse what the base model is known not to have.

    Raises:
        PlanError: field, found and allowed.
    """
    if reason := refusal_of(spec.model):
        raise PlanError(names.Reason.UNSUPPORTED, f"spec.model.source: found {spec.model.source}: {reason}")
    if spec.method.type == "qlora" and has_experts(spec.model):
        raise PlanError(
            names.Reason.UNSUPPORTED,
            f"spec.method.type: found qlora for {spec.model.source}, a mixture of experts, allowed: lora; its experts, "
            "most of the weights, are not quantized and would take fp32's memory",
        )
    if facts.images and (why := text_part_refusal(spec.method.type)):
        raise PlanError(names.Reason.UNSUPPORTED, f"spec.{why} ({facts.basis})")
    if METRICS[spec.task].by_model and not facts.may_be_encoder:
        _check_gates(spec, facts)
    architecture = facts.architecture
    if architecture is None:
        return
    if is_encoder_decoder(facts) and (why := task_refusal(spec.task, architecture.name)):
        raise PlanError(names.Reason.UNSUPPORTED, f"spec.{why} ({facts.basis})")
    _check_layers(spec, facts, architecture)
    if lacks_onnx(spec, facts):
        _check_output(spec.output or OutputSpec(), spec.method.type, architecture.name)


def check_plan_by_model(training: TrainingPlan, facts: ModelFacts) -> None:
    """Refuse a plan of what the base model, which reads one text and writes another, is not trained or exported with.

    Raises:
        PlanError: field, found and allowed.
    """
    architecture = facts.architecture
    if architecture is None or not architecture.encoder_decoder or training.task in LABEL_TASKS:
        return
    if why := plan_refusal(training, architecture.name):
        raise PlanError(names.Reason.UNSUPPORTED, f"spec.{why} ({facts.basis})")


def lacks_onnx(spec: FineTuneJobSpec, facts: ModelFacts) -> bool:
    """Whether the model is known to have no ONNX export for this task."""
    return facts.architecture is not None and not facts.architecture.onnx and spec.task not in LABEL_TASKS


def _check_layers(spec: FineTuneJobSpec, facts: ModelFacts, architecture: Architecture) -> None:
    """Refuse layers that the model lacks, and what would change both of its ends, which share their weights.

    A head for labels stands in place of the output layer, and shares none.
    """
    lora = spec.method.lora
    if lora is None:
        return
    shared = _ENDS if facts.shape is not None and facts.shape.tied and spec.task not in LABEL_TASKS else ()
    ends = tuple(name for name in _ENDS if name not in shared)
    # A layer in 4 bits is not trained in full. A head for labels has names of its own.
    whole = () if spec.method.type == "qlora" else architecture.linear
    saved = None if spec.task in LABEL_TASKS else (*whole, *architecture.others, *ends)

    def last(name: str) -> str:
        return name.rpartition(".")[2]

    for field, found, known in (
        ("targetModules", lora.target_modules or [], (*architecture.linear, *ends)),
        ("modulesToSave", lora.modules_to_save or [], saved),
    ):
        unknown = [name for name in found if known is not None and last(name) not in known]
        if wrong := [name for name in unknown if field == "targetModules" or not last(name).isdigit()]:
            tied = [name for name in wrong if last(name) in shared]
            why = f"; {', '.join(tied)} shares its weights with the other end of this model" if tied else ""
            raise PlanError(
                names.Reason.INVALID,
                f"spec.method.lora.{field}: found {', '.join(wrong)}, allowed for {architecture.name}: "
                f"{', '.join(known or ())}{why} ({facts.basis})",
            )
    embeddings = [name for name in lora.target_modules or [] if last(name) == _EMBEDDING]
    if reason := start_refusal(lora.initialization, embeddings):
        raise PlanError(names.Reason.INVALID, f"spec.{reason} ({facts.basis})")


def _check_gates(spec: FineTuneJobSpec, facts: ModelFacts) -> None:
    """Refuse gates on answers that a model which generates its answers is asked not to give."""
    given = spec.evaluation
    if given is None or given.generate_rows != 0:
        return
    gates = {*(given.minimum or {}), *(given.maximum or {})}
    gated = [name for name in METRICS[spec.task].generated if name in gates]
    if gated:
        raise PlanError(
            names.Reason.INVALID,
            f"spec.evaluation.generateRows: found 0, allowed: at least 1 with a gate on {', '.join(gated)}, which "
            f"a model that generates its answers is measured by ({facts.basis})",
        )


def _check_output(output: OutputSpec, method: str, architecture: str) -> None:
    if output.onnx is not None and output.onnx.enabled:
        raise PlanError(
            names.Reason.UNSUPPORTED,
            f"spec.output.onnx.enabled: found true, allowed for {architecture}: false; ONNX Runtime GenAI's builder "
            "gives no right export of it, and the adapter is published without one",
        )
    if method == "full" and output.merged is False:
        raise PlanError(
            names.Reason.INVALID,
            f"spec.output.merged: found false, allowed for method full of {architecture}: true; it has no ONNX export, "
            "and nothing else would be published",
        )
