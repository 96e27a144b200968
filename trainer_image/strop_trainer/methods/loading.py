"""From a model folder to a model whose trainable parameters are the method's."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strop_trainer.addresses import shown
from strop_trainer.device import CPU
from strop_trainer.errors import bad_configuration
from strop_trainer.methods import ia3, prompts, quantized
from strop_trainer.methods import lora as low_rank
from strop_trainer.methods.auto_class import language_model_class
from strop_trainer.methods.checks import check_method
from strop_trainer.plan import PROMPT_METHODS, TrainingPlan
from strop_trainer.sources.text_part import MARK

CAUSAL, ENCODER_DECODER = "CAUSAL_LM", "SEQ_2_SEQ_LM"
"""PEFT's names of what a model is for."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to train."""

    model: Any
    """PeftModel: frozen weights in the compute precision, trainable ones in fp32. With method full the model itself,
    in fp32, which computes in the plan's precision."""
    tokenizer: Any
    total_parameters: int
    trainable_parameters: int
    folder: Path
    """Of the base model."""
    plan: TrainingPlan
    start: dict[str, Any] = field(default_factory=dict)
    """The adapter's matrices before training, where they did not start at no effect."""

    @property
    def trainable(self) -> dict[str, Any]:
        """Name → trainable parameter, in the order of the model."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    @property
    def rates(self) -> dict[str, float]:
        """Name → factor on the learning rate, for parameters that have one."""
        return low_rank.rates(self.plan.method.lora, iter(self.trainable))

    @property
    def has_adapter(self) -> bool:
        """Whether what is trained stands beside the base model."""
        return self.plan.method.type != "full"

    @property
    def base(self) -> Any:
        """The transformers model."""
        return self.model.get_base_model() if self.has_adapter else self.model

    @property
    def base_parameters(self) -> int:
        """Parameters of the base model."""
        return self.total_parameters - (self.trainable_parameters if self.has_adapter else 0)

    @contextmanager
    def as_base(self) -> Iterator[Any]:
        """Yield a model that answers as the base model; with method full it is loaded a second time for that."""
        if not self.has_adapter:
            yield _second_base(self)
        elif self.plan.method.type in PROMPT_METHODS:
            yield self.base
        elif self.plan.method.lora is not None and self.plan.method.lora.initialization in {"pissa", "olora"}:
            with low_rank.started_again(self.model, self.start):
                yield self.model
        else:
            with self.model.disable_adapter():
                yield self.model

    def save_adapter(self, out: Path, base_name: str) -> None:
        """Save the adapter as a PEFT folder that fits the base model as it is."""
        self.model.peft_config["default"].base_model_name_or_path = shown(base_name)
        if self.start:
            low_rank.save_change(self.model, self.start, out)
            return
        # "auto" would look for the base model's configuration under its name, to see whether the vocabulary has grown.
        self.model.save_pretrained(out, save_embedding_layers=False)


def load_tokenizer(folder: Path, template: str | None = None, *, fast: bool = True) -> Any:
    """Load the tokenizer of a model folder, and give it a chat template in place of its own where there is one.

    Args:
        folder: of the model.
        template: chat template.
        fast: whether it must tell where in the text a token is, which slow ones do not.

    Raises:
        TrainerError: it cannot be loaded, or is not a fast one.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 - seconds

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise bad_configuration(f"model: its tokenizer cannot be loaded: {error}") from None
    if fast and not tokenizer.is_fast:
        raise bad_configuration("model: its tokenizer has no tokenizer.json that the tokenizers library can load")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if template is not None:
        tokenizer.chat_template = template
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


def load_model(folder: Path, plan: TrainingPlan, tokenizer: Any, device: str = CPU) -> LoadedModel:
    """Load the base model and make the method's parameters trainable, in fp32.

    Raises:
        TrainerError: the weights do not fit the architecture, or the method does not fit the model (exit 78).
    """
    import torch  # noqa: PLC0415 - seconds

    check_method(plan)
    torch.manual_seed(plan.hyperparameters.seed)
    base = _load_base(folder, plan, device)
    check_vocabulary(base, tokenizer)
    task_type = ENCODER_DECODER if base.config.is_encoder_decoder else CAUSAL
    return prepare_method(base, plan, tokenizer, folder, task_type)


