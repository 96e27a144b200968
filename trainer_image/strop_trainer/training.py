"""The training loop: plain PyTorch, short enough to be read.

The loss of a step is the mean over all target tokens of the effective batch, however its rows are shared among forward
passes. What happens in a step is a pure function of the state before it, so that a resumed run is the same run.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from strop_trainer.batches import Batch, micro_batches, step_rows, steps_per_epoch
from strop_trainer.checkpoints import load_newest, save_checkpoint
from strop_trainer.context import StopRequest, say
from strop_trainer.device import CPU, random_state, set_random_state
from strop_trainer.errors import Preempted, bad_configuration
from strop_trainer.plan import CheckpointPlan, Hyperparameters
from strop_trainer.progress import Progress
from strop_trainer.tasks.base import Example

LOG_LINES = 100
"""About so many log lines in a run."""
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@dataclass(frozen=True)
class Schedule:
    """Steps of a run, all derived from the plan and the rows."""

    rows: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    log_every: int

    @classmethod
    def of(cls, plan: Hyperparameters, rows: int) -> Schedule:
        """Derive the steps: `max_steps`, else the epochs rounded up to whole steps."""
        per_epoch = steps_per_epoch(rows, plan.effective_batch_size)
        total = plan.max_steps or max(1, math.ceil(plan.epochs * per_epoch - 1e-9))
        return cls(rows, per_epoch, total, math.ceil(plan.warmup_ratio * total), max(1, total // LOG_LINES))


@dataclass(frozen=True)
class StepEnd:
    """What one optimizer step did, or several together."""

    loss_sum: float = 0.0
    """Over the target tokens, nats."""
    targets: int = 0
    tokens: int = 0
    seconds: float = 0.0
    norm: float = 0.0
    """Of the last step's gradient, before clipping."""
    learning_rate: float = 0.0
    """Of the last step."""

    def then(self, later: StepEnd) -> StepEnd:
        """Return both together."""
        return StepEnd(
            self.loss_sum + later.loss_sum,
            self.targets + later.targets,
            self.tokens + later.tokens,
            self.seconds + later.seconds,
            later.norm,
            later.learning_rate,
        )


@dataclass(frozen=True)
class TrainResult:
    """What training has come to."""

    steps: int
    totals: StepEnd
    """Of all steps, those of earlier attempts included."""
    resumed_from: int
    """Steps that earlier attempts had done."""
    tokens_per_second: float
    """Of this attempt, without evaluations and checkpoints; 0 where nothing was left to do."""


@dataclass
class Optimisation:
    """What changes in a step."""

    parameters: dict[str, Any]
    optimizer: Any
    scheduler: Any

    @classmethod
    def of(
        cls, parameters: dict[str, Any], plan: Hyperparameters, schedule: Schedule, rates: Mapping[str, float]
    ) -> Optimisation:
        """Make optimizer and schedule; vectors, such as biases and norms, do not decay.

        Args:
            parameters: what is trained, by name.
            plan: learning rate, decay and schedule.
            schedule: steps.
            rates: name → factor on the learning rate; 1 where there is none.
        """
        import torch  # noqa: PLC0415 - seconds
        from transformers import get_scheduler  # noqa: PLC0415

        members: dict[tuple[float, bool], list[Any]] = {}
        for name, parameter in parameters.items():
            members.setdefault((rates.get(name, 1.0), parameter.dim() <= 1), []).append(parameter)
        groups = [
            {
                "params": members[factor, vector],
                "lr": factor * plan.learning_rate,
                "weight_decay": 0.0 if vector else plan.weight_decay,
            }
            # The plan's own rate first: it is the one that is shown.
            for factor, vector in sorted(members, key=lambda key: (key[0] != 1.0, key))
        ]
        optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, fused=True)
        scheduler = get_scheduler(
            SCHEDULES[plan.scheduler],
            optimizer,
            num_warmup_steps=schedule.warmup_steps,
            num_training_steps=schedule.total_steps,
        )
        return cls(parameters, optimizer, scheduler)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.scheduler.get_last_lr()[0])

    def step(self, max_grad_norm: float) -> float:
        """Clip the gradients, take the step, forget the gradients; return their norm before clipping."""
        import torch  # noqa: PLC0415

        norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.forget_gradients()
        return float(norm)

    def forget_gradients(self) -> None:
        """Drop the gradients and their memory."""
        self.optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Any]:
        """Return the state as named tensors."""
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        found = {f"parameter.{name}": parameter for name, parameter in self.parameters.items()}
        for parameter, moments in self.optimizer.state.items():
            found |= {f"optimizer.{key}.{names[id(parameter)]}": value for key, value in moments.items()}
        return found

    def load(self, tensors: dict[str, Any], steps: int) -> None:
        """Take over the state after a number of steps."""
        import torch  # noqa: PLC0415

        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"parameter.{name}"])
        for name, parameter in self.parameters.items():
            keys = {key: f"optimizer.{key}.{name}" for key in ("step", "exp_avg", "exp_avg_sq")}
            if steps:
                device = parameter.device
                self.optimizer.state[parameter] = {key: tensors[full].to(device) for key, full in keys.items()}
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


