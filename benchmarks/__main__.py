"""Run benchmarks and write docs/benchmarks.md.

    python -m benchmarks [operator] [training] [trainer] [gpu]     # all but gpu, where none is named

A section that did not run keeps what its last run wrote.
"""

from __future__ import annotations

import datetime
import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from benchmarks.results import machine

MODULES = {
    "training": "training_speed",
    "gpu": "gpu_training",
    "trainer": "trainer_overhead",
    "operator": "operator_overhead",
}
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Ratios against a peer or a limit, taken in one run; written by `make bench`. Figures of a shared machine are noisy.
"""
MARK = "<!-- {name} -->"

console = Console(highlight=False)


def sections(text: str) -> dict[str, str]:
    """Return the page's sections by name."""
    parts = re.split(r"<!-- (\w+) -->\n", text)
    return {name: section.strip() for name, section in zip(parts[1::2], parts[2::2], strict=True)}


def page(known: Mapping[str, str]) -> str:
    """Return the page of these sections, in the order of the benchmarks."""
    ordered = [f"{MARK.format(name=name)}\n{known[name]}\n" for name in MODULES if name in known]
    return "\n".join([HEAD, *ordered])


def main() -> int:
    """Entry point: 1 where a goal was missed, or a benchmark did not run."""
    chosen = sys.argv[1:] or [name for name in MODULES if name != "gpu"]
    if unknown := set(chosen) - set(MODULES):
        console.print(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}")
        return 64
    known = sections(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    missed = False
    for name in chosen:
        console.print(f"== {name}")
        try:
            result = importlib.import_module(f"benchmarks.{MODULES[name]}").measure()
        except Exception:  # noqa: BLE001 - the others are measured all the same
            console.print_exception()
            missed = True
            continue
        today = datetime.datetime.now(tz=datetime.UTC).date()
        known[name] = f"{result.markdown()}\n_{today}, {machine()}._"
        console.print(known[name])
        missed |= not all(goal.met for goal in result.goals)
        PAGE.write_text(page(known), encoding="utf-8")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
