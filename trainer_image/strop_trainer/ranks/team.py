"""The ranks of a training: processes that deal out its rows among them, and agree on every step.

What they tell each other here is a few numbers in the host's memory, by gloo; gradients and weights go by the
accelerator's own library where there is one.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

from strop_trainer.device import CPU
from strop_trainer.errors import bad_configuration
from strop_trainer.plan import DistributedPlan

PATIENCE: Final = timedelta(hours=6)
"""A rank may wait as long for the others, such as while the first writes a checkpoint; one that is gone is noticed at
once."""
T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """One rank's view of all of them; alone by default."""

    plan: DistributedPlan = field(default_factory=DistributedPlan)
    rank: int = 0
    joined: bool = False
    """Whether there is a process group: also of one rank, where the strategy needs it."""

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.plan.world_size

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone writes and reports."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Return the sums over all ranks; all call it."""
        if self.size == 1:
            return list(values)
        import torch  # noqa: PLC0415 - seconds

        sums = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(sums)
        return [float(value) for value in sums]

    def any(self, value: bool) -> bool:  # noqa: FBT001
        """Return whether it is so on any rank; all call it."""
        return value if self.size == 1 else self.sum(float(value))[0] > 0

    def gather(self, *values: float) -> list[list[float]]:
        """Return the values of each rank, in their order; all call it."""
        if self.size == 1:
            return [list(values)]
        import torch  # noqa: PLC0415

        mine = torch.tensor(values, dtype=torch.float64)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        torch.distributed.all_gather(found, mine)
        return [each.tolist() for each in found]

    def leave(self) -> None:
        """Wait for all, and end the process group."""
        if self.joined:
            import torch  # noqa: PLC0415

            self.sum(0.0)
            torch.distributed.destroy_process_group()


def join(plan: DistributedPlan, environment: MutableMapping[str, str], device: str, accelerators: int) -> Team:
    """Meet the other ranks where the environment says (torchrun's variables); nobody, where one rank needs none.

    On accelerators each rank takes the one of its number on its node.

    Raises:
        TrainerError: there are fewer accelerators than ranks (exit 78).
    """
    if plan.world_size == 1 and not plan.is_zero:
        return Team()
    import torch  # noqa: PLC0415 - seconds
    from torch import distributed  # noqa: PLC0415

    local = int(environment.get("LOCAL_RANK", "0"))
    backend = "cpu:gloo"
    if device != CPU:
        there = torch.accelerator.device_count()
        if there < accelerators:
            raise bad_configuration(f"compute.resources.accelerators: found {accelerators}, torch finds {there}")
        torch.accelerator.set_device_index(local)
        backend += f",{device}:{distributed.get_default_backend_for_device(device)}"
    if plan.world_size == 1:
        environment.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it
        distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
        return Team(plan, joined=True)
    distributed.init_process_group(backend, timeout=PATIENCE)
    return Team(plan, distributed.get_rank(), joined=True)


def deal(parts: Sequence[T], team: Team) -> list[tuple[int, T, bool]]:
    """Return a rank's share of the passes of a step: number in the step, rows, and whether they count.

    Pass i goes to rank i modulo ranks, so that a pass is the same one whoever makes it. Each rank makes equally many,
    since some strategies exchange weights in each pass: where they do not come out even, the last ones repeat the first
    pass without counting.
    """
    rounds = -(-len(parts) // team.size)
    numbers = range(team.rank, rounds * team.size, team.size)
    return [(number, parts[number], True) if number < len(parts) else (number, parts[0], False) for number in numbers]


def seed_step(seed: int, step: int, rank: int) -> None:
    """Set torch's randomness (dropout) for a step of a rank: a pure function, so that no rank's state is saved."""
    import torch  # noqa: PLC0415

    torch.manual_seed(((seed * 1_000_003 + step) * 1_000_003 + rank) % (1 << 63))


def on_one_node(environment: MutableMapping[str, str]) -> None:
    """Let ranks of one node meet on its own loopback device, whatever its name resolves to."""
    if Path("/sys/class/net/lo").exists():
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