@dataclass
class Trainer:
    """One run of one model on one set of rows."""

    parameters: dict[str, Any]
    """Name → what is trained."""
    plan: Hyperparameters
    checkpoint: CheckpointPlan
    examples: Sequence[Example]
    make_batch: Callable[[Sequence[Example]], Batch]
    loss: Callable[[Batch], Any]
    """Batch → its loss, summed over its targets, of the model in training mode."""
    packed: bool
    pass_tokens: int | None
    """Tokens of a packed forward pass, about at most."""
    checkpoints: Path
    metrics_file: Path
    identity: dict[str, str]
    """What a checkpoint must have in common with this run."""
    stop: StopRequest
    progress: Progress
    evaluate: Callable[[], dict[str, float]] | None = None
    """Metrics on held-out rows, for `evaluate_every`."""
    evaluate_every: int | None = None
    on_pass: Callable[[int, int], None] = lambda _step, _micro: None
    """Called before each forward pass with the step and the pass in it."""
    device: str = CPU
    """What the model is on."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Name → factor on the learning rate."""

    def run(self) -> TrainResult:
        """Train to the end, from the newest valid checkpoint of this run where there is one.

        Raises:
            Preempted: a stop was requested; a checkpoint has been saved.
            TrainerError: the loss is not a number.
        """
        import torch  # noqa: PLC0415 - seconds

        schedule = Schedule.of(self.plan, len(self.examples))
        torch.manual_seed(self.plan.seed)
        state = Optimisation.of(self.parameters, self.plan, schedule, self.rates)
        first, totals = self._resume(state)
        self._cut_metrics(first)
        now, window = StepEnd(), StepEnd()
        for step in range(first, schedule.total_steps):
            before = self._random_state()
            end = self._step(step, state)
            if end is None:
                self._save(step, state, before, totals)
                say(f"  stop requested: the state after step {step} is saved")
                raise Preempted
            done, now, window, totals = step + 1, now.then(end), window.then(end), totals.then(end)
            if done % schedule.log_every == 0 or done == schedule.total_steps:
                remaining = (schedule.total_steps - done) * now.seconds / (done - first)
                self._log(done, schedule, window, totals.tokens, remaining)
                window = StepEnd()
            due = self.evaluate_every is not None and done % self.evaluate_every == 0
            if self.evaluate is not None and due and done < schedule.total_steps:
                self._evaluate(self.evaluate, done, schedule)
            if done % self.checkpoint.every_steps == 0 or done == schedule.total_steps:
                self._save(done, state, self._random_state(), totals)
        return TrainResult(schedule.total_steps, totals, first, now.tokens / now.seconds if now.seconds else 0.0)

    def _step(self, step: int, state: Optimisation) -> StepEnd | None:
        """Do one optimizer step; None, with nothing changed, where a stop was requested meanwhile."""
        begin, plan = time.perf_counter(), self.plan
        rows = [self.examples[row] for row in step_rows(step, len(self.examples), plan.effective_batch_size, plan.seed)]
        parts = micro_batches(rows, plan.micro_batch_size, packed=self.packed, tokens=self.pass_tokens)
        passes = [self.make_batch(part) for part in parts]
        targets = sum(batch.targets for batch in passes)
        loss_sum = 0.0
        for micro, batch in enumerate(passes):
            self.on_pass(step, micro)
            loss = self.loss(batch)
            (loss / targets).backward()
            loss_sum += float(loss.detach())
            del loss
            if self.stop.requested:
                state.forget_gradients()
                return None
        if not math.isfinite(loss_sum):
            raise bad_configuration(
                f"training.learningRate: the loss of step {step + 1} is {loss_sum}; a lower rate than "
                f"{plan.learning_rate:g} is needed"
            )
        rate, norm = state.learning_rate, state.step(plan.max_grad_norm)
        tokens = sum(batch.tokens for batch in passes)
        return StepEnd(loss_sum, targets, tokens, time.perf_counter() - begin, norm, rate)

    def _log(self, done: int, schedule: Schedule, window: StepEnd, tokens: int, remaining: float) -> None:
        loss, speed, memory = window.loss_sum / window.targets, window.tokens / window.seconds, resident_bytes()
        say(
            f"  step {done}/{schedule.total_steps} | loss {loss:.4f} | lr {window.learning_rate:.2e} | "
            f"norm {window.norm:.3f} | {speed:,.0f} tokens/s | {memory / 1e9:.2f} GB | {remaining:.0f} s left"
        )
        common = {"loss": loss, "learning_rate": window.learning_rate, "grad_norm": window.norm}
        self._append(
            {
                "step": done,
                "epoch": round(done / schedule.steps_per_epoch, 4),
                **common,
                "tokens": tokens,
                "tokens_per_second": round(speed, 1),
                "rss_bytes": memory,
            }
        )
        self.progress.report(
            {
                "stage": "train",
                "current_step": done,
                "total_steps": schedule.total_steps,
                "current_epoch": round(done / schedule.steps_per_epoch, 2),
                **{name: float(f"{value:.6g}") for name, value in common.items()},
                "tokens_per_second": round(speed, 1),
            },
            percent=100 * done // schedule.total_steps,
            remaining_seconds=remaining,
        )

    def _evaluate(self, evaluate: Callable[[], dict[str, float]], done: int, schedule: Schedule) -> None:
        metrics = evaluate()
        say("  held out | " + " | ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        self._append({"step": done, "epoch": round(done / schedule.steps_per_epoch, 4), **metrics})
        self.progress.report({name: float(f"{value:.6g}") for name, value in metrics.items()})

    def _append(self, entry: dict[str, Any]) -> None:
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _cut_metrics(self, step: int) -> None:
        """Drop the lines of steps that will be done again, and a last line that was cut."""
        kept = []
        if step and self.metrics_file.exists():
            for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
                except (ValueError, KeyError, TypeError):
                    continue
        self.metrics_file.write_text("".join(kept), encoding="utf-8")

    def _save(self, step: int, state: Optimisation, random_state: dict[str, Any], totals: StepEnd) -> None:
        tensors = {**state.tensors(), **random_state}
        values = {"totals": asdict(totals)}
        save_checkpoint(self.checkpoints, step, tensors, values, keep=self.checkpoint.keep, identity=self.identity)

    def _random_state(self) -> dict[str, Any]:
        import torch  # noqa: PLC0415

        device = random_state(self.device)
        return {"random.torch": torch.get_rng_state()} | ({} if device is None else {"random.device": device})

    def _resume(self, state: Optimisation) -> tuple[int, StepEnd]:
        import torch  # noqa: PLC0415

        found = load_newest(self.checkpoints, self.identity)
        if found is None:
            return 0, StepEnd()
        state.load(found.tensors, found.step)
        torch.set_rng_state(found.tensors["random.torch"])
        if "random.device" in found.tensors:
            set_random_state(self.device, found.tensors["random.device"])
        say(f"  goes on after step {found.step}, from the checkpoint of an earlier attempt")
        return found.step, StepEnd(**found.state["totals"])


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM."""
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def peak_bytes() -> int:
    """Return the most memory of this process that was ever in RAM."""
    import resource  # noqa: PLC0415 - Unix only

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
