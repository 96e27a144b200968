"""The training loop: plain PyTorch, short enough to be read.

The loss of a step is the mean over all target tokens of the effective batch, however its rows are shared among forward
passes. What happens in a step is a pure function of the state before it, so that a resumed run is the same run.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from strop_trainer.batches import Batch, micro_batches, step_rows
from strop_trainer.checkpoints import load_newest, save_checkpoint
from strop_trainer.context import StopRequest, say
from strop_trainer.device import CPU, random_state, set_random_state
from strop_trainer.errors import Preempted, TrainerError, bad_configuration
from strop_trainer.exit_codes import ExitCode
from strop_trainer.optimisation import Optimisation
from strop_trainer.plan import CheckpointPlan, Hyperparameters
from strop_trainer.progress import Progress
from strop_trainer.ranks.team import Team, deal, seed_step
from strop_trainer.schedule import Schedule
from strop_trainer.tasks.base import Example


@dataclass(frozen=True)
class StepEnd:
    """What one optimizer step did, or several together."""

    loss_sum: float = 0.0
    """Over the target tokens, nats."""
    targets: int = 0
    """What the loss is a mean over."""
    tokens: int = 0
    seconds: float = 0.0
    norm: float = 0.0
    """Of the last step's gradient, before clipping."""
    learning_rate: float = 0.0
    """Of the last step."""
    predicted: int = 0
    """Tokens that the output layer ran on."""

    def then(self, later: StepEnd) -> StepEnd:
        """Return both together."""
        return StepEnd(
            self.loss_sum + later.loss_sum,
            self.targets + later.targets,
            self.tokens + later.tokens,
            self.seconds + later.seconds,
            later.norm,
            later.learning_rate,
            self.predicted + later.predicted,
        )


@dataclass(frozen=True)
class TrainResult:
    """What training has come to."""

    steps: int
    totals: StepEnd
    """Of all steps, those of earlier attempts included."""
    resumed_from: int
    """Steps that earlier attempts had done."""
    attempt: StepEnd
    """Of this attempt's steps alone, without evaluations and checkpoints."""

    @property
    def tokens_per_second(self) -> float:
        """Of this attempt; 0 where nothing was left to do."""
        return self.attempt.tokens / self.attempt.seconds if self.attempt.seconds else 0.0


@dataclass
class Trainer:
    """One run of one model on one set of rows."""

    optimise: Callable[[Schedule], Optimisation]
    """Makes what changes in a step."""
    plan: Hyperparameters
    checkpoint: CheckpointPlan
    examples: Sequence[Example]
    make_batch: Callable[[Sequence[Example]], Batch]
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
    team: Team = field(default_factory=Team)
    """The ranks that train together; each of them calls `run`."""

    def run(self) -> TrainResult:
        """Train to the end, from the newest valid checkpoint of this run where there is one.

        Raises:
            Preempted: a stop was requested; a checkpoint has been saved.
            TrainerError: the loss is not a number.
        """
        import torch  # noqa: PLC0415 - seconds

        schedule = Schedule.of(self.plan, len(self.examples))
        torch.manual_seed(self.plan.seed)
        state = self.optimise(schedule)
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
                evaluate = self.evaluate
                self._evaluate(state.call(evaluate), done, schedule)
            if done % self.checkpoint.every_steps == 0 or done == schedule.total_steps:
                self._save(done, state, self._random_state(), totals)
        state.end()
        return TrainResult(schedule.total_steps, totals, first, now)

    def _step(self, step: int, state: Optimisation) -> StepEnd | None:
        """Do one optimizer step; None, with nothing changed, where a stop was requested meanwhile."""
        begin, plan, team = time.perf_counter(), self.plan, self.team
        rows = [self.examples[row] for row in step_rows(step, len(self.examples), plan.effective_batch_size, plan.seed)]
        parts = micro_batches(rows, plan.micro_batch_size, packed=self.packed, tokens=self.pass_tokens)
        passes = [(micro, self.make_batch(part), counts) for micro, part, counts in deal(parts, team)]
        counted = [batch for _, batch, counts in passes if counts]
        sums = team.sum(
            *(sum(getattr(batch, name) for batch in counted) for name in ("targets", "tokens", "predicted"))
        )
        targets, tokens, predicted = (int(value) for value in sums)
        if team.joined:
            seed_step(plan.seed, step, team.rank)
        loss_sum = 0.0
        for micro, batch, counts in passes:
            self.on_pass(step, micro)
            loss_sum += state.backward(batch, targets, counts=counts, last=batch is passes[-1][1])
            if team.any(self.stop.requested):
                state.forget_gradients()
                return None
        (loss_sum,) = team.sum(loss_sum)
        if not math.isfinite(loss_sum):
            raise self._no_number(step, loss_sum)
        rate, norm = state.learning_rate, state.step()
        return StepEnd(loss_sum, targets, tokens, time.perf_counter() - begin, norm, rate, predicted)

    def _no_number(self, step: int, loss: float) -> TrainerError:
        """Return the error of a loss that is no number, which a rate is to blame for only where there was one."""
        found = f"the loss of step {step + 1} is {loss}"
        # A warm-up's first step has a rate of 0.
        if step <= min(1, Schedule.of(self.plan, len(self.examples)).warmup_steps):
            return bad_configuration(
                f"model: {found}, and no step before it had a learning rate: it is the model itself that makes no "
                f"number of some row in precision {self.plan.precision}"
            )
        return bad_configuration(
            f"training.learningRate: {found}; a lower rate than {self.plan.learning_rate:g} is needed"
        )

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
                "peak_bytes": peak_bytes(),
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

    def _evaluate(self, metrics: dict[str, float], done: int, schedule: Schedule) -> None:
        say("  held out | " + " | ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        self._append({"step": done, "epoch": round(done / schedule.steps_per_epoch, 4), **metrics})
        self.progress.report({name: float(f"{value:.6g}") for name, value in metrics.items()})

    def _append(self, entry: dict[str, Any]) -> None:
        if not self.team.leads:
            return
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _cut_metrics(self, step: int) -> None:
        """Drop the lines of steps that will be done again, and a last line that was cut."""
        if not self.team.leads:
            return
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
        """Save a checkpoint: the first rank writes, all wait."""
        tensors = chain(state.tensors(), random_state.items())
        values = {"totals": asdict(totals)}
        if self.team.leads:
            save_checkpoint(self.checkpoints, step, tensors, values, keep=self.checkpoint.keep, identity=self.identity)
        else:
            deque(tensors, maxlen=0)  # what is dealt out is put together by all
        self.team.sum(0.0)

    def _random_state(self) -> dict[str, Any]:
        import torch  # noqa: PLC0415

        device = random_state(self.device)
        return {"random.torch": torch.get_rng_state()} | ({} if device is None else {"random.device": device})

    def _resume(self, state: Optimisation) -> tuple[int, StepEnd]:
        import torch  # noqa: PLC0415

        found = load_newest(self.checkpoints, self.identity)
        steps = [int(step) for (step,) in self.team.gather(found.step if found else 0)]
        if len(set(steps)) > 1:
            raise TrainerError(ExitCode.INTERNAL, f"checkpoints: the ranks found different ones, of steps {steps}")
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
    """Return the most memory of this process that was ever in RAM, or since it was forgotten."""
    import resource  # noqa: PLC0415 - Unix only

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak() -> None:
    """Let the kernel count the most memory in RAM anew from now on, where it can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
