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
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from prepare_data import is_prose, read_catalog

if TYPE_CHECKING:
    from collections.abc import Sequence


def package(name: str) -> Path:
    """Return the folder of an installed package.

    Raises:
        SystemExit: it is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {name}: not installed, expected: make env")
    return Path(next(iter(spec.submodule_search_locations)))


def translations(django: Path, language: str = "de") -> list[tuple[str, str]]:
    """Return pairs of an English message and its translation, sorted."""
    found: dict[str, str] = {}
    for catalog in sorted(django.rglob(f"locale/{language}/LC_MESSAGES/django.mo")):
        for message, translation in read_catalog(catalog).items():
            if is_prose(message) and is_prose(translation) and message != translation:
                found.setdefault(message, translation)
    return sorted(found.items())


def preferences(django: Path) -> list[dict[str, str]]:
    """Return messages with two translations, that of the Americas preferred, where the two differ."""
    found = []
    for language, american, european in (("Portuguese", "pt_BR", "pt"), ("Spanish", "es_AR", "es")):
        chosen, rejected = (dict(translations(django, code)) for code in (american, european))
        found += [
            {"prompt": f"Translate to {language}: {message}", "chosen": text, "rejected": rejected[message]}
            for message, text in chosen.items()
            if rejected.get(message, text) != text
        ]
    return found


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
        writer.writerows(translations(package("django")))
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