def check_vocabulary(base: Any, tokenizer: Any) -> None:
    """Check that the model has a row of its embedding for each token.

    Raises:
        TrainerError: it has not (exit 78).
    """
    rows = base.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise bad_configuration(
            f"model: its tokenizer has {len(tokenizer)} tokens, more than the {rows} of its embedding"
        )


@contextmanager
def loading_in_words() -> Iterator[None]:
    """Say in one line why weights cannot be loaded.

    Raises:
        TrainerError: they cannot (exit 78); want of memory is told where all of it is.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if "memory" in str(error).lower():
            raise
        raise bad_configuration(f"model: cannot be loaded: {str(error).splitlines()[0]}") from error


def prepare_method(  # noqa: PLR0917 - what a model is made of
    base: Any, plan: TrainingPlan, tokenizer: Any, folder: Path, task_type: str = CAUSAL, new: Sequence[str] = ()
) -> LoadedModel:
    """Make the method's parameters trainable, in fp32.

    Args:
        base: the transformers model, frozen or not; quantized for qlora.
        plan: what is computed.
        tokenizer: of the model.
        folder: of the base model.
        task_type: PEFT's name of what the model is for.
        new: modules that are trained in full and saved beside an adapter, besides those that the plan names.

    Raises:
        TrainerError: the method does not fit the model (exit 78).
    """
    method, hyperparameters = plan.method, plan.hyperparameters
    total = base.num_parameters()
    start: dict[str, Any] = {}
    if method.type == "full":
        model = base.requires_grad_(True)  # noqa: FBT003 - torch's own
        if hyperparameters.precision == "bf16":
            _compute_in_bf16(model)
    else:
        model, start = _add_adapter(base, plan, folder, task_type, new)
        _keep_in_fp32(model)
    if hyperparameters.gradient_checkpointing is not False:  # auto, where nobody has settled it: what needs least
        base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        if method.type != "full":
            model.enable_input_require_grads()
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total += trained if method.type != "full" else 0
    return LoadedModel(model, tokenizer, total, trained, folder, plan, start)


def load_adapter(adapter: Path, folder: Path, plan: TrainingPlan, device: Any, *, exact: bool) -> Any:
    """Return a saved adapter on a base model loaded anew, as its users would load it, in the precision of training.

    Args:
        adapter: PEFT folder.
        folder: of the base model.
        plan: what was computed.
        device: torch's.
        exact: whether the base's weights, rounded as for training, become fp32.
    """
    from peft import PeftModel  # noqa: PLC0415 - seconds

    base = _load_base(folder, plan, device.type)
    model = PeftModel.from_pretrained(base.float() if exact else base, adapter).eval()
    if plan.method.type in PROMPT_METHODS:
        prompts.use_prompt(model)
    return model.to(device)


def _load_base(folder: Path, plan: TrainingPlan, device: str) -> Any:
    import torch  # noqa: PLC0415 - seconds

    method, precision = plan.method.type, plan.hyperparameters.precision
    more = {"quantization_config": quantized.quantization_config(precision)} if method == "qlora" else {}
    if device != CPU:
        more["device_map"] = {"": device}
    with loading_in_words():
        base, info = language_model_class(folder).from_pretrained(
            folder,
            # What is trained in full keeps fp32 weights, and computes in the plan's precision.
            dtype=torch.bfloat16 if precision == "bf16" and method != "full" else torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **more,
        )
    if info.get("missing_keys"):
        names = sorted(info["missing_keys"])
        raise bad_configuration(f"model: its weights lack {len(names)} tensors, such as {names[0]}")
    if info.get("unexpected_keys") and (folder / MARK).is_file():
        names = sorted(info["unexpected_keys"])
        raise bad_configuration(f"model: its text part has {len(names)} tensors too many, such as {names[0]}")
    base.config.use_cache = False
    for module in base.modules():
        if getattr(module, "layerdrop", 0):
            # M2M100 leaves layers out at random: their adapters would have no gradient, another rank's would.
            module.layerdrop = 0.0
    return quantized.prepare(base) if method == "qlora" else base


def _add_adapter(
    base: Any, plan: TrainingPlan, folder: Path, task_type: str, new: Sequence[str]
) -> tuple[Any, dict[str, Any]]:
    """Return the PeftModel, and where its matrices start if not at no effect."""
    from peft import get_peft_model  # noqa: PLC0415 - seconds

    method, lora = plan.method, plan.method.lora
    if lora is not None:
        lora = lora.model_copy(update={"modules_to_save": [*lora.modules_to_save, *new]})
        config = low_rank.lora_config(method, lora, base, task_type)
    elif method.type in PROMPT_METHODS:
        config = prompts.prompt_config(method, base, task_type)
    else:
        config = ia3.ia3_config(base, task_type, new)
    try:
        with warnings.catch_warnings():
            # PEFT asks transformers by a name that it is about to change.
            warnings.simplefilter("ignore", FutureWarning)
            model = get_peft_model(base, config)
    except ValueError as error:
        linear = sorted({name.rsplit(".", 1)[-1] for name, m in base.named_modules() if type(m).__name__ == "Linear"})
        raise bad_configuration(
            f"method.lora.targetModules: {error}; linear layers of this model: {', '.join(linear)}"
        ) from None
    if method.type == "prefix-tuning":
        prompts.start_prefix(model)
    if method.type == "p-tuning":
        prompts.start_prompt_encoder(model)
    if method.type in PROMPT_METHODS:
        prompts.use_prompt(model)
    if lora is None or lora.initialization == "default":
        return model, {}
    if lora.initialization == "loftq":
        quantized.start_at_the_loss(model, folder)
    return model, low_rank.start_of(model)


def _keep_in_fp32(model: Any) -> None:
    """Keep what is trained beside the base in fp32: PEFT does so with its own layers, and not with modules to save."""
    from peft.utils import ModulesToSaveWrapper  # noqa: PLC0415

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            _compute_as(module.original_module, module.modules_to_save["default"])


def _compute_as(original: Any, trained: Any) -> None:
    """Let a module of fp32 weights compute in the precision of the one that it replaces, whose readers expect that.

    It follows the other: where that is made fp32, to be held to what is published, both compute in fp32.
    """
    import torch  # noqa: PLC0415

    forward_in_fp32 = trained.forward

    @functools.wraps(forward_in_fp32)
    def forward(*arguments: Any, **more: Any) -> Any:
        parameter = next(original.parameters())
        if parameter.dtype != torch.bfloat16:
            return forward_in_fp32(*arguments, **more)
        with torch.autocast(parameter.device.type, dtype=torch.bfloat16):
            return _rounded(forward_in_fp32(*arguments, **more))

    trained.forward = forward


def _rounded(output: Any) -> Any:
    """Return what a module puts out with its fp32 tensors in bf16: embeddings and norms are not cast by themselves."""
    import torch  # noqa: PLC0415

    if isinstance(output, tuple):
        return tuple(map(_rounded, output))
    return output.to(torch.bfloat16) if isinstance(output, torch.Tensor) and output.dtype == torch.float32 else output


def _compute_in_bf16(model: Any) -> None:
    """Let a model of fp32 weights compute its matrix products in bf16: mixed precision with fp32 master weights."""
    import torch  # noqa: PLC0415

    original = model.forward

    @functools.wraps(original)
    def forward(*arguments: Any, **more: Any) -> Any:
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            return original(*arguments, **more)

    model.forward = forward


def _second_base(loaded: LoadedModel) -> Any:
    """Return the base model as it came, computing as the one that is trained."""
    base = _load_base(loaded.folder, loaded.plan, loaded.model.device.type)
    if loaded.plan.hyperparameters.precision == "bf16":
        _compute_in_bf16(base)
    base.set_attn_implementation(loaded.model.config._attn_implementation)
    return base.to(loaded.model.device)
