"""What the tasks that answer in words learn, and how their answers are scored."""

import tracemalloc
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from strop_trainer.errors import TrainerError
from strop_trainer.tasks import task_named
from strop_trainer.tasks.base import Example
from strop_trainer.tasks.chat import ChatTask, tokenize_row
from strop_trainer.tasks.overlap import bleu_and_chrf, rouge, squad
from strop_trainer.tasks.prompted import check_question, check_summary, pair
from strop_trainer.tasks.rows import normal_form
from tests.support.models import tiny_tokenizer

TOOLS_TEMPLATE = (
    "{% for t in tools or [] %}{{ 'tool ' + t['function']['name'] + '\n' }}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    "{% for c in m.tool_calls or [] %}"
    "{{ c['function']['name'] + ' ' + c['function']['arguments'] | tojson }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def tokenizer() -> Any:
    return tiny_tokenizer()


def learnt(tokenizer: Any, example: Any) -> str:
    return str(tokenizer.decode([t for t, hit in zip(example.input_ids, example.targets, strict=True) if hit]))


@pytest.mark.parametrize("task", ["instruction", "translation", "summarization", "question-answering"])
def test_the_completion_alone_is_learnt_with_the_models_template_or_the_plain_one(tokenizer: Any, task: str) -> None:
    row = normal_form(pair("What is it?", "A strop."))
    (example,) = task_named(task).encode([row], tokenizer, 100).examples
    assert learnt(tokenizer, example) == "A strop.<|im_end|>"
    plain = tiny_tokenizer()
    plain.chat_template = None
    (example,) = task_named(task).encode([row], plain, 100).examples
    assert learnt(plain, example) == "A strop.<|im_end|>"
    assert plain.decode(example.input_ids).rstrip() == (
        "### Instruction:\nWhat is it?\n\n### Response:\nA strop.<|im_end|>"
    )
    (question,) = task_named(task).questions([row], plain, 100, 3)
    assert plain.decode(question.prompt_ids) == "### Instruction:\nWhat is it?\n\n### Response:\n"
    assert question.reference == "A strop."


def test_a_prompt_longer_than_the_context_leaves_nothing_to_learn(tokenizer: Any) -> None:
    rows = [normal_form(pair("What is it? " * 40, "A strop.")), normal_form(pair("What?", "A strop."))]
    found = task_named("instruction").encode(rows, tokenizer, 48)
    assert (len(found.examples), found.truncated, found.dropped) == (1, 1, 1)
    assert max(found.lengths) > 200
    with pytest.raises(
        TrainerError, match=r"in front of the first answer, expected fewer than 48 \(training.maxLength\)$"
    ):
        task_named("instruction").encode(rows[:1], tokenizer, 48)


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("summarization", check_summary({"text": "The fox jumps. " * 40, "summary": "A fox."})),
        (
            "question-answering",
            check_question({"question": "Who jumps?", "context": "The fox jumps. " * 40, "answer": "A fox."}),
        ),
    ],
)
def test_a_long_source_loses_its_end_and_not_the_answer(tokenizer: Any, task: str, row: dict[str, Any]) -> None:
    rows, limit = [normal_form(row)], 90
    found = task_named(task).encode(rows, tokenizer, limit)
    assert (found.shortened, found.truncated, found.dropped) == (1, 0, 0)
    (example,) = found.examples
    assert limit - 8 < len(example.input_ids) <= limit
    assert learnt(tokenizer, example) == "A fox.<|im_end|>"
    assert found.lengths[0] > 2 * limit
    read = tokenizer.decode(example.input_ids)
    assert "The fox jumps. The fox jumps." in read
    assert ("Question: Who jumps?" in read) == (task == "question-answering")
    (question,) = task_named(task).questions(rows, tokenizer, limit, 1)
    assert list(example.input_ids[: len(question.prompt_ids)]) == question.prompt_ids
    assert question.reference == "A fox."


