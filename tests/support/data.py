"""Rows for tests: a few made on the spot, and the demo's real ones."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO_DATA = REPOSITORY / "examples" / "data"

COLOURS = ("red", "green", "blue")
THINGS = ("fox", "dog", "blade", "answer")


def chat_row(question: str, answer: str, *, system: str | None = None) -> dict[str, Any]:
    """Return one conversation of one turn."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages}


def chat_rows(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows that a tiny model can learn: the answer repeats a colour of the question."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        colour, thing = chance.choice(COLOURS), chance.choice(THINGS)
        rows.append(chat_row(f"What colour is the {colour} {thing} {number}?", colour))
    return rows


def preference_rows(count: int) -> list[dict[str, Any]]:
    """Return pairs that a tiny model can learn: the better answer repeats the colour of the question."""
    return [
        {
            "prompt": f"What colour is the {COLOURS[n % 3]} {THINGS[n % 4]} {n}?",
            "chosen": COLOURS[n % 3],
            "rejected": f"{COLOURS[(n + 1) % 3]} and more" if n % 2 else COLOURS[(n + 1) % 3],
        }
        for n in range(count)
    ]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write one row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def demo_rows(part: str) -> list[dict[str, Any]]:
    """Return the demo's rows, `train` or `validation`."""
    lines = (DEMO_DATA / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
