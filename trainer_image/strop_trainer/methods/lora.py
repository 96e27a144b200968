"""LoRA, DoRA and the adapter of QLoRA: how they are added, where they start, and how they are saved."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from strop_trainer.adapter_starts import start_refusal
from strop_trainer.errors import bad_configuration
from strop_trainer.plan import LoraPlan, MethodPlan

STARTS = {"default": True, "pissa": "pissa_niter_16", "olora": "olora", "loftq": True}
"""By PEFT's names. PiSSA's fast singular value decomposition: 16 iterations come near the exact one (Meng et al. 2024,
table 4), in seconds instead of minutes."""


def lora_config(method: MethodPlan, lora: LoraPlan, base: Any, task_type: str) -> Any:
    """Return PEFT's configuration.

    Raises:
        TrainerError: a name is of no layer of the model, or of one that shares its weights with another (exit 78):
            merged, or published, what was learnt at one end would be in the other as well. Or it is of an embedding,
            whose adapter is not saved as the change from another start.
    """
    from peft import LoraConfig  # noqa: PLC0415 - seconds
    from peft.tuners.tuners_utils import check_target_module_exists  # noqa: PLC0415

    saved = _of_names("modulesToSave", lora.modules_to_save, _with_weights(base, _can_be_trained))
    if isinstance(lora.target_modules, list):
        adapted = _of_names("targetModules", lora.target_modules, _with_weights(base, _has_matrices))
        if why := start_refusal(lora.initialization, _embeddings(base, adapted)):
            raise bad_configuration(why)
    config = LoraConfig(
        task_type=task_type,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        modules_to_save=_for_peft(base, saved) or None,
        use_rslora=lora.use_rslora,
        use_dora=method.type == "dora",
        init_lora_weights=STARTS[lora.initialization],
    )
    shared = _shared(base)
    both = [name for name in shared if any(name in names for names in saved.values())]
    changed = [name for name in shared if check_target_module_exists(config, name)]
    for field, found in (("modulesToSave", both), ("targetModules", changed)):
        if found:
            raise bad_configuration(
                f"method.lora.{field}: found {', '.join(found)}, which shares its weights with "
                f"{', '.join(sorted({other for name in found for other in shared[name]} - set(found))) or 'the other'} "
                "in this model, allowed: its other layers"
            )
    return config


def _with_weights(base: Any, fits: Callable[[list[Any]], bool]) -> dict[str, Any]:
    """Return name → module, of those that can be called and have weights that fit."""
    import torch  # noqa: PLC0415 - seconds

    containers = (torch.nn.ModuleList, torch.nn.ModuleDict)
    return {
        name: module
        for name, module in base.named_modules(remove_duplicate=False)
        if name and not isinstance(module, containers) and (weights := list(module.parameters())) and fits(weights)
    }


def _can_be_trained(weights: list[Any]) -> bool:
    """Whether none is of 4 bits."""
    return all(weight.is_floating_point() for weight in weights)


def _has_matrices(weights: list[Any]) -> bool:
    return any(weight.dim() > 1 for weight in weights)


def _of_names(field: str, names: Sequence[str], modules: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return name → full names of the modules that it stands for: its own, and those that end in a dot and it.

    Raises:
        TrainerError: it stands for none (exit 78).
    """
    found = {name: [full for full in modules if f".{full}".endswith(f".{name}")] for name in names}
    if wrong := [name for name, full in found.items() if not full]:
        leaves = [full for full, module in modules.items() if not any(True for _ in module.children())]
        allowed = dict.fromkeys(full.rpartition(".")[2] for full in leaves)
        raise bad_configuration(
            f"method.lora.{field}: found {', '.join(wrong)}, allowed for this model: {', '.join(allowed)}"
        )
    return found


def _embeddings(base: Any, adapted: Mapping[str, list[str]]) -> list[str]:
    """Return the names that stand for an embedding."""
    import torch  # noqa: PLC0415

    modules = dict(base.named_modules(remove_duplicate=False))
    return [
        name for name, every in adapted.items() if any(isinstance(modules[full], torch.nn.Embedding) for full in every)
    ]


def _for_peft(base: Any, saved: Mapping[str, list[str]]) -> list[str]:
    """Return names by which PEFT finds these modules and no others: it goes by the end of a name, even in a word."""
    every = [name for name, _ in base.named_modules(remove_duplicate=False)]
    return [
        name
        for short, full in saved.items()
        for name in ([short] if [other for other in every if other.endswith(short)] == full else full)
    ]


def _shared(base: Any) -> dict[str, list[str]]:
    """Return layer → all layers of the same weights, itself included; of those alone that are not the only one."""
    users: dict[int, list[str]] = {}
    for name, module in base.named_modules():
        weight = getattr(module, "weight", None)
        if weight is not None:
            users.setdefault(id(weight), []).append(name)
    return {name: names for names in users.values() if len(names) > 1 for name in names}


def rates(lora: LoraPlan | None, names: Iterator[str]) -> dict[str, float]:
    """Return parameter → factor on the learning rate: that of LoRA+ for the B matrices (Hayou et al. 2024)."""
    if lora is None or lora.plus_ratio is None:
        return {}
    return {name: lora.plus_ratio for name in names if ".lora_B." in name or ".lora_embedding_B." in name}


def start_of(model: Any) -> dict[str, Any]:
    """Return copies of the adapter's matrices, by parameter."""
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }


@contextmanager
def started_again(model: Any, start: Mapping[str, Any]) -> Iterator[None]:
    """Let the adapter be as it started: with PiSSA and OLoRA, that is the base model."""
    parameters = dict(model.named_parameters())
    now = {name: parameters[name].data for name in start}
    try:
        for name, value in start.items():
            parameters[name].data = value
        yield
    finally:
        for name, value in now.items():
            parameters[name].data = value


def save_change(model: Any, start: Mapping[str, Any], out: Path) -> None:
    """Save what was learnt as a plain LoRA adapter of the base model as it is, of twice the rank.

    An adapter that started at A0, B0 has learnt s (B A - B0 A0) = [s B, -s B0] [A; A0]: a rank of 2 r, with the scale s
    folded into B (Meng et al. 2024, section 3; PEFT converts likewise).
    """
    import torch  # noqa: PLC0415 - seconds
    from peft import get_peft_model_state_dict  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    config = copy.deepcopy(model.peft_config["default"])
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    scales = {name: float(module.scaling["default"]) for name, module in layers.items()}
    tensors: dict[str, Any] = {}
    for name, value in get_peft_model_state_dict(model, save_embedding_layers=False).items():
        layer, _, matrix = name.removesuffix(".weight").rpartition(".")
        first = start.get(f"{layer}.{matrix}.default.weight")
        if first is None:
            tensors[name] = value.contiguous()
        elif matrix == "lora_A":
            tensors[name] = torch.cat([value, first]).contiguous()
        else:
            tensors[name] = (scales[layer] * torch.cat([value, -first], dim=1)).contiguous()
    config.r, config.lora_alpha = 2 * config.r, 2 * config.r  # a scale of 1
    config.use_rslora, config.init_lora_weights, config.inference_mode = False, True, True
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(out)
