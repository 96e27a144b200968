"""A model with a head for labels: the base as it is, and a head that is new and trained in full."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop_trainer.device import CPU
from strop_trainer.errors import bad_configuration
from strop_trainer.export.merge import Look, Merged, fold
from strop_trainer.methods import quantized
from strop_trainer.methods.loading import loading_in_words
from strop_trainer.plan import TrainingPlan
from strop_trainer.tasks.labelled import Labels

MAPPINGS = {
    "AutoModelForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForTokenClassification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForQuestionAnswering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
}


@dataclass(frozen=True)
class WithHead:
    """A loaded model."""

    model: Any
    new: tuple[str, ...]
    """Modules that are trained in full: the head, and what the folder has no weights for."""


def input_names(config: dict[str, Any]) -> list[str]:
    """Return what a model reads: it is asked which of two texts a token is of where it tells them apart."""
    segments = (config.get("type_vocab_size") or 0) > 1
    return ["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"]


def check_labelled_architecture(model_type: str, auto_class: str) -> None:
    """Check that transformers itself has the head for an architecture.

    Raises:
        TrainerError: it has not (exit 78).
    """
    from transformers.models.auto import modeling_auto  # noqa: PLC0415 - seconds

    if model_type not in getattr(modeling_auto, MAPPINGS[auto_class]):
        raise bad_configuration(
            f"model: transformers has no {auto_class.removeprefix('AutoModelFor')} for {model_type}"
        )


def load_with_head(
    folder: Path,
    auto_class: str,
    labels: Labels,
    seed: int,
    *,
    bf16: bool,
    pad_id: int,
    quantized_on: str | None = None,
) -> WithHead:
    """Load a model with a head for the labels; a head for other labels is made anew, from the seed.

    Args:
        folder: of the base model.
        auto_class: of transformers.
        labels: the head's.
        seed: of what is new.
        bf16: whether the weights are in bf16, else in fp32; of a quantized model, what it computes in.
        pad_id: number of the padding token.
        quantized_on: the device on which linear layers of the base are loaded in 4 bits, all else in fp32; None
            quantizes nothing.

    Raises:
        TrainerError: the folder lacks weights of the model itself (exit 78).
    """
    import torch  # noqa: PLC0415 - seconds
    import transformers  # noqa: PLC0415

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    known = [config.id2label[key] for key in sorted(config.id2label)] == list(labels.names)
    span = auto_class == "AutoModelForQuestionAnswering"
    if span:
        config.num_labels, known = 2, True
    else:
        config.id2label, config.label2id = dict(enumerate(labels.names)), labels.ids
        config.problem_type = "multi_label_classification" if labels.several else None
    config.pad_token_id = pad_id
    more: dict[str, Any] = {}
    if quantized_on is not None:
        with torch.device("meta"):
            empty = getattr(transformers, auto_class).from_config(config)
        whole = [*_heads(empty), *(name for name, _ in empty.named_modules() if name.rpartition(".")[2] == "pooler")]
        more["quantization_config"] = quantized.quantization_config("bf16" if bf16 else "fp32", whole)
        if quantized_on != CPU:
            more["device_map"] = {"": quantized_on}
    torch.manual_seed(seed)
    with loading_in_words():
        model, info = getattr(transformers, auto_class).from_pretrained(
            folder,
            config=config,
            dtype=torch.bfloat16 if bf16 else torch.float32,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **more,
        )
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    prefix = f"{model.base_model_prefix}."
    lacking = sorted({*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])})
    inside = [name for name in lacking if name.startswith(prefix)]
    strange = [name for name in inside if ".pooler." not in name]
    if strange:
        raise bad_configuration(f"model: its weights lack {len(strange)} tensors, such as {strange[0]}")
    heads = _heads(model)
    if not known:
        _start_anew([module for name in heads for module in getattr(model, name).modules()], model.config)
    new = (*heads, *sorted({name.rpartition(".")[0] for name in inside}))
    if quantized_on is not None:
        return WithHead(quantized.prepare(model), new)
    return WithHead(model.float() if not bf16 else model, new)


def _heads(model: Any) -> list[str]:
    """Return the names of what has weights beside the base."""
    return [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    ]


def _start_anew(modules: Sequence[Any], config: Any) -> None:
    import torch  # noqa: PLC0415

    for module in modules:
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=getattr(config, "initializer_range", 0.02))
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)


def plan_with_head(plan: TrainingPlan, found: WithHead) -> TrainingPlan:
    """Return the plan with all-linear spelt out as the linear layers of the base."""
    import torch  # noqa: PLC0415

    lora = plan.method.lora
    if lora is None or lora.target_modules != "all-linear":
        return plan
    prefix = re.escape(found.model.base_model_prefix)
    new = "|".join(map(re.escape, found.new))
    names = sorted(
        {
            name.rpartition(".")[2]
            for name, module in found.model.named_modules()
            if isinstance(module, torch.nn.Linear) and name.startswith(f"{found.model.base_model_prefix}.")
        }
    )
    layers = rf"(?!({new})(\.|$)){prefix}\.(.*\.)?({'|'.join(map(re.escape, names))})"
    method = plan.method.model_copy(update={"lora": lora.model_copy(update={"target_modules": layers})})
    return plan.model_copy(update={"method": method})


def load_adapter_with_head(
    folder: Path, adapter: Path, auto_class: str, labels: Labels, *, seed: int, pad_id: int, bf16: bool
) -> Any:
    """Return a saved adapter on its base model, loaded anew, in fp32.

    Args:
        folder: of the base model, unquantized.
        adapter: PEFT folder.
        auto_class: of transformers.
        labels: the head's.
        seed: of what is new, all of which the adapter replaces.
        pad_id: number of the padding token.
        bf16: whether the base's weights are rounded to bf16 first, as for training.
    """
    from peft import PeftModel  # noqa: PLC0415 - seconds

    base = load_with_head(folder, auto_class, labels, seed, bf16=bf16, pad_id=pad_id).model
    return PeftModel.from_pretrained(base.float(), adapter)


def merge_with_head(
    folder: Path,
    adapter: Path,
    out: Path | None,
    auto_class: str,
    labels: Labels,
    *,
    seed: int,
    pad_id: int,
    look: Look | None = None,
) -> Merged:
    """Fold an adapter into its base in fp32, save model and tokenizer to `out`, and return the model.

    Args:
        folder: of the base model, unquantized.
        adapter: PEFT folder.
        out: the folder to make; None writes nothing.
        auto_class: of transformers.
        labels: the head's.
        seed: of what is new, all of which the adapter replaces.
        pad_id: number of the padding token.
        look: what is seen of the model before and after merging; None: nothing.

    Raises:
        ValueError: merging gave a weight that is not a number, so that the adapter is broken.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415

    tuned = load_adapter_with_head(folder, adapter, auto_class, labels, seed=seed, pad_id=pad_id, bf16=False)
    # PEFT's own hands on weight and bias as of one layer, but for LoRA, and fails on a head of several. Each module
    # that is put back has its weights.
    tuned.base_model._replace_module = lambda parent, name, module, _wrapper: setattr(parent, name, module)
    merged = fold(tuned, look)
    if out is not None:
        merged.model.save_pretrained(out)
        AutoTokenizer.from_pretrained(folder, local_files_only=True).save_pretrained(out)
    return merged
