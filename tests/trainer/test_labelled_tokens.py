"""Labels on tokens: alignment to subwords, windows over long texts, and the way back to words and answers."""

import json
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from strop_trainer.export.encoder import split_rows
from strop_trainer.heads.encoder_model import input_names
from strop_trainer.tasks import labelled
from strop_trainer.tasks.extractive_qa import ExtractiveQaTask, best_span
from strop_trainer.tasks.labelled import LabelledExample, Labels
from strop_trainer.tasks.rows import normal_form
from strop_trainer.tasks.text_classification import TextClassificationTask
from strop_trainer.tasks.token_classification import TokenClassificationTask, first_tokens
from tests.support.models import tiny_encoder, tiny_tokenizer

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]

TAGS = Labels(("O", "B-PER", "I-PER"))
SPAN = Labels(("start", "end"))


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(tiny_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level"])
def test_the_first_token_of_each_word_bears_its_tag(wordpiece: Any, kind: str) -> None:
    tokenizer = wordpiece if kind == "wordpiece" else tiny_tokenizer()
    words = ["Zebulon", "of", "Kraków", "!"]
    row = normal_form({"tokens": words, "tags": ["B-PER", "O", "I-PER", "O"]})
    (example,) = TokenClassificationTask().tokenize([row], tokenizer, 64, TAGS).examples
    assert isinstance(example, LabelledExample)
    assert [word for _, word in example.places] == [0, 1, 2, 3]
    assert [tag for _, tag in example.label] == [1, 0, 2, 0]
    for token, word in example.places:
        piece = tokenizer.decode([example.input_ids[token]]).strip().removeprefix("##").lower()
        assert piece == "[unk]" or words[word].lower()[0] == piece[0]


def test_words_that_are_cut_or_unseen_are_told_as_outside(wordpiece: Any) -> None:
    rows = [normal_form({"tokens": ["fox"] * 30, "tags": ["B-PER"] * 30})]
    task = TokenClassificationTask()
    encoded = task.tokenize(rows, wordpiece, 10, TAGS)
    assert encoded.truncated == 1
    assert encoded.lengths == [32]  # with [CLS] and [SEP], before it was cut
    example: Any = encoded.examples[0]
    logits = np.zeros((len(example.input_ids), 3), dtype=np.float32)
    logits[:, 1] = 1
    (found,) = task.predict([(logits,)], [example], rows, TAGS)
    seen = len(example.places)
    assert 0 < seen < 30
    assert found == ["B-PER"] * seen + ["O"] * (30 - seen)


def test_a_space_in_front_counts_for_the_word_behind_it() -> None:
    assert first_tokens(["ab", "c"], "ab c", [(0, 0), (0, 1), (1, 2), (2, 4), (0, 0)]) == [(1, 0), (3, 1)]


def test_long_texts_and_pairs_are_cut_and_counted(wordpiece: Any) -> None:
    rows = [
        normal_form({"text": "fox " * 40, "text_pair": "dog", "labels": ["a"], "several": False}),
        normal_form({"text": "fox", "text_pair": "dog", "labels": ["b"], "several": False}),
    ]
    wordpiece.model_input_names = input_names({"type_vocab_size": 2})
    encoded = TextClassificationTask().tokenize(rows, wordpiece, 16, Labels(("a", "b")))
    assert encoded.truncated == 1
    assert encoded.lengths == [44, 5]
    first: Any = encoded.examples[0]
    assert len(first.input_ids) == 16
    assert list(first.segments[-2:]) == [1, 1]
    assert [example.label for example in encoded.examples] == [0, 1]  # type: ignore[attr-defined]


def question_row(answer: str = "blade", before: int = 60) -> bytes:
    context = "fox " * before + f"the {answer} is sharp " + "dog " * 60
    answers = [{"text": answer, "start": context.index(answer)}] if answer else []
    return normal_form({"question": "what is sharp?", "context": context, "answers": answers})


def test_a_long_context_comes_in_windows_that_overlap(wordpiece: Any) -> None:
    row = question_row()
    encoded = ExtractiveQaTask().tokenize([row], wordpiece, 48, SPAN)
    context = json.loads(row)["context"]
    assert len(encoded.examples) > 3
    found = [example for example in encoded.examples if example.label != (0, 0)]  # type: ignore[attr-defined]
    assert found
    for example in found:
        assert isinstance(example, LabelledExample)
        first, last = example.label
        assert context[example.places[first][0] : example.places[last][1]] == "blade"
    covered = {place for example in encoded.examples for place in example.places}  # type: ignore[attr-defined]
    assert max(last for _, last in covered) == len(context.rstrip())
    assert all(len(example.input_ids) <= 48 for example in encoded.examples)


def test_the_best_window_gives_the_answer(wordpiece: Any) -> None:
    rows, task = [question_row()], ExtractiveQaTask()
    examples: list[Any] = list(task.tokenize(rows, wordpiece, 48, SPAN).examples)
    outputs = []
    for example in examples:
        begins, ends = (np.zeros(len(example.input_ids), dtype=np.float32) for _ in range(2))
        begins[example.label[0]] = ends[example.label[1]] = 9.0 if example.label != (0, 0) else 1.0
        outputs.append((begins, ends))
    assert task.predict(outputs, examples, rows, SPAN) == ["blade"]
    none = [(b * 0, e * 0) for b, e in outputs]
    for begins, ends in none:
        begins[0] = ends[0] = 5.0
    assert task.predict(none, examples, rows, Labels(("start", "end"), several=True)) == [""]
    assert task.predict(none, examples, rows, SPAN) != [""]


def test_an_answer_ends_behind_its_beginning_and_is_in_the_context() -> None:
    places = [(-1, -1), (0, 2), (3, 5), (-1, -1)]
    begins, ends = np.array([9.0, 1.0, 5.0, 9.0]), np.array([9.0, 5.0, 1.0, 9.0])
    assert best_span(begins, ends, places)[1] in {(0, 2), (3, 5)}
    assert best_span(begins, ends, [(-1, -1)] * 4)[0] == float("-inf")


def test_a_question_takes_half_of_the_length_at_most(wordpiece: Any) -> None:
    row = normal_form({"question": "what " * 80, "context": "the fox", "answers": [{"text": "fox", "start": 4}]})
    encoded = ExtractiveQaTask().tokenize([row], wordpiece, 32, SPAN)
    assert encoded.truncated == 1
    assert len(encoded.examples) == 1


@pytest.mark.parametrize("name", ["text-classification", "token-classification", "question-answering"])
def test_rows_that_are_tokenized_in_parts_are_as_if_at_once(
    wordpiece: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task: Any
    kinds: dict[str, tuple[Any, Labels, list[dict[str, Any]]]] = {
        "text-classification": (
            TextClassificationTask(),
            Labels(("a", "b")),
            [{"text": "fox " * n, "labels": ["ab"[n % 2]], "several": False} for n in range(1, 8)],
        ),
        "token-classification": (
            TokenClassificationTask(),
            TAGS,
            [{"tokens": ["fox"] * n, "tags": ["B-PER"] * n} for n in range(1, 8)],
        ),
        "question-answering": (
            ExtractiveQaTask(),
            SPAN,
            [
                {
                    "question": "what?",
                    "context": "dog " * 20 * n + "blade",
                    "answers": [{"text": "blade", "start": 80 * n}],
                }
                for n in range(1, 8)
            ],
        ),
    }
    task, labels, given = kinds[name]
    rows = [normal_form(row) for row in given]
    if name == "text-classification":
        rows[5] = normal_form({**given[5], "text_pair": "dog"})  # the last part alone has a pair: all have one then
    whole = task.tokenize(rows, wordpiece, 48, labels)
    monkeypatch.setattr(labelled, "WINDOW", 3)
    assert task.tokenize(rows, wordpiece, 48, labels) == whole
    assert len({example.row for example in whole.examples}) == len(rows)


def test_a_label_s_number_is_no_token(wordpiece: Any) -> None:
    names = tuple("abcdef")
    rows = [normal_form({"text": text, "labels": ["f"], "several": False}) for text in ("fox dog fox dog", "fox dog")]
    task = TextClassificationTask()
    examples: Any = task.tokenize(rows, wordpiece, 16, Labels(names)).examples
    assert [len(example.input_ids) for example in examples] == [6, 4]
    logits = np.zeros((2, 6), dtype=np.float32)
    logits[:, 5] = 1
    assert task.predict(split_rows([logits], examples), examples, rows, Labels(names)) == [["f"], ["f"]]


def test_labels_that_no_held_out_row_has_are_no_mistakes() -> None:
    labels = Labels(tuple("abcd"), several=True)
    rows = [normal_form({"text": "x", "labels": list(names), "several": True}) for names in ("a", "ab", "")]
    task = TextClassificationTask()
    assert task.measure([["a"], ["a", "b"], []], rows, labels) == {"exact_match": 1, "f1": 1, "f1_micro": 1}
    assert task.measure([["a"], ["a", "b"], ["d"]], rows, labels)["f1"] == pytest.approx(2 / 3)