def test_every_token_of_a_document_is_predicted_once_and_the_end_is_marked(tokenizer: Any) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 30
    rows = [normal_form({"text": text}), normal_form({"text": "One.", "continues": True}), normal_form({"text": "x"})]
    found = task_named("text-generation").encode(rows, tokenizer, 32)
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    long = found.examples[: -(-len(whole) // 31)]
    predicted = [token for example in long for token in example.input_ids[1:]]
    assert predicted == [*whole[1:], tokenizer.eos_token_id]
    assert all(len(example.input_ids) <= 32 for example in found.examples)
    assert found.lengths[0] == len(whole) + 1
    assert found.truncated == 0
    assert list(found.examples[len(long)].input_ids) == tokenizer("One.", add_special_tokens=False)["input_ids"]
    assert found.examples[-1].input_ids[-1] == tokenizer.eos_token_id
    assert found.target_tokens == sum(example.target_count for example in found.examples)


def test_a_document_is_gone_on_with(tokenizer: Any) -> None:
    rows = [normal_form({"text": "The quick brown fox jumps over the lazy dog."}), normal_form({"text": "What?"})]
    first, second = task_named("text-generation").questions(rows, tokenizer, 100, 2)
    assert first.prompt + first.reference == "The quick brown fox jumps over the lazy dog."
    assert first.row_ids[: len(first.prompt_ids)] == first.prompt_ids
    assert second.prompt_ids
    assert len(task_named("text-generation").questions(rows, tokenizer, 100, 1)) == 1


def test_tools_are_rendered_or_the_row_is_refused(tokenizer: Any) -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    row = {
        "messages": [
            {"role": "user", "content": "Rain?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "no"},
            {"role": "assistant", "content": "No."},
        ],
        "tools": [{"type": "function", "function": {"name": "weather"}}],
    }
    with pytest.raises(TrainerError, match="the tool 'weather', which the model's chat template does not show"):
        ChatTask().encode([normal_form(row)], tokenizer, 200)
    tokenizer.chat_template = TOOLS_TEMPLATE
    ((ids, targets),) = tokenize_row(row, tokenizer)
    said = tokenizer.decode([t for t, hit in zip(ids, targets, strict=True) if hit])
    assert said == 'weather {"city": "Rome"}<|im_end|>No.<|im_end|>'
    assert tokenizer.decode(ids).startswith("tool weather\n<|im_start|>user")
    only_calls = {**row, "messages": row["messages"][:2]}
    (question,) = ChatTask().questions([normal_form(only_calls), normal_form(row)], tokenizer, 200, 5)
    assert question.reference == "No."
    assert tokenizer.decode(question.prompt_ids).startswith("tool weather\n<|im_start|>user")
    assert [set(message) for message in question.messages] == [{"role", "content"}] * 3
    assert "weather" in question.messages[1]["content"]


def test_metrics_by_their_libraries() -> None:
    same = ["the cat sat on the mat today", "a dog barks"]
    assert bleu_and_chrf(same, same) == pytest.approx({"bleu": 100, "chrf": 100})
    assert bleu_and_chrf(["nothing", "at all"], same)["bleu"] < 5
    for right, nearly in (
        ("今天下午我们在图书馆看书。", "今天下午我们在图书馆读书。"),
        ("今日は図書館で本を読みます。", "今日は図書館で本を見ます。"),
    ):
        assert bleu_and_chrf([right], [right])["bleu"] == pytest.approx(100)
        assert 50 < bleu_and_chrf([nearly], [right])["bleu"] < 95
    assert rouge(same, same) == pytest.approx({"rouge1": 1, "rouge2": 1, "rougeL": 1})
    assert rouge(["the cat"], ["the dog"])["rouge1"] == pytest.approx(0.5)
    assert rouge(["Привет мир"], ["Привет мир"])["rouge1"] == pytest.approx(1)
    one_each = [["normans"], ["10th century"], ["x"]]
    assert squad(["The Normans!", "in the 10th century", ""], one_each) == pytest.approx(
        {"exact_match": 1 / 3, "f1": (1 + 0.8 + 0) / 3}
    )


def test_any_given_answer_to_a_question_is_right(tokenizer: Any) -> None:
    task = task_named("question-answering")
    row = {"question": "When?", "answers": {"text": ["in 1066", "1066", "in 1066"], "answer_start": [0, 3, 0]}}
    rows = [normal_form(check_question(row)), normal_form(check_question({"question": "Who?", "answer": "He"}))]
    found = task.questions(rows, tokenizer, 200, 2)
    assert [question.references for question in found] == [("in 1066", "1066"), ("He",)]
    assert learnt(tokenizer, task.encode(rows[:1], tokenizer, 200).examples[0]) == "in 1066<|im_end|>"
    references = [question.references for question in found]
    assert task.score(["1066", "he"], references) == {"exact_match": 1.0, "f1": 1.0}
    assert task.score(["of 1066", "she"], references) == pytest.approx({"exact_match": 0, "f1": (2 / 3 + 0) / 2})


def test_an_encoded_row_takes_few_bytes_a_token() -> None:
    tracemalloc.start()
    try:
        rows = [Example([1000 + at for at in range(5000)], [at > 9 for at in range(5000)]) for _ in range(40)]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows[0].target_count == 4990
    assert held < 6 * 5000 * len(rows)


@pytest.mark.parametrize("begins", [True, False])
def test_the_plain_template_begins_as_the_model_s_tokenizer_does(begins: bool) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    if begins:
        first, number = tokenizer.bos_token, tokenizer.bos_token_id
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, number)]
        )
    row = normal_form(check_summary({"text": "The fox jumps.", "summary": "A fox."}))
    (example,) = task_named("summarization").encode([row], tokenizer, 200).examples
    ids = list(example.input_ids)
    assert ids.count(tokenizer.bos_token_id) == int(begins)
    assert (ids[0] == tokenizer.bos_token_id) == begins
    (question,) = task_named("summarization").questions([row], tokenizer, 200, 1)
    assert ids[: len(question.prompt_ids)] == question.prompt_ids
