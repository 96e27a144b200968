"""Make the demo's rows from the translations that ship with Django (BSD-3-Clause): name a message's language, as JSON.

Run as `python examples/prepare_data.py OUT`. Writes train.jsonl and validation.jsonl, the same bytes each time. No
message of the one is in the other, in whatever language.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import struct
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

PACKAGE = "django"
SOURCE_LANGUAGE = "English"
LANGUAGES = {
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "it": "Italian",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "sv": "Swedish",
    "tr": "Turkish",
}
SYSTEM = 'Name the language of the message. Answer only with JSON: {"language": "..."}'
TRAIN_ROWS_PER_LANGUAGE = 18
VALIDATION_ROWS_PER_LANGUAGE = 4
TRAIN_SHARE = 0.75
SEED = 0
MINIMUM_LENGTH, MAXIMUM_LENGTH = 20, 90
MINIMUM_WORDS = 3
NOT_PROSE = frozenset("%<>{}\n\x00\x04")
"""Placeholders, markup, plural forms and contexts."""

Row = dict[str, list[dict[str, str]]]


def package(name: str, expected: str) -> Path:
    """Return the folder of an installed package, whose code is not run.

    Raises:
        SystemExit: it is not installed; `expected` says what installs it.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {name}: not installed, expected: {expected}")
    return Path(next(iter(spec.submodule_search_locations)))


def read_catalog(path: Path) -> dict[str, str]:
    """Return message → translation of a GNU gettext .mo file (little endian, UTF-8)."""
    content = path.read_bytes()
    _, _, count, originals, translations = struct.unpack_from("<5I", content)

    def text(table: int, index: int) -> str:
        length, offset = struct.unpack_from("<2I", content, table + 8 * index)
        return content[offset : offset + length].decode()

    return {text(originals, index): text(translations, index) for index in range(count)}


def is_prose(text: str) -> bool:
    """Tell whether a message is a short piece of plain text."""
    return (
        MINIMUM_LENGTH <= len(text) <= MAXIMUM_LENGTH
        and len(text.split()) >= MINIMUM_WORDS
        and NOT_PROSE.isdisjoint(text)
    )


def translations(django: Path, language: str, fits: Callable[[str], bool] = is_prose) -> list[tuple[str, str]]:
    """Return pairs of an English message and its translation, both of which fit, sorted."""
    found: dict[str, str] = {}
    for catalog in sorted(django.rglob(f"locale/{language}/LC_MESSAGES/django.mo")):
        for message, translation in read_catalog(catalog).items():
            if fits(message) and fits(translation) and message != translation:
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


def read_messages(package: Path) -> dict[str, dict[str, str]]:
    """Return English message → language → text, for all of the package's catalogs."""
    messages: dict[str, dict[str, str]] = defaultdict(dict)
    for code, language in LANGUAGES.items():
        for catalog in sorted(package.rglob(f"locale/{code}/LC_MESSAGES/django.mo")):
            for message, translation in read_catalog(catalog).items():
                if is_prose(message) and is_prose(translation) and message != translation:
                    messages[message] |= {SOURCE_LANGUAGE: message, language: translation}
    return dict(messages)


def to_row(text: str, language: str) -> Row:
    """Return one conversation."""
    answer = json.dumps({"language": language})
    contents = {"system": SYSTEM, "user": text, "assistant": answer}
    return {"messages": [{"role": role, "content": content} for role, content in contents.items()]}


def choose_rows(translations: Iterable[Mapping[str, str]], per_language: int, chance: random.Random) -> list[Row]:
    """Return rows in mixed order, `per_language` of each language; no text that is right in two languages."""
    languages: dict[str, set[str]] = defaultdict(set)
    for message in translations:
        for language, text in message.items():
            languages[text].add(language)
    pairs = sorted((text, language) for text, found in languages.items() if len(found) == 1 for language in found)
    chance.shuffle(pairs)
    taken: dict[str, int] = defaultdict(int)
    rows = []
    for text, language in pairs:
        if taken[language] < per_language:
            taken[language] += 1
            rows.append(to_row(text, language))
    return rows


def prepare(package: Path, out: Path) -> None:
    """Write train.jsonl and validation.jsonl to the folder `out`."""
    messages = read_messages(package)
    chance = random.Random(SEED)  # noqa: S311 - the same rows each time
    names = sorted(messages)
    chance.shuffle(names)
    cut = int(len(names) * TRAIN_SHARE)
    out.mkdir(parents=True, exist_ok=True)
    for name, part, per_language in (
        ("train", names[:cut], TRAIN_ROWS_PER_LANGUAGE),
        ("validation", names[cut:], VALIDATION_ROWS_PER_LANGUAGE),
    ):
        rows = choose_rows([messages[message] for message in part], per_language, chance)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    folder = parser.parse_args(arguments).out
    try:
        django = package(PACKAGE, "pip install --no-deps -r requirements/demo.txt")
    except SystemExit as missing:
        parser.error(str(missing))
    prepare(django, folder)


if __name__ == "__main__":
    main()
