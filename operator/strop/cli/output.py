"""What people see: a plan and an estimate as tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

from pydantic.alias_generators import to_snake
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from strop.api.finetunejob import FineTuneJobSpec
from strop.api.quantities import format_bytes
from strop.cli.estimates import Estimated
from strop.cli.planned import Planned, at_home
from strop.cli.workspace import Workspace
from strop.planning.chooser import FIXED
from strop.planning.presets import model_facts
from strop_trainer import addresses
from strop_trainer.plan import TEMPLATE_TASKS, MemoryEstimate

_TEXT_LENGTH: Final = 60
"""Characters of a given text, such as a chat template, that are shown of its first line."""
_PARTS: Final = ("weights", "gradients", "optimizer", "activations", "overhead")


def show_plan(console: Console, planned: Planned) -> None:
    """Print a plan: what was given, what was chosen and why, what it needs, and its digest."""
    plan = planned.plan
    placement = plan.placement
    console.print(f"[bold]{placement.namespace}/{placement.job}[/bold]  {plan.digest}")
    console.print(
        f"{plan.training.task} · {plan.training.method.type} · {escape(addresses.shown(plan.training.model.source))} → "
        f"{placement.output.claim}/{placement.namespace}/{placement.output.model}/<N>",
        soft_wrap=True,
    )
    place = f"takes {placement.resources.cpu} CPUs, {placement.resources.memory}"
    if placement.processes_per_node > 1:
        place += f", {placement.processes_per_node} ranks ({plan.training.distributed.strategy})"
    if placement.resources.accelerator:
        place += f", {placement.resources.accelerators} {placement.resources.accelerator}"
    console.print(f"{place} of a node of pool {placement.pool}" + (" (no pool was given)" if planned.embedded else ""))
    console.print(_model_line(planned), soft_wrap=True)
    table = _table("Field", "Value", "Why")
    rows = [(field, shown(_short(field, value)), "given") for field, value in given_values(planned)]
    rows += [(item.field, shown(item.value), escape(item.reason)) for item in plan.resolved]
    # In the order of a spec, what was given before what was chosen; a line is left free between its parts.
    for _, part in groupby(sorted(rows, key=lambda row: _place(row[0])), key=lambda row: _place(row[0])):
        for row in part:
            table.add_row(*row)
        table.add_section()
    console.print(table)
    if placement.estimate:
        console.print(_estimate_line(placement.estimate, placement.processes_per_node), soft_wrap=True)
    console.print()


def _model_line(planned: Planned) -> str:
    """Return what is known of the base model that is good to know before it is tuned."""
    facts = model_facts(planned.job.spec.model)
    told = [facts.basis, f"licence: {facts.licence}" if facts.licence else "its licence is not known here"]
    if facts.peculiar and planned.plan.training.task in TEMPLATE_TASKS and not planned.job.spec.model.chat_template:
        told.append(f"its chat template: {facts.peculiar}")
    return f"model: {escape('; '.join(told))}"


def _place(field: str) -> int:
    """Return where the part of a spec that a field belongs to stands among all parts."""
    part = re.split(r"[.\[]", field, maxsplit=1)[0]
    return list(FineTuneJobSpec.model_fields).index(to_snake(FIXED.get(part, part)))


def given_values(planned: Planned) -> Iterator[tuple[str, Any]]:
    """Yield each field of the spec that the job gives, with its value, and for which none was chosen (as for `auto`).

    Without a pool, what a job says of its place in a cluster does not count and is left out.
    """
    job = at_home(planned.job) if planned.embedded else planned.job
    chosen = {resolution.field for resolution in planned.plan.resolved}
    leaves = _leaves(job.spec.model_dump(by_alias=True, exclude_unset=True, exclude_none=True))
    yield from (leaf for leaf in leaves if leaf[0] not in chosen)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}".removeprefix("."))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _short(field: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if field.endswith("source"):
        return addresses.shown(value)
    line = next(iter(value.splitlines()), "")
    return line if line == value else f"{line[:_TEXT_LENGTH]} …"


def show_estimate(console: Console, found: Estimated) -> None:
    """Print where the memory goes, on a CPU and on an accelerator."""
    console.print(
        f"[bold]{found.job.namespace}/{found.job.name}[/bold]  {escape(addresses.shown(found.training.model.source))}"
    )
    table = _table("Memory", "On a CPU", "On an accelerator")
    for part in (*_PARTS, "total"):
        table.add_row(part, *(format_bytes(getattr(estimate, part)) for estimate in (found.cpu, found.accelerator)))
    ranks = found.training.distributed.world_size
    table.add_row(
        "the pod beside it" if ranks == 1 else f"the pod of {ranks} ranks",
        "" if ranks == 1 else format_bytes(found.pod),
        format_bytes(found.host),
    )
    console.print(table)
    h = found.training.hyperparameters
    console.print(
        f"by {found.cpu.basis}; {h.precision}, {h.micro_batch_size} x {h.max_length} tokens a pass, gradient "
        f"checkpointing {_checkpointing(found)}\n",
        soft_wrap=True,
    )


def _checkpointing(found: Estimated) -> str:
    """Return whether activations are recomputed in an estimate, and what it is otherwise where the pool decides."""
    if found.all_kept is None:
        return "off" if found.training.hyperparameters.gradient_checkpointing is False else "on"
    cpu, accelerator = (format_bytes(estimate.total) for estimate in found.all_kept)
    return f"on; off, it is {cpu} on a CPU and {accelerator} on an accelerator, taken where the pool has room for that"


def show_outcome(console: Console, workspace: Workspace, code: int) -> None:
    """Print how a run ended, from the trainer's last word."""
    last = workspace.last_word()
    if last is None:
        console.print(f"the trainer ended with {code} and no last word", soft_wrap=True)
        return
    if last.published is None:
        console.print(f"{last.reason} in {last.stage}: {escape(last.message)} (exit {code})", soft_wrap=True)
        return
    version = last.published
    table = _table("Metric", "Base", "Tuned")
    for name in sorted({*version.metrics_base, *version.metrics_tuned}):
        table.add_row(name, *(_metric(metrics.get(name)) for metrics in (version.metrics_base, version.metrics_tuned)))
    console.print(table)
    console.print(f"published {workspace.registry / version.model / str(version.version)}", soft_wrap=True)


def shown(value: Any) -> str:
    """Return a value as it would stand in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if value in ([], {}):
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return escape(f"{value:g}" if isinstance(value, float) else str(value))


def _estimate_line(estimate: MemoryEstimate, ranks: int) -> str:
    of = " of a rank" if ranks > 1 else ""
    parts = ", ".join(f"{part} {format_bytes(getattr(estimate, part))}" for part in _PARTS)
    return f"memory{of} {format_bytes(estimate.total)} = {parts} (by {estimate.basis})"


def _metric(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _table(*headers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    return table
