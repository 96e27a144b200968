"""What a job is computed on: the accelerator that its pod was given, else the CPU."""

from __future__ import annotations

import os
from typing import Any

from strop_trainer.errors import bad_configuration

CPU = "cpu"


def choose_device(accelerators: int, found: str | None, torch_version: str) -> str:
    """Return torch's name of the device. A pod that was given no accelerator uses none, whatever the machine has.

    Args:
        accelerators: of the pod, by the plan.
        found: type of the accelerator that torch can use, such as `cuda` (NVIDIA and AMD) or `xpu`; None for none.
        torch_version: for the message.

    Raises:
        TrainerError: the pod has an accelerator that torch cannot use (exit 78): it would be held for nothing.
    """
    if accelerators == 0:
        return CPU
    if found is None:
        raise bad_configuration(
            f"compute.resources.accelerators: found {accelerators}, but torch {torch_version} of this image can use "
            "none: take the trainer image of the accelerator's kind (VARIANT=cuda for NVIDIA), or a pool without "
            "accelerators"
        )
    return found


def prepare_device(accelerators: int) -> str:
    """Choose the device, before anything is computed on one."""
    import torch  # noqa: PLC0415 - seconds

    # cuBLAS reads it once, and is deterministic only with it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    usable = torch.accelerator.current_accelerator() if accelerators and torch.accelerator.is_available() else None
    return choose_device(accelerators, usable.type if usable else None, str(torch.__version__))


def has_bf16(device: str) -> bool:
    """Return whether an accelerator multiplies in bf16 itself; NVIDIA's before Ampere (T4, V100) only emulate it.

    A kind of device that torch has no such question for is taken to have it.
    """
    import torch  # noqa: PLC0415

    asked = getattr(torch.get_device_module(device), "is_bf16_supported", None)
    return asked is None or bool(asked(including_emulation=False))


def random_state(device: str) -> Any | None:
    """Return the state of an accelerator's generator as bytes on the CPU; None for the CPU, which torch has itself."""
    import torch  # noqa: PLC0415

    return None if device == CPU else torch.get_device_module(device).get_rng_state()


def set_random_state(device: str, state: Any) -> None:
    """Set the state of an accelerator's generator."""
    import torch  # noqa: PLC0415

    torch.get_device_module(device).set_rng_state(state)


def peak_bytes(device: str) -> int:
    """Return the most memory of an accelerator that this process has ever held; 0 for the CPU."""
    import torch  # noqa: PLC0415

    return 0 if device == CPU else int(torch.accelerator.max_memory_reserved())


def release(device: str) -> None:
    """Give memory that is no longer used back to the accelerator."""
    import torch  # noqa: PLC0415

    if device != CPU:
        torch.accelerator.empty_cache()
