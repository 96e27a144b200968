"""docs/scenarios.md out of what was measured. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from scenarios.measure import Outcome
from scenarios.table import CELLS, COLUMNS, ENCODER, EVERY, FURTHER, SCENARIOS, TECHNIQUES, Cell, Scenario, Technique

Results = Mapping[str, Outcome]
"""Name of a cell → its outcome."""

NOT_RUN: Final = Outcome("not run")
ENOUGH: Final = 3
"""Scenarios that a ratio is taken of, at least: one alone may be noise."""
LOWER_IS_BETTER: Final = ("perplexity", "eval_loss")
NOISE: Final = 0.1
"""A ratio this near to one says nothing: cells are run once, on a machine that is shared."""
HEAD: Final = """# Scenarios and techniques

Scenarios and techniques are those of the table in Microsoft's PhiCookBook (`FineTuning_Scenarios.md`), which this page
puts to the test. Each pair is a job: `make scenarios` carries it out by the code of `strop run`, on real rows and real
(small) weights, and writes this page from what it measured. What a model cannot do is refused in words (last section).

- **Models**: SmolLM2-135M-Instruct for language, all-MiniLM-L6-v2 (22M) for labels.
- **Scale**: some hundred rows or fewer, counted with each scenario: enough to see whether a technique learns, not what
  is the best that it can do. Each cell was run once. What a job leaves out (learning rate, rank, …) is the planner's
  choice, as it would be for anybody; `strop plan` says why. The first step of a warm-up moves nothing.
- **Base → tuned** is on held-out rows. For labels, base is the new head before training.
- **qlora** is trained and measured on a base in four bits, which is another base than the others'. **Merged** is its
  adapter in the base as it is, not quantized, and that is what ONNX users get. It may do better, as this base has lost
  nothing, or worse, as the adapter was fitted to the other. Where no merged number stands, it has not been measured.
- **CPU s** is the processor time of training, of all threads and ranks. Cells of one process run beside each other, a
  core to each; those of several one after another.
- **Memory** is the peak of the process (resident) while it trains, of the larger of two. Frozen weights of the language
  model are in bf16, or in four bits, those of the small encoder in fp32 or in four bits; what is trained in full is
  in fp32. Export and proof come later and load the model once more.
- **Proof**: the largest difference of a logit between the exported ONNX model and PyTorch on held-out rows, and a
  metric of both there (ONNX / PyTorch), of up to 32 rows for language; and the difference of the saved
  adapter, loaded again, from the model that was trained, relative to their norm (`docs/how-to/adapters.md` says for
  which). Methods that put tokens in front of each row have no ONNX export.
"""

PUBLISHED: Final[Mapping[str, tuple[str, str]]] = {
    "cost": ("Yes Yes No Yes Yes No", "Yes Yes Yes Yes Yes Yes"),
    "memory": ("No Yes No Yes Yes Yes", "Yes Yes Yes Yes Yes Yes"),
    "parameters": ("No Yes Yes No No Yes", "Yes Yes Yes No No Yes"),
    "parallel": ("No No No Yes Yes Yes", "No No No Yes Yes No"),
}
"""Property → what the older and the newer version of the table say of each column.

