"""What changes in an optimizer step, and how ranks that have all of it keep it the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Final

from strop_trainer.batches import Batch
from strop_trainer.plan import Hyperparameters
from strop_trainer.schedule import SCHEDULES, Schedule

MOMENTS: Final = ("exp_avg", "exp_avg_sq")
"""AdamW's state of a parameter, besides its steps."""
IA3_VECTOR: Final = ".ia3_l."
"""In the names of (IA)3's vectors, which PEFT keeps as matrices. At 1 they change nothing, at 0 nothing is left."""
Loss = Callable[[Batch], Any]
"""Batch → its loss, summed over its targets, of the model in training mode."""


def load_parameters(parameters: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Copy what was trained from a checkpoint's tensors."""
    import torch  # noqa: PLC0415 - seconds

    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter.{name}"])


class Optimisation:
    """Parameters, optimizer and learning rate of one process that has all of them."""

    def __init__(
        self,
        parameters: dict[str, Any],
        loss: Loss,
        plan: Hyperparameters,
        schedule: Schedule,
        rates: Mapping[str, float],
    ) -> None:
        """Make optimizer and schedule; vectors, such as biases and norms, do not decay.

        Args:
            parameters: what is trained, by name.
            loss: of a batch.
            plan: learning rate, decay and schedule.
            schedule: steps.
            rates: name → factor on the learning rate; 1 where there is none.
        """
        import torch  # noqa: PLC0415 - seconds
        from transformers import get_scheduler  # noqa: PLC0415

        members: dict[tuple[float, bool], list[Any]] = {}
        for name, parameter in parameters.items():
            vector = parameter.dim() <= 1 or IA3_VECTOR in name
            members.setdefault((rates.get(name, 1.0), vector), []).append(parameter)
        groups = [
            {
                "params": members[factor, vector],
                "lr": factor * plan.learning_rate,
                "weight_decay": 0.0 if vector else plan.weight_decay,
            }
            # The plan's own rate first: it is the one that is shown.
            for factor, vector in sorted(members, key=lambda key: (key[0] != 1.0, key))
        ]
        self.parameters, self.loss, self.max_grad_norm = parameters, loss, plan.max_grad_norm
        self.optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, fused=True)
        # As TRL's: a warm-up rises from 0, so that its first step fills Adam's moments and moves nothing.
        self.scheduler = get_scheduler(
            SCHEDULES[plan.scheduler],
            self.optimizer,
            num_warmup_steps=schedule.warmup_steps,
            num_training_steps=schedule.total_steps,
        )

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.scheduler.get_last_lr()[0])

    def backward(self, batch: Batch, targets: int, *, counts: bool, last: bool) -> float:
        """Add the gradient of a forward pass to that of the step; return its loss, summed over its targets.

        Args:
            batch: the rows.
            targets: of the whole step, over all ranks, whose mean loss is what is minimised.
            counts: whether the rows count; a pass that does not is made to keep the ranks together.
            last: of the step.
        """
        del last
        loss = self.loss(batch)
        (loss / targets if counts else loss * 0.0).backward()
        return float(loss.detach()) if counts else 0.0

    def step(self) -> float:
        """Clip the gradients, take the step, forget the gradients; return their norm before clipping."""
        import torch  # noqa: PLC0415

        norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.forget_gradients()
        return float(norm)

    def forget_gradients(self) -> None:
        """Drop the gradients and their memory."""
        self.optimizer.zero_grad(set_to_none=True)

    def call(self, function: Callable[[], Any]) -> Any:
        """Call what makes forward passes of the model besides the training's; all ranks do."""
        return function()

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """Yield the state as named tensors; all ranks take them all, and rank 0 keeps them."""
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            yield f"parameter.{name}", parameter
        for parameter, moments in self.optimizer.state.items():
            for key, value in moments.items():
                yield f"optimizer.{key}.{names[id(parameter)]}", value

    def load(self, tensors: dict[str, Any], steps: int) -> None:
        """Take over the state after a number of steps."""
        load_parameters(self.parameters, tensors)
        if steps:
            self.load_moments(tensors, steps)
        self.set_schedule(steps)

    def load_moments(self, tensors: dict[str, Any], steps: int) -> None:
        """Take over the optimizer's state, which there is of a parameter from its first gradient on."""
        del steps
        for name, parameter in self.parameters.items():
            keys = {key: f"optimizer.{key}.{name}" for key in ("step", *MOMENTS)}
            if tensors.keys().isdisjoint(keys.values()):
                continue  # never read, such as the pooler of a model that tags words
            device = parameter.device
            self.optimizer.state[parameter] = {key: tensors[full].to(device) for key, full in keys.items()}

    def set_schedule(self, steps: int) -> None:
        """Set the learning rates to those after a number of steps."""
        rules = zip(self.optimizer.param_groups, self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True)
        for group, base, rule in rules:
            group["lr"] = base * rule(steps)
        self.scheduler.load_state_dict(
            self.scheduler.state_dict()
            | {
                "last_epoch": steps,
                "_step_count": steps + 1,
                "_last_lr": [group["lr"] for group in self.optimizer.param_groups],
            }
        )

    def end(self) -> None:
        """Leave the model as a plain one again, as far as it can be."""


