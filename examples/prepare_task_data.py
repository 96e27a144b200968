"""Make small real data sets for the example jobs of several tasks, from packages that `make env` installs.

Run as `python examples/prepare_task_data.py OUT`. Writes, the same bytes each time:

- translation.csv: English and German messages of Django (BSD-3-Clause), columns source and target;
- questions.jsonl: trivia of chatterbot-corpus (BSD-3-Clause), columns question and answer;
- preference.jsonl: Django's messages again, in Portuguese and Spanish as they are said in Brazil and Argentina (chosen)
  and in Europe (rejected).
"""

from __future__ import annotations

import argparse
import csv
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from prepare_data import package as installed_package
from prepare_data import preferences, translations

if TYPE_CHECKING:
    from collections.abc import Sequence


package = partial(installed_package, expected="make env")


def questions(corpus: Path, topic: str = "trivia") -> list[tuple[str, str]]:
    """Return questions with their answers, each question once."""
    document = yaml.safe_load((corpus / "data" / "english" / f"{topic}.yml").read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for question, answer, *_ in document["conversations"]:
        found.setdefault(str(question).strip(), str(answer).strip())
    return sorted(found.items())


def prepare(out: Path) -> None:
    """Write the files to the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "translation.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "target"])
        writer.writerows(translations(package("django"), "de"))
    asked = [{"question": question, "answer": answer} for question, answer in questions(package("chatterbot_corpus"))]
    for name, rows in (("questions", asked), ("preference", preferences(package("django")))):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    prepare(parser.parse_args(arguments).out)


if __name__ == "__main__":
    main()