Both are of `FineTuning_Scenarios.md` in Microsoft's PhiCookBook: the older up to 2025, the newer of 2026.
"""


def page(results: Results, older: Collection[str]) -> str:
    """Return the page.

    Args:
        results: what is known; cells without a result are marked as not run.
        older: names of cells that were measured with another trainer or plan than those here; they are marked.
    """
    parts = [HEAD, _where(results, older), "## Overview\n", _overview(results), _otherwise(results), _further(results)]
    for scenario in EVERY:
        parts += [
            f"## {scenario.words[0].upper()}{scenario.words[1:]}\n",
            _scenario(scenario, results, older),
        ]
    parts += ["## What each technique saves\n", _properties(results), "## What is refused\n", _refused(results)]
    return "\n".join(parts).rstrip() + "\n"


def _where(results: Results, older: Collection[str]) -> str:
    measured = [outcome for outcome in results.values() if outcome.status == "measured"]
    if not measured:
        return "_No cell has been run yet._\n"
    machines = " / ".join(sorted({outcome.machine for outcome in measured}))
    days = sorted({outcome.day for outcome in measured})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    refused = sum(outcome.status == "refused" for outcome in results.values())
    failed = sum(outcome.status == "failed" for outcome in results.values())
    lines = [
        f"_`make scenarios`, {span}, {machines}, shared with other work: seconds are noisy. Of {len(CELLS)} cells "
        f"{len(measured)} were measured, {refused} are refused in words, {failed} failed, "
        f"{len(CELLS) - len(measured) - refused - failed} not run yet._"
    ]
    if older:
        lines.append(f"_{len(older)} were measured with an earlier version of planner or trainer (°)._")
    return "\n".join(lines) + "\n"


def _overview(results: Results) -> str:
    rows = []
    for scenario in SCENARIOS:
        cells = [scenario.words, scenario.metric + (" ↓" if scenario.metric in LOWER_IS_BETTER else " ↑")]
        cells += [_short(scenario, technique, _found(results, scenario, technique)) for technique in _columns()]
        rows.append(cells)
    return _table(["scenario", "metric", *(technique.name for technique in _columns())], rows)


def _otherwise(results: Results) -> str:
    """Say where a technique did not do what both published versions say it does."""
    worse = []
    for scenario in SCENARIOS:
        for technique in _columns():
            found = _found(results, scenario, technique)
            before, after = found.base.get(scenario.metric), found.tuned.get(scenario.metric)
            if found.status != "measured" or before is None or after is None:
                continue
            if after >= before if scenario.metric in LOWER_IS_BETTER else after <= before:
                worse.append(f"{scenario.words} by {technique.name} ({_change(scenario.metric, found, technique)})")
    refused = any(outcome.status == "refused" for outcome in results.values())
    said = "Both published versions of the table say yes to every technique in each of these scenarios. "
    said += (
        f"What came out no better than its base: {', '.join(worse)}."
        if worse
        else "Here none came out worse than its base."
    )
    if refused:
        said += " What encoders refuse has its reasons in the last section."
    return said + "\n"


def _further(results: Results) -> str:
    rows = [
        [
            scenario.words,
            scenario.metric,
            technique.name,
            _short(scenario, technique, _found(results, scenario, technique)),
        ]
        for scenario in FURTHER
        for technique in TECHNIQUES
        if technique.name in scenario.only
    ]
    return f"Tasks that the table has no row for:\n\n{_table(['task', 'metric', 'technique', 'base → tuned'], rows)}"


def _found(results: Results, scenario: Scenario, technique: Technique) -> Outcome:
    return results.get(Cell(scenario, technique).name, NOT_RUN)


def _columns() -> list[Technique]:
    return [technique for technique in TECHNIQUES if not technique.only]


def _short(scenario: Scenario, technique: Technique, outcome: Outcome) -> str:
    if outcome.status != "measured":
        return outcome.status
    return _change(scenario.metric, outcome, technique)


def _change(metric: str, outcome: Outcome, technique: Technique) -> str:
    merged = outcome.tuned.get(f"{metric}_merged") if technique.method == "qlora" else None
    also = "" if merged is None else f", merged {_number(merged)}"
    return f"{_number(outcome.base.get(metric))} → {_number(outcome.tuned.get(metric))}{also}"


def _scenario(scenario: Scenario, results: Results, older: Collection[str]) -> str:
    header = [
        "technique",
        scenario.metric,
        "eval_loss",
        "learning rate",
        "train CPU s",
        "train s",
        "job s",
        "train GB",
        "trained",
        "of all",
    ]
    header += ["adapter MB", "ONNX MB", "proof"]
    rows = []
    for cell in _cells_of(scenario):
        outcome = results.get(cell.name, NOT_RUN)
        if outcome.status != "measured":
            rows.append([cell.technique.name, outcome.status, *[""] * (len(header) - 2)])
            continue
        mark = " °" if cell.name in older else ""
        rows.append(
            [
                cell.technique.name + mark,
                _change(scenario.metric, outcome, cell.technique),
                _change("eval_loss", outcome, cell.technique),
                f"{outcome.learning_rate:g}",
                f"{outcome.train_cpu_seconds:.0f}",
                f"{outcome.train_seconds:.0f}",
                f"{outcome.seconds:.0f}",
                f"{outcome.train_peak_bytes / 1e9:.2f}" + (f" x {outcome.ranks}" if outcome.ranks > 1 else ""),
                f"{outcome.trainable_parameters:,}",
                f"{outcome.trainable_parameters / outcome.parameters:.2%}",
                _megabytes(outcome.adapter_bytes),
                _megabytes(outcome.onnx_bytes),
                ", ".join(outcome.proofs) or "none",
            ]
        )
    trained = next((o for c in _cells_of(scenario) if (o := results.get(c.name, NOT_RUN)).status == "measured"), None)
    scale = f" {_scale(scenario, trained)}." if trained else ""
    failures = [
        f"- `{cell.name}` failed: {results[cell.name].reason}"
        for cell in _cells_of(scenario)
        if results.get(cell.name, NOT_RUN).status == "failed"
    ]
    settings = ", ".join(f"{name} {value}" for name, value in scenario.training.items())
    text = f"Task `{scenario.task}`, {settings}; {scenario.rows}.{scale}\n\n{_table(header, rows)}"
    return text + ("\n".join(failures) + "\n" if failures else "")


def _scale(scenario: Scenario, outcome: Outcome) -> str:
    said = f"{outcome.steps} steps, {outcome.tokens:,} tokens"
    if outcome.train_rows:
        said = f"{outcome.train_rows} rows to train on, {outcome.held_out_rows} held out; {said}"
    # An encoder marks the answers to all held-out rows; none is generated.
    generated = 0 if scenario.model == ENCODER else scenario.evaluation.get("generateRows", 0)
    answered = min(generated, outcome.held_out_rows)
    return said + (f"; {scenario.metric} of {answered} answers" if answered and scenario.answered else "")


def _cells_of(scenario: Scenario) -> list[Cell]:
    return [cell for cell in CELLS if cell.scenario == scenario]


def _properties(results: Results) -> str:
    parts = [
        "Two versions of the table have been published, which differ in these rows: an older one (O) and a newer one "
        "(N). Ratios are to method `full` in one process on the same rows: the median over the scenarios that ran "
        f"both, where there are at least {ENOUGH}, then the least and the greatest. What is within {NOISE:.0%} of one "
        "is no difference here. They hold for models of this size on processors: little of a process is the model's, "
        "and two processes on one machine share its cores. Methods that put tokens in front of each row are trained "
        "padded, as packing would let rows see each other; part of their cost is that.\n"
    ]
    for name, title, ratios in (
        ("cost", "Reducing compute and cost: processor seconds of training", _cost),
        ("memory", "Reducing memory: peak while training", _memory),
        ("parameters", "Using fewer parameters: share of all that is trained", _share),
    ):
        parts += [f"### {title}\n", _verdicts(name, [(each, ratios(each, results)) for each in _columns()])]
    parts += ["### Memory-efficient data parallelism: peak of a rank, two ranks\n", _parallel(results)]
    return "\n".join(parts)


def _verdicts(name: str, measured: Iterable[tuple[Technique, list[float]]]) -> str:
    """Return a table of a property: techniques of the published table, what is measured, and what that table says."""
    rows = []
    for technique, found_ratios in measured:
        if not technique.column:
            continue
        values = sorted(found_ratios)
        older, newer = (said.split()[COLUMNS.index(technique.column)] for said in PUBLISHED[name])
        found = statistics.median(values) if len(values) >= ENOUGH else None
        unit = "{:.2%}" if name == "parameters" else "{:.2f} x"
        rows.append(
            [
                technique.name,
                "too few" if found is None else unit.format(found),
                "" if found is None else f"{unit.format(values[0])} to {unit.format(values[-1])}",
                str(len(values)),
                _verdict(found, name),
                older,
                newer,
                _differs(found, name, older, newer),
            ]
        )
    return _table(["technique", "measured", "range", "scenarios", "saves", "O says", "N says", "differs from"], rows)


def _beside(results: Results, scenario: Scenario, yardstick: str, found: Outcome) -> Outcome:
    """Return what an outcome is held to; not run where that was measured of another trainer."""
    other = results.get(f"{scenario.name}-{yardstick}", NOT_RUN)
    return other if other.status == "measured" and other.code == found.code else NOT_RUN


def _pairs(technique: Technique, results: Results, yardstick: str = "full") -> Iterable[tuple[Outcome, Outcome]]:
    for scenario in SCENARIOS:
        found = _found(results, scenario, technique)
        other = _beside(results, scenario, yardstick, found)
        if found.status == other.status == "measured":
            yield found, other


def _cost(technique: Technique, results: Results) -> list[float]:
    return [
        found.train_cpu_seconds / full.train_cpu_seconds
        for found, full in _pairs(technique, results)
        if found.train_cpu_seconds and full.train_cpu_seconds  # an earlier trainer did not count them
    ]


def _memory(technique: Technique, results: Results, yardstick: str = "full") -> list[float]:
    return [found.train_peak_bytes / other.train_peak_bytes for found, other in _pairs(technique, results, yardstick)]


def _share(technique: Technique, results: Results) -> list[float]:
    return [found.trainable_parameters / found.parameters for found, _ in _pairs(technique, results)]


def _verdict(found: float | None, name: str) -> str:
    if found is None:
        return ""
    if name == "parameters":
        return "Yes" if found < 0.5 else "No"  # noqa: PLR2004 - all or few: there is nothing between
    return "Yes" if found < 1 - NOISE else "No" if found > 1 + NOISE else "no difference"


def _differs(found: float | None, name: str, older: str, newer: str) -> str:
    verdict = _verdict(found, name)
    if not verdict:
        return ""
    saves = "Yes" if verdict == "Yes" else "No"  # to make no difference is not to save
    return " and ".join(who for who, said in (("O", older), ("N", newer)) if said != saves) or "neither"


def _parallel(results: Results) -> str:
    rows = []
    sharing = [technique for technique in TECHNIQUES if technique.strategy]
    for scenario in SCENARIOS:
        for technique in sharing:
            found = _found(results, scenario, technique)
            if found.status != "measured":
                continue
            full, alone = (_beside(results, scenario, yardstick, found) for yardstick in ("full", "ddp"))
            rows.append(
                [
                    scenario.words,
                    technique.words,
                    f"{found.train_peak_bytes / 1e9:.2f}",
                    _ratio(found.train_peak_bytes, full.train_peak_bytes),
                    _ratio(found.train_peak_bytes, alone.train_peak_bytes),
                    f"{found.train_cpu_seconds:.0f}",
                    _ratio(found.train_cpu_seconds, alone.train_cpu_seconds),
                ]
            )
    said = (
        f"O says yes for {_who('parallel', 0)}; N for {_who('parallel', 1)}. Full fine-tuning is measured here; LoRA "
        "and DoRA train by several ranks as well (`docs/how-to/several-ranks.md`), the other methods by one.\n"
    )
    if not rows:
        return f"{said}\nNot measured yet.\n"
    header = ["scenario", "technique", "GB a rank", "to full in one process", "to two without sharing"]
    each = _table([*header, "CPU s of both", "to two without sharing"], rows)
    verdicts = _verdicts("parallel", [(technique, _memory(technique, results, "ddp")) for technique in sharing])
    return f"{said}\n{each}\nPeak of a rank to that of two ranks that share nothing:\n\n{verdicts}"


def _ratio(value: float, to: float) -> str:
    return f"{value / to:.2f} x" if to else ""


def _who(name: str, version: int) -> str:
    said = PUBLISHED[name][version].split()
    return ", ".join(column for column, word in zip(COLUMNS, said, strict=True) if word == "Yes")


def _refused(results: Results) -> str:
    reasons: dict[str, list[str]] = {}
    for cell in CELLS:
        outcome = results.get(cell.name, NOT_RUN)
        if outcome.status == "refused":
            reasons.setdefault(outcome.reason, []).append(cell.name)
    if not reasons:
        return "Nothing.\n"
    return "\n".join(f"- {', '.join(names)}: _{reason}_" for reason, names in reasons.items()) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"  # noqa: PLR2004


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}" if size else "-"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"