class DataParallel(Optimisation):
    """The same on each of several ranks: torch's DistributedDataParallel sums their gradients in the last pass."""

    def __init__(self, *arguments: Any, model: Any, size: int) -> None:
        """Wrap the model.

        Args:
            *arguments: as of `Optimisation`.
            model: that the loss is of.
            size: number of ranks.
        """
        super().__init__(*arguments)
        self.size, self._module, self._first = size, as_module(model), True
        self.wrapped = _wrapped(self._module, unread=False)

    def backward(self, batch: Batch, targets: int, *, counts: bool, last: bool) -> float:
        """As of one process; the gradients of all ranks are averaged, so that each is of targets / ranks."""
        shared = last and not self._first
        with nullcontext() if shared else self.wrapped.no_sync():
            loss = self.wrapped(lambda: self.loss(batch))
            (loss / (targets / self.size) if counts else loss * 0.0).backward()
        if last and self._first:
            self._share_first()
        return float(loss.detach()) if counts else 0.0

    def _share_first(self) -> None:
        """Average the first step's gradients, and see from them whether the loss reaches all that is trained.

        The wrapper has to know, fails in the second step where it is told wrong, and warns where it need not have been
        told. Models have parts that not every loss reaches, such as an encoder's pooler, or adapters of such a part.
        """
        import torch  # noqa: PLC0415

        parameters = list(self.parameters.values())
        ranks = torch.tensor([each.grad is not None for each in parameters], dtype=torch.int64)
        ranks = ranks.to(parameters[0].device)
        torch.distributed.all_reduce(ranks)
        for parameter, reached in zip(parameters, ranks.tolist(), strict=True):
            if reached:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= self.size
        self._first = False
        if int(ranks.min()) < self.size:
            del self.wrapped  # takes its hooks away
            self.wrapped = _wrapped(self._module, unread=True)

    def end(self) -> None:
        """Take the model out of the wrapper."""
        del self.wrapped


def _wrapped(module: Any, *, unread: bool) -> Any:
    """Return a module whose gradients are averaged over all ranks; `unread`: the loss may not reach some of it."""
    from torch.nn.parallel import DistributedDataParallel  # noqa: PLC0415 - seconds

    return DistributedDataParallel(
        module, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=unread
    )


def as_module(model: Any) -> Any:
    """Return a module that calls what it is given, for wrappers that take over a module's forward pass."""
    import torch  # noqa: PLC0415

    class Called(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, function: Callable[[], Any]) -> Any:
            return function()

    return Called()
