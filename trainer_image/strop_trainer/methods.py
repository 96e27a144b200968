"""Fine-tuning methods: from a model folder to a model whose trainable parameters are the method's."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop_trainer.errors import bad_configuration
from strop_trainer.plan import LoraPlan, Precision, TrainingPlan

METHODS = ("lora",)
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def check_method(plan: TrainingPlan) -> LoraPlan:
    """Return the options of the method. Needs no torch.

    Raises:
        TrainerError: this version does not train it so (exit 78).
    """
    method, precision, distributed = plan.method, plan.hyperparameters.precision, plan.distributed
    if method.type not in METHODS:
        raise bad_configuration(f"method.type: {method.type} is not supported, allowed: {', '.join(METHODS)}")
    if method.lora is None:
        raise bad_configuration(f"method.lora: missing for method {method.type}")
    if method.lora.initialization != "default":
        raise bad_configuration(
            f"method.lora.initialization: {method.lora.initialization} is not supported, allowed: default"
        )
    if precision not in PRECISIONS:
        raise bad_configuration(f"training.precision: {precision} is not supported, allowed: {', '.join(PRECISIONS)}")
    if distributed.world_size != 1 or distributed.strategy != "none":
        raise bad_configuration(
            f"distributed: found {distributed.world_size} ranks, strategy {distributed.strategy}; "
            "this version trains in one"
        )
    return method.lora


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to train."""

    model: Any
    """PeftModel: frozen weights in the compute precision, trainable ones in fp32."""
    tokenizer: Any
    total_parameters: int
    trainable_parameters: int

    @property
    def trainable(self) -> dict[str, Any]:
        """Name → trainable parameter, in the order of the model."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a model folder.

    Raises:
        TrainerError: it cannot be loaded, or is not a fast one.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 - seconds

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise bad_configuration(f"model: its tokenizer cannot be loaded: {error}") from None
    if not tokenizer.is_fast:
        raise bad_configuration("model: its tokenizer has no tokenizer.json that the tokenizers library can load")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_architecture(model_type: str, architecture: str) -> None:
    """Check that transformers itself knows the architecture as a causal language model.

    Args:
        model_type: of the model's configuration.
        architecture: class that its weights are of; the model type again where the configuration names none.

    Raises:
        TrainerError: it does not (exit 78).
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES  # noqa: PLC0415 - seconds

    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type, ())
    if architecture not in {model_type, *([names] if isinstance(names, str) else names)} or not names:
        raise bad_configuration(
            f"model: unsupported architecture {architecture}: no causal language model that transformers knows itself"
        )


def load_model(folder: Path, plan: TrainingPlan, tokenizer: Any) -> LoadedModel:
    """Load the base model frozen, in the compute precision, and add the method's trainable parameters in fp32.

    Raises:
        TrainerError: the weights do not fit the architecture, or the method does not fit the model (exit 78).
    """
    import torch  # noqa: PLC0415 - seconds
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    hyperparameters = plan.hyperparameters
    dtype = torch.bfloat16 if hyperparameters.precision == "bf16" else torch.float32
    torch.manual_seed(hyperparameters.seed)
    try:
        base, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if "memory" in str(error).lower():
            raise
        raise bad_configuration(f"model: cannot be loaded: {str(error).splitlines()[0]}") from error
    if info.get("missing_keys"):
        names = sorted(info["missing_keys"])
        raise bad_configuration(f"model: its weights lack {len(names)} tensors, such as {names[0]}")
    base.config.use_cache = False
    rows = base.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise bad_configuration(
            f"model: its tokenizer has {len(tokenizer)} tokens, more than the {rows} of its embedding"
        )
    model = _add_lora(base, check_method(plan))
    if hyperparameters.gradient_checkpointing:
        base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return LoadedModel(model, tokenizer, sum(n for n, _ in counts), sum(n for n, trainable in counts if trainable))


def _add_lora(base: Any, lora: LoraPlan) -> Any:
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - seconds

    embeddings = {"lm_head", "embed_tokens", "wte", "embed_in", "embed_out"}
    if base.config.tie_word_embeddings and (tied := embeddings & set(lora.modules_to_save)):
        raise bad_configuration(
            f"method.lora.modulesToSave: {', '.join(sorted(tied))} shares its weights with the other end of this model"
        )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        modules_to_save=list(lora.modules_to_save) or None,
        use_rslora=lora.use_rslora,
    )
    try:
        with warnings.catch_warnings():
            # PEFT asks transformers by a name that it is about to change.
            warnings.simplefilter("ignore", FutureWarning)
            return get_peft_model(base, config)
    except ValueError as error:
        linear = sorted({name.rsplit(".", 1)[-1] for name, m in base.named_modules() if type(m).__name__ == "Linear"})
        raise bad_configuration(
            f"method.lora.targetModules: {error}; linear layers of this model: {', '.join(linear)}"
        ) from None
