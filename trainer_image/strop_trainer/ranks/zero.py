"""DeepSpeed ZeRO (Rajbhandari et al. 2020): ranks deal out optimizer state (1), gradients (2) and weights (3).

DeepSpeed's own checkpoints are pickles, and are of one number of ranks. Ours hold whole tensors, the same ones whatever
the strategy: what is dealt out is put together for saving and dealt out again after loading.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

from strop_trainer.batches import Batch
from strop_trainer.device import CPU
from strop_trainer.optimisation import MOMENTS, Optimisation, as_module
from strop_trainer.plan import ZERO_BUCKET, Hyperparameters
from strop_trainer.ranks.team import Team
from strop_trainer.threads import give_back_freed_memory


def zero_config(plan: Hyperparameters, team: Team, device: str) -> dict[str, Any]:
    """Return DeepSpeed's configuration of a plan. Precision and accumulation are the trainer's own."""
    zero: dict[str, Any] = {
        "stage": team.plan.zero_stage,
        "contiguous_gradients": True,
        "overlap_comm": device != CPU,
        "reduce_bucket_size": ZERO_BUCKET,
        "allgather_bucket_size": ZERO_BUCKET,
    }
    if team.plan.partitions_weights:
        zero |= {
            "stage3_prefetch_bucket_size": ZERO_BUCKET,
            "stage3_max_live_parameters": ZERO_BUCKET,
            "stage3_max_reuse_distance": ZERO_BUCKET,
        }
    place = {"device": "cpu", "pin_memory": device != CPU}
    if team.plan.offload is not None:
        zero["offload_optimizer"] = place
    if team.plan.offload == "all":
        zero["offload_param"] = place
    return {
        "train_micro_batch_size_per_gpu": plan.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": plan.max_grad_norm,
        "zero_optimization": zero,
        # torch's own AdamW is fused on CPUs, too; DeepSpeed's is to be compiled where it runs.
        "zero_force_ds_cpu_optimizer": False,
    }


class ZeroOptimisation(Optimisation):
    """An optimizer whose state, and more, is dealt out among the ranks."""

    def __init__(self, *arguments: Any, model: Any, plan: Hyperparameters, team: Team, device: str) -> None:
        """Keep what the engine is made of: it takes the model apart, and is made when that has its weights.

        Args:
            *arguments: as of `Optimisation`.
            model: that the loss is of.
            plan: for the engine's configuration.
            team: the ranks.
            device: that the model is on, or is to be put on.
        """
        super().__init__(*arguments)
        self.model, self.team, self.device = model, team, device
        self.config = zero_config(plan, team, device)
        self.made: Any = None

    @property
    def engine(self) -> Any:
        """DeepSpeed's engine."""
        if self.made is None:
            deepspeed, module = import_deepspeed(self.device), as_module(self.model)
            if self.team.plan.partitions_weights:
                # One weight after the other: left to the engine, all of the model would be on the accelerator first.
                deepspeed.zero.Init(module=module, config_dict_or_path=self.config)
                for buffer in module.buffers():
                    buffer.data = buffer.data.to(self.device)
            self.made, *_ = deepspeed.initialize(
                model=module,
                optimizer=self.optimizer,
                config=self.config,
                dist_init_required=False,
            )
            give_back_freed_memory()  # the weights that other ranks have now
        return self.made

    def backward(self, batch: Batch, targets: int, *, counts: bool, last: bool) -> float:
        """As of one process; the gradients of all ranks are averaged, so that each is of targets / ranks."""
        self.engine.set_gradient_accumulation_boundary(last)
        loss = self.engine(lambda: self.loss(batch))
        self.engine.backward(loss / (targets / self.team.size) if counts else loss * 0.0)
        return float(loss.detach()) if counts else 0.0

    def step(self) -> float:
        """Clip, step and forget; return the norm of the gradients before clipping."""
        self.engine.step()
        self.scheduler.step()
        return float(self.engine.get_global_grad_norm())

    def forget_gradients(self) -> None:
        """Leave them: the process ends, and what is saved has none."""

    def call(self, function: Callable[[], Any]) -> Any:
        """Call what makes forward passes; where weights are dealt out, within the engine's own forward pass."""
        return self.engine.module(function) if self.team.plan.partitions_weights else function()

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """Yield the state as whole tensors, as of one process, put together one after the other."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state  # noqa: PLC0415

        if self.made is None:  # no step was made
            yield from super().tensors()
            return
        steps = [moments["step"] for moments in self.optimizer.state.values() if "step" in moments]
        self._link_moments()
        for name, parameter in self.parameters.items():
            yield f"parameter.{name}", safe_get_full_fp32_param(parameter)
            for key in MOMENTS if steps else ():
                yield f"optimizer.{key}.{name}", safe_get_full_optimizer_state(parameter, key)
            if steps:
                yield f"optimizer.step.{name}", torch.tensor(float(steps[0]))

    def load_moments(self, tensors: dict[str, Any], steps: int) -> None:
        """Deal out the optimizer's state; the engine takes the model apart for it, which has its weights by now."""
        from deepspeed.utils import (  # noqa: PLC0415
            safe_set_full_optimizer_state,
            safe_set_local_optimizer_state,
        )

        for flat in _partitions(self.engine.optimizer):
            self.optimizer.state[flat] = {
                "step": torch.tensor(float(steps)),
                **{key: torch.zeros_like(flat.data) for key in MOMENTS},
            }
        self._link_moments()
        for name, parameter in self.parameters.items():
            for key in MOMENTS:
                value = tensors[f"optimizer.{key}.{name}"].to(self.device)
                if self.team.plan.partitions_weights:
                    size = parameter.ds_tensor.ds_numel
                    padding = size * self.team.size - value.numel()
                    parts = torch.nn.functional.pad(value.flatten(), (0, padding)).view(self.team.size, size)
                    safe_set_local_optimizer_state(parameter, parts[self.team.rank], key)
                else:
                    safe_set_full_optimizer_state(parameter, value, key)

    def _link_moments(self) -> None:
        """Let parameters know their part of the optimizer's state; DeepSpeed does so when only one group has one."""
        if not self.team.plan.partitions_weights:
            self.engine.optimizer._hp_optimizer_states_linked = False
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()

    def end(self) -> None:
        """Take the engine off the model. Where weights were dealt out, the model is no use any more."""
        if self.made is None:
            return
        self.made.destroy()
        if not self.team.plan.partitions_weights:
            for parameter in self.parameters.values():
                # Each was a part of one long tensor.
                parameter.data = parameter.data.clone()
        self.made = None


def import_deepspeed(device: str) -> Any:
    """Import DeepSpeed, quietly, without operators that would be compiled where they run."""
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    if device == CPU:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed  # noqa: PLC0415 - a second, only where ZeRO is asked for

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _partitions(optimizer: Any) -> Iterator[Any]:
    """Yield this rank's parts of what is trained, in fp32, as the optimizer steps on them."""
    flat = getattr(optimizer, "fp32_partitioned_groups_flat", None)
    yield from optimizer.single_partition_of_fp32_groups if flat is None else flat
