"""What a benchmark returns, and the page that is made of it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Goal:
    """One figure held against its limit."""

    name: str
    value: float
    limit: float
    unit: str
    at_most: bool = True

    @property
    def met(self) -> bool:
        """Whether the value is on the right side of the limit."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def row(self) -> str:
        """Return the Markdown table row."""
        sign = "≤" if self.at_most else "≥"
        verdict = "met" if self.met else "**missed**"
        return f"| {self.name} | {self.value:.3g} {self.unit} | {sign} {self.limit:.3g} {self.unit} | {verdict} |"


@dataclass
class Result:
    """One benchmark's section of the page."""

    title: str
    command: str
    method: str
    """What was measured, and how, in a sentence or two."""
    goals: list[Goal]
    tables: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the section."""
        head = ["| figure | measured | goal | |", "|---|---|---|---|"]
        rows = [goal.row() for goal in self.goals]
        return "\n".join(
            [f"## {self.title}", "", f"`{self.command}`", "", self.method, "", *head, *rows, "", *self.tables]
        )


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def machine() -> str:
    """Return this machine in words: processor, cores, memory, system."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = psutil.virtual_memory().total / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"
