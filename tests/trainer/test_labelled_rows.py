"""Rows with labels: what is right is read, what is wrong is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import DataFile, DatasetPlan
from strop_trainer.sources import RowFile
from strop_trainer.tasks.base import Dataset
from strop_trainer.tasks.extractive_qa import ExtractiveQaTask
from strop_trainer.tasks.labelled import Labels
from strop_trainer.tasks.text_classification import TextClassificationTask
from strop_trainer.tasks.token_classification import TokenClassificationTask

PLAN = DatasetPlan(train=[DataFile(source="pvc://data/rows.jsonl")])
TEXT, TOKENS, ANSWERS = TextClassificationTask(), TokenClassificationTask(), ExtractiveQaTask()
Task = TextClassificationTask | TokenClassificationTask | ExtractiveQaTask


def lines(*rows: object) -> bytes:
    return b"".join((entry if isinstance(entry, bytes) else json.dumps(entry).encode()) + b"\n" for entry in rows)


def read(task: Task, folder: Path, content: bytes, held: bytes | None = None, name: str = "rows.jsonl") -> Dataset:
    files = []
    for file, part in ((name, content), (f"held-{name}", held)):
        if part is not None:
            (folder / file).write_bytes(part)
            files.append(RowFile(f"pvc://data/{file}", folder / file))
    return task.read(files[:1], files[1:], PLAN, 0)


def refused(task: Task, folder: Path, *rows: object, held: bytes | None = None) -> str:
    with pytest.raises(TrainerError) as caught:
        read(task, folder, lines(*rows), held)
    assert caught.value.exit_code is ExitCode.BAD_DATA
    return caught.value.message


def labelled(count: int = 6, labels: tuple[Any, ...] = ("no", "yes")) -> list[dict[str, Any]]:
    return [{"text": f"text {n}", "label": labels[n % len(labels)]} for n in range(count)]


def tagged(*tags: str) -> dict[str, Any]:
    return {"tokens": [f"w{n}" for n in range(len(tags))], "tags": list(tags)}


def asked(text: str = "Paris", start: int | None = 8) -> dict[str, Any]:
    return {
        "question": "Where?",
        "context": "We are: Paris it is.",
        "answers": {"text": [text], "answer_start": [start]},
    }


# --- text classification -------------------------------------------------------------------------------------------


def test_labels_are_collected_sorted_and_stable(tmp_path: Path) -> None:
    rows = labelled(20, ("pear", "apple", "fig"))
    assert TEXT.labels(read(TEXT, tmp_path, lines(*rows)).train) == Labels(("apple", "fig", "pear"))
    assert TEXT.labels(read(TEXT, tmp_path, lines(*rows[::-1])).train).names == ("apple", "fig", "pear")
    assert TEXT.labels(read(TEXT, tmp_path, lines(*labelled(40, (10, 9, 2)))).train).names == ("2", "9", "10")


def test_several_labels_a_row_and_none(tmp_path: Path) -> None:
    rows = [{"text": f"t {n}", "labels": labels} for n, labels in enumerate([["b", "a"], [], ["a"], ["b"]] * 3)]
    found = read(TEXT, tmp_path, lines(*rows[:8]), lines(*rows[8:]))
    assert TEXT.labels(found.train) == Labels(("a", "b"), several=True)
    assert TEXT.measured(TEXT.labels(found.train)) == ("eval_loss", "exact_match", "f1", "f1_micro")


def test_csv_with_pairs(tmp_path: Path) -> None:
    table = "text,text_pair,label\n" + "".join(f"a {n},b,{n % 2}\n" for n in range(8))
    found = read(TEXT, tmp_path, table.encode(), name="rows.csv")
    assert TEXT.labels(found.train).names == ("0", "1")
    assert TEXT.show(found.train[0])[0].endswith("\nb")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"text": "a"}, "label: missing; found text, expected a value"),
        ({"label": "yes"}, "text: missing; found label, expected a value"),
        ({"text": " ", "label": "yes"}, "text: empty, expected text"),
        ({"text": 3, "label": "yes"}, "text: found a number, expected a string"),
        ({"text": "a", "label": 0.5}, "label: found the number 0.5, expected text or a whole number"),
        ({"text": "a", "label": True}, "label: found a boolean, expected text or a whole number; write true and false"),
        ({"text": "a", "label": None}, "label: found null, expected a value"),
        ({"text": "a", "label": ""}, "label: empty, expected text"),
        ({"text": "a", "label": 1}, "label: found a number, but the labels before are of the kind a string"),
        ({"text": "a", "label": ["yes"]}, "label: found a list, but the rows before have one label each"),
        (b'{"text": "\xff", "label": "yes"}', "not UTF-8 at byte 11"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, wrong: object, words: str) -> None:
    message = refused(TEXT, tmp_path, *labelled(), wrong)
    assert message.startswith("dataset: 1 wrong row\npvc://data/rows.jsonl line 7: ")
    assert words in message


def test_a_held_out_label_that_was_never_seen_is_named(tmp_path: Path) -> None:
    held = lines({"text": "x", "label": "yes"}, {"text": "y", "label": "maybe"})
    assert "held-rows.jsonl line 2: label: found 'maybe', which no training row has; those have no, yes" in refused(
        TEXT, tmp_path, *labelled(), held=held
    )


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({}, "labels"),
        ({"labels": "tags"}, "labels (column 'tags')"),
        ({"label": "tags"}, "label (column 'tags')"),
    ],
)
def test_one_of_several_labels_that_was_never_seen_is_told_by_its_field(
    tmp_path: Path, columns: dict[str, str], name: str
) -> None:
    column = columns.get("labels", columns.get("label", "labels"))
    files = []
    for file, labels in (("rows.jsonl", ["no", "yes"]), ("held-rows.jsonl", ["maybe", "yes"])):
        (tmp_path / file).write_bytes(lines(*({"text": f"text {n}", column: labels} for n in range(4))))
        files.append(RowFile(file, tmp_path / file))
    with pytest.raises(TrainerError) as caught:
        TEXT.read(files[:1], files[1:], PLAN.model_copy(update={"columns": columns}), 0)
    told = f"held-rows.jsonl line 1: {name}: found 'maybe', which no training row has; those have no, yes"
    assert told in caught.value.message


def test_a_rare_label_is_never_held_out_alone(tmp_path: Path) -> None:
    for seed in range(20):
        (tmp_path / "rows.jsonl").write_bytes(lines(*labelled(9), {"text": "rare", "label": "rare"}))
        found = TEXT.read(
            [RowFile("r", tmp_path / "rows.jsonl")], [], PLAN.model_copy(update={"validation_split": 0.4}), seed
        )
        known = set(TEXT.labels(found.train).names)
        assert known >= set(TEXT.labels(found.validation).names)


def test_rare_labels_do_not_keep_the_others_from_being_held_out(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": ("rare", "rarer", "a", "b")[min(n, 2 + n % 2)]} for n in range(12)]
    (tmp_path / "rows.jsonl").write_bytes(lines(*rows))
    plan = PLAN.model_copy(update={"validation_split": 0.25})
    for seed in range(100):
        found = TEXT.read([RowFile("r", tmp_path / "rows.jsonl")], [], plan, seed)
        assert len(found.validation) == 3
        assert TEXT.labels(found.train).names == ("a", "b", "rare", "rarer")


def test_too_few_words_for_the_tags(tmp_path: Path) -> None:
    many = tagged(*(f"B-T{n}" for n in range(30)))
    more = tagged(*(f"B-T{n}" for n in range(30)), "O")
    words = "tags: found 30 tagged words of 30 types, expected more words than types; is this the right column?"
    assert f"dataset.train: pvc://data/rows.jsonl: {words}" in refused(TOKENS, tmp_path, many, more)
    assert "found 30 tagged words of 30 types" in refused(TOKENS, tmp_path, many, held=lines(many))


def test_too_few_rows_for_the_labels(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": f"l{n}"} for n in range(3)]
    held = lines({"text": "x", "label": "l0"})
    where = "dataset.train: pvc://data/rows.jsonl: "
    told = f"{where}label: found 3 rows and 3 labels, expected more rows than labels; is this the right column?"
    assert told in refused(TEXT, tmp_path, *rows, held=held)
    assert told in refused(TEXT, tmp_path, *rows)
    alone = [{"text": "same", "label": "a"}] * 4 + [{"text": "other", "label": "b"}] * 4
    only = "found rows that are the only ones of their labels, expected more rows of each label, or dataset.validation"
    assert f"{where}{only}" in refused(TEXT, tmp_path, *alone)


def test_one_label_tells_nothing_apart(tmp_path: Path) -> None:
    held = lines(*labelled(2, ("yes",)))
    told = "dataset.train: pvc://data/rows.jsonl: label: found only yes, expected several labels"
    assert refused(TEXT, tmp_path, *labelled(4, ("yes",)), held=held) == told
    none = [{"text": f"t{n}", "labels": []} for n in range(3)]
    assert ": labels: found no label, expected at least one" in refused(TEXT, tmp_path, *none)
    plain = [tagged("NOUN", *["NOUN"] * n) for n in range(3)]
    told = "dataset.train: pvc://data/rows.jsonl: tags: found only NOUN, expected several tags"
    assert refused(TOKENS, tmp_path, *plain) == told


def test_what_the_rows_have_in_common_is_told_by_the_column_too(tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"columns": {"label": "topic"}})
    files = [RowFile(f"part-{n}.jsonl", tmp_path / f"part-{n}.jsonl") for n in range(6)]
    for file in files:
        file.path.write_bytes(lines({"text": file.name, "topic": "yes"}, {"text": f"{file.name} 2", "topic": "yes"}))
    with pytest.raises(TrainerError) as caught:
        TEXT.read(files, [], plan, 0)
    assert caught.value.message == (
        "dataset.train: part-0.jsonl, part-1.jsonl, part-2.jsonl and 3 more: label (column 'topic'): "
        "found only yes, expected several labels"
    )


def test_metrics_of_classification_and_the_baseline(tmp_path: Path) -> None:
    found = read(TEXT, tmp_path, lines(*labelled(8), {"text": "z", "label": "no"}), lines(*labelled(4)))
    labels = TEXT.labels(found.train)
    right = [["no"], ["yes"], ["no"], ["yes"]]
    assert TEXT.measure(right, found.validation, labels) == {"accuracy": 1.0, "f1": 1.0, "mcc": 1.0}
    assert TEXT.measure([["no"], ["yes"], ["no"], ["no"]], found.validation, labels)["accuracy"] == 0.75
    base = TEXT.baseline(found.train, found.validation, labels)
    assert base["accuracy"] == 0.5
    assert base["mcc"] == 0.0
    assert base["f1"] == pytest.approx(1 / 3)


def test_text_where_a_list_of_labels_belongs_is_no_single_label(tmp_path: Path) -> None:
    with pytest.raises(TrainerError) as caught:
        read(TEXT, tmp_path, b"text,labels\nx,sport;news\ny,sport\nz,news\n", name="rows.csv")
    assert 'rows.csv line 2: labels: found a string, expected a list (in CSV: ["a", "b"])' in caught.value.message
    cells = b'text,labels\nx,"[""sport"", ""news""]"\ny,"[""sport""]"\nz,[]\nv,"[""news""]"\n'
    found = read(TEXT, tmp_path, cells, cells, name="right.csv")
    assert TEXT.labels(found.train) == Labels(("news", "sport"), several=True)


def test_the_row_that_set_the_kind_of_the_others_is_named(tmp_path: Path) -> None:
    first = "(first in pvc://data/rows.jsonl line 1)"
    for odd in (1, ["yes"]):
        message = refused(TEXT, tmp_path, {"text": "odd", "label": odd}, *labelled(3))
        assert message.count(first) == 3
    message = refused(TOKENS, tmp_path, tagged("O", "PER"), *[tagged("O", "B-PER")] * 3)
    assert message.count(first) == 3
    message = refused(TOKENS, tmp_path, tagged("O"), tagged("B-PER"), tagged("PER"))
    assert "line 3: " in message
    assert "(first in pvc://data/rows.jsonl line 2)" in message


def test_a_mapped_column_is_told_by_its_name_in_the_file(tmp_path: Path) -> None:
    rows = [{"subject": f"x{n}", "topic": "ab"[n % 2]} for n in range(6)]
    (tmp_path / "a.jsonl").write_bytes(lines(*rows, {"subject": "x"}, {"subject": " ", "topic": "a"}))
    plan = PLAN.model_copy(update={"columns": {"text": "subject", "label": "topic"}})
    with pytest.raises(TrainerError) as caught:
        TEXT.read([RowFile("a.jsonl", tmp_path / "a.jsonl")], [], plan, 0)
    assert "line 7: label (column 'topic'): missing" in caught.value.message
    assert "line 8: text (column 'subject'): empty, expected text" in caught.value.message


def test_a_boolean_is_no_number_of_a_tag(tmp_path: Path) -> None:
    message = refused(TOKENS, tmp_path, tagged("O", "B-PER"), {"tokens": ["a"], "tags": [True]})
    assert "tags[0]: found a boolean, expected a string" in message


# --- token classification ------------------------------------------------------------------------------------------


def test_tags_are_completed_and_sorted(tmp_path: Path) -> None:
    rows = [tagged("O", "B-PER", "I-PER", "O", "B-LOC", *["O"] * n) for n in range(8)]
    assert TOKENS.labels(read(TOKENS, tmp_path, lines(*rows)).train).names == (
        "O",
        "B-LOC",
        "I-LOC",
        "B-PER",
        "I-PER",
    )
    plain = [tagged("NOUN", "VERB", *["NOUN"] * n) for n in range(8)]
    assert TOKENS.labels(read(TOKENS, tmp_path, lines(*plain)).train).names == ("NOUN", "VERB")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tokens": ["a"]}, "tags: missing; found tokens, expected a value"),
        ({"tokens": "a b", "tags": "O"}, "tags: found 1, expected 2, one a token"),
        ({"tokens": 3, "tags": ["O"]}, "tokens: found a number, expected a list of strings"),
        ({"tokens": [], "tags": []}, "tokens: empty, expected at least one word"),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, "tokens[1]: empty, expected text"),
        ({"tokens": ["a b"], "tags": ["O"]}, "tokens[0]: found 'a b', expected one word without white space"),
        ({"tokens": ["a"], "tags": [3]}, "tags[0]: found the number 3, expected a name, such as B-PER"),
        (tagged("O", "I-PER"), "tags[1] (token 'w1'): found I-PER after O, expected B-PER"),
        (tagged("B-LOC", "I-PER"), "tags[1] (token 'w1'): found I-PER after B-LOC, expected B-PER"),
        (tagged("O", "S-PER"), "tags[1] (token 'w1'): found 'S-PER', expected BIO: O, B-PER or I-PER"),
        (tagged("O", "PER"), "tags[1] (token 'w1'): found 'PER', expected O, B-… or I-…, as the tags before it"),
    ],
)
def test_a_wrong_tag_is_named_by_row_and_token(tmp_path: Path, wrong: object, words: str) -> None:
    message = refused(TOKENS, tmp_path, tagged("B-PER", "I-PER", "O"), wrong, tagged("O", "B-LOC"))
    assert message.startswith("dataset: 1 wrong row\npvc://data/rows.jsonl line 2: ")
    assert words in message


def test_plain_tags_and_bio_do_not_mix(tmp_path: Path) -> None:
    assert "found 'B-PER', but plain tags" in refused(TOKENS, tmp_path, tagged("NOUN", "VERB"), tagged("B-PER"))


def test_a_held_out_tag_that_was_never_seen_is_named(tmp_path: Path) -> None:
    message = refused(TOKENS, tmp_path, tagged("B-PER", "O"), tagged("O", "B-PER"), held=lines(tagged("O", "B-ORG")))
    assert "tags[1]: found 'B-ORG', which no training row has; those have O, B-PER, I-PER" in message


def test_names_count_as_wholes(tmp_path: Path) -> None:
    held = [tagged("B-PER", "I-PER", "O", "B-LOC")]
    found = read(TOKENS, tmp_path, lines(*[tagged("B-PER", "B-LOC")] * 2, tagged("O")), lines(*held))
    labels = TOKENS.labels(found.train)
    half = TOKENS.measure([["B-PER", "O", "O", "B-LOC"]], found.validation, labels)
    assert half == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "accuracy": 0.75}
    assert TOKENS.measure([["O"] * 4], found.validation, labels)["f1"] == 0.0


# --- extractive question answering ---------------------------------------------------------------------------------


def test_answers_in_three_shapes(tmp_path: Path) -> None:
    rows = [
        asked(),
        {**asked(), "question": "And?", "answers": [{"text": "Paris", "answer_start": 8}]},
        {"question": "So?", "context": "We are: Paris it is.", "answer": "Paris"},
    ]
    found = read(ANSWERS, tmp_path, lines(*rows), lines(asked()))
    assert [json.loads(row)["answers"] for row in found.train] == [[{"start": 8, "text": "Paris"}]] * 3
    assert not ANSWERS.labels(found.train).several


def test_a_table_of_answers(tmp_path: Path) -> None:
    table = "question,context,answer,answer_start\n" + "".join(f"q{n},It is red,red,6\n" for n in range(4))
    assert len(read(ANSWERS, tmp_path, table.encode(), name="rows.csv").train) == 3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"question": "a", "context": "b"}, "answer: missing; found question, context, expected a value"),
        ({"question": "", "context": "b", "answer": "b"}, "question: empty"),
        ({"question": "a", "context": 1, "answer": "b"}, "context: found a number, expected a string"),
        (asked(start=99), "characters 99 to 104 are outside the context, which has 20"),
        (asked(start=-1), "characters -1 to 4 are outside the context"),
        (asked(start=3), "'Paris' is not at character 3, found 'are: ' there; it is at 8"),
        (asked("London", None), "answers.text[0]: 'London' is not in the context, expected once, or answer_start"),
        ({"question": "a", "context": "b b", "answer": "b"}, "'b' is 2 times in the context"),
        (asked(" "), "answers.text[0]: empty"),
        ({"question": "a", "context": "b", "answers": 3}, "answers: found a number, expected an object"),
        (
            {"question": "a", "context": "b", "answers": {"text": ["b"]}},
            "answers.answer_start: missing; found text, expected a value",
        ),
        (
            {"question": "a", "context": "b", "answers": {"text": ["b"], "answer_start": []}},
            "answers.answer_start: found 0, expected 1, one a text",
        ),
    ],
)
def test_a_wrong_answer_is_named(tmp_path: Path, wrong: object, words: str) -> None:
    message = refused(ANSWERS, tmp_path, asked(), wrong, {**asked(), "question": "Again?"})
    assert message.startswith("dataset: 1 wrong row\npvc://data/rows.jsonl line 2: ")
    assert words in message


def test_rows_without_any_answer(tmp_path: Path) -> None:
    none = {"question": "q", "context": "c", "answers": {"text": [], "answer_start": []}}
    told = "dataset.train: pvc://data/rows.jsonl: answers: found none in any row, expected at least one to learn"
    assert refused(ANSWERS, tmp_path, none, {**none, "question": "r"}) == told
    assert ANSWERS.labels(read(ANSWERS, tmp_path, lines(asked(), none), lines(asked())).train).several


def test_squad_metrics_take_the_best_reference(tmp_path: Path) -> None:
    row = {**asked(), "answers": {"text": ["Paris", "Paris it"], "answer_start": [8, 8]}}
    found = read(ANSWERS, tmp_path, lines(asked()), lines(row))
    labels = ANSWERS.labels(found.train)
    assert ANSWERS.measure(["the paris!"], found.validation, labels) == {"exact_match": 1.0, "f1": 1.0}
    assert ANSWERS.measure(["Paris it is"], found.validation, labels)["f1"] == pytest.approx(0.8)
    assert ANSWERS.measure([""], found.validation, labels) == {"exact_match": 0.0, "f1": 0.0}


# --- all of them ---------------------------------------------------------------------------------------------------

GOOD: dict[Task, dict[str, Any]] = {
    TEXT: {"text": "a", "label": "yes"},
    TOKENS: {"tokens": ["a"], "tags": ["O"]},
    ANSWERS: {"question": "a", "context": "b", "answer": "b"},
}


@pytest.mark.parametrize("task", GOOD, ids=lambda task: task.auto_class)
def test_one_row_cannot_be_held_out(tmp_path: Path, task: Task) -> None:
    told = "found 1 row(s), 1 different, expected at least 2 different ones, one of them to be held out"
    assert refused(task, tmp_path, GOOD[task]) == f"dataset.train: pvc://data/rows.jsonl: {told}"


@pytest.mark.parametrize(
    ("task", "wrong", "words"),
    [
        (TOKENS, b'{"tokens": ["\xff"], "tags": ["O"]}', "not UTF-8 at byte 14 of the line (0xff)"),
        (ANSWERS, b'{"question": "\xff", "context": "b", "answer": "b"}', "not UTF-8 at byte 15 of the line (0xff)"),
        (TEXT, {"text_pair": " "}, "text_pair: empty, expected text"),
        (TEXT, {"text_pair": ["b"]}, "text_pair: found a list, expected a string"),
        (TOKENS, {"tokens": None}, "tokens: found null, expected a value"),
        (TOKENS, {"tokens": ...}, "tokens: missing; found tags, expected a value"),
        (TOKENS, {"tokens": [3]}, "tokens[0]: found a number, expected a string"),
        (TOKENS, {"tags": 3}, "tags: found a number, expected a list of strings"),
        (TOKENS, {"tags": [" "]}, "tags[0]: empty, expected text"),
        (ANSWERS, {"question": ...}, "question: missing; found context, answer, expected a value"),
        (ANSWERS, {"context": ...}, "context: missing; found question, answer, expected a value"),
        (ANSWERS, {"question": 3}, "question: found a number, expected a string"),
        (ANSWERS, {"answer": 3}, "answer: found a number, expected a string"),
        (ANSWERS, {"question": " \n"}, "question: empty, expected text"),
        (ANSWERS, {"context": ""}, "context: empty, expected text"),
    ],
)
def test_bad_input_is_told_by_file_row_and_field(
    tmp_path: Path, task: Task, wrong: bytes | dict[str, Any], words: str
) -> None:
    good = GOOD[task]
    if isinstance(wrong, dict):
        wrong = {name: value for name, value in (good | wrong).items() if value is not ...}
    found = refused(task, tmp_path, good, wrong, good)
    assert found == f"dataset: 1 wrong row\npvc://data/rows.jsonl line 2: {words}"
