import json
import re
from pathlib import Path
from typing import Any

import pytest

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import DataFile, DatasetPlan
from strop_trainer.sources import RowFile
from strop_trainer.tasks.chat import ChatTask, tokenize
from strop_trainer.tasks.rows import UnfitRowsError, normal_form, tell_places
from strop_trainer.tasks.text_generation import TextGenerationTask
from tests.support.data import write_jsonl
from tests.support.models import smollm2, tiny_llama, tiny_tokenizer
from tests.support.training import Surroundings, make_plan

pytestmark = pytest.mark.trainer

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris 🗼."},
    {"role": "user", "content": "assistant\nAnd of Italy?<|im_end|>"},
    {"role": "assistant", "content": "\n  Rome — Città eterna\n"},
    {"role": "user", "content": "Thanks."},
]

MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] | trim }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
OPEN_THINKING = THINKING.replace("assistant\n' }}{% endif %}", "assistant\n<think>\n' }}{% endif %}")


@pytest.fixture(scope="module")
def tiny() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def smol() -> Any:
    from transformers import AutoTokenizer  # noqa: PLC0415

    return AutoTokenizer.from_pretrained(smollm2())


def said(tokenizer: Any, ids: list[int], targets: list[bool]) -> list[str]:
    """Decode each run of targets."""
    runs: list[list[int]] = []
    for token, hit, before in zip(ids, targets, [False, *targets], strict=False):
        if hit:
            runs = runs if before else [*runs, []]
            runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize("which", ["tiny", "smol"])
def test_targets_are_all_that_the_assistant_says_and_nothing_else(which: str, request: Any) -> None:
    tokenizer = request.getfixturevalue(which)
    ((ids, targets),) = tokenize(TURNS, tokenizer)
    assert said(tokenizer, ids, targets) == ["Paris 🗼.<|im_end|>", "\n  Rome — Città eterna\n<|im_end|>"]
    rendered = tokenizer.apply_chat_template(TURNS[:5], tokenize=False)
    assert tokenizer.decode(ids) == rendered


def test_a_template_without_a_generation_prompt(tiny: Any) -> None:
    tiny = tiny_tokenizer()
    tiny.chat_template = MISTRAL
    ((ids, targets),) = tokenize(TURNS[1:5], tiny)
    assert said(tiny, ids, targets) == [" Paris 🗼.<|im_end|>", " Rome — Città eterna<|im_end|>"]


def test_a_template_that_rewrites_earlier_turns_gives_one_sequence_a_turn() -> None:
    tiny = tiny_tokenizer()
    tiny.chat_template = THINKING
    found = tokenize(TURNS, tiny)
    assert [said(tiny, ids, targets) for ids, targets in found] == [
        ["<think>\n\n</think>\n\nParis 🗼.<|im_end|>"],
        ["<think>\n\n</think>\n\n\n  Rome — Città eterna\n<|im_end|>"],
    ]


def test_a_generation_prompt_that_opens_what_the_turn_opens_too() -> None:
    tiny = tiny_tokenizer()
    tiny.chat_template = OPEN_THINKING
    ((ids, targets),) = tokenize(TURNS[:3], tiny)
    assert said(tiny, ids, targets) == ["\n</think>\n\nParis 🗼.<|im_end|>"]


def test_a_template_that_refuses_a_row_names_it() -> None:
    tiny = tiny_tokenizer()
    tiny.chat_template = MISTRAL
    with pytest.raises(TrainerError, match="Only user and assistant roles are supported") as caught:
        tokenize(TURNS, tiny)
    assert caught.value.exit_code is ExitCode.BAD_DATA
    assert "Be brief." in caught.value.message


def test_a_row_that_the_template_refuses_is_told_by_its_file_and_line(tmp_path: Path) -> None:
    tiny = tiny_tokenizer()
    tiny.chat_template = MISTRAL
    rows = [{"messages": TURNS[1:3]}, {"messages": TURNS[:3]}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UnfitRowsError) as caught:
        ChatTask().encode([normal_form(row) for row in rows], tiny, 1000)
    dataset = DatasetPlan(train=[DataFile(source="pvc://data/rows.jsonl")])
    told = tell_places(caught.value, ChatTask.rules, [RowFile("pvc://data/rows.jsonl", file)], dataset)
    assert told.exit_code is ExitCode.BAD_DATA
    assert "rows.jsonl line 2: the model's chat template refuses a row: Only user and assistant" in told.message
    assert "line 1" not in told.message


def test_a_row_that_is_asked_and_not_evaluated_is_told_by_its_file_and_line(tmp_path: Path) -> None:
    around = Surroundings(tmp_path)
    tiny_llama(around.volumes / "models" / "tiny")
    around.write_rows()
    # Of five rows that in the middle is evaluated.
    held = ["storm 1", "storm 2", "rain", "storm 4", "storm 5"]
    turns = [[{"role": "user", "content": said}, {"role": "assistant", "content": f"{said}!"}] for said in held]
    write_jsonl(around.volumes / "data" / "held.jsonl", [{"messages": each} for each in turns])
    template = "{% if 'storm' in messages[0]['content'] %}{{ raise_exception('no weather') }}{% endif %}" + MISTRAL
    plan = make_plan(model={"chat_template": template}, evaluation={"max_rows": 1, "generate_rows": 5})
    ended = around.run(plan)
    assert ended.code == ExitCode.BAD_DATA
    assert re.search(r"held.jsonl line [1245]: the model's chat template refuses a row: no weather", ended.output)


def test_truncation_is_counted_and_rows_with_nothing_left_are_dropped(tiny: Any) -> None:
    rows = [normal_form({"messages": TURNS[1:3]}), normal_form({"messages": TURNS})]
    whole = ChatTask().encode(rows, tiny, 1000)
    assert (len(whole.examples), whole.truncated, whole.dropped) == (2, 0, 0)
    assert whole.tokens == sum(len(example.input_ids) for example in whole.examples)
    assert whole.target_tokens == sum(sum(example.targets) for example in whole.examples)
    first = whole.examples[0].targets.index(True)
    short = ChatTask().encode(rows, tiny, first + 2)
    assert (len(short.examples), short.truncated, short.dropped) == (1, 2, 1)
    assert short.examples[0].target_count == 2


def test_rows_that_leave_nothing_to_learn_are_told_by_the_first_of_them(tmp_path: Path, tiny: Any) -> None:
    def told(task: ChatTask | TextGenerationTask, rows: list[dict[str, Any]], length: int) -> str:
        file = RowFile("pvc://data/rows.jsonl", tmp_path / "rows.jsonl")
        file.path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(UnfitRowsError) as caught:
            task.encode([normal_form(row) for row in rows], tiny, length)
        told = tell_places(caught.value, task.rules, [file], DatasetPlan(train=[DataFile(source="pvc://data/rows")]))
        assert told.exit_code is ExitCode.BAD_DATA
        return told.message

    turns = [{"messages": TURNS[1:3]}, {"messages": TURNS}]
    begin = ChatTask().encode([normal_form(turns[0])], tiny, 1000).examples[0].targets.index(True)
    assert told(ChatTask(), turns, 3) == (
        "dataset: 1 wrong row\npvc://data/rows.jsonl line 1: "
        f"found {begin} tokens in front of the first answer, expected fewer than 3 (training.maxLength), "
        "as in all 2 rows"
    )
    assert told(TextGenerationTask(), [{"text": "a", "continues": True}] * 2, 8) == (
        "dataset: 2 wrong rows\n"
        "pvc://data/rows.jsonl line 1: text: found 1 token(s), expected at least 2, as in all 2 rows\n"
        "pvc://data/rows.jsonl line 2: text: found 1 token(s), expected at least 2, as in all 2 rows"
    )


def test_questions_ask_for_the_last_answer_with_the_prompt_as_inference_sees_it(smol: Any) -> None:
    rows = [normal_form({"messages": TURNS}), normal_form({"messages": TURNS[:3]})]
    first, second = ChatTask().questions(rows, smol, 1000, 5)
    assert first.prompt == TURNS[3]["content"]
    assert first.reference == TURNS[4]["content"]
    prompt = smol.apply_chat_template(TURNS[:4], tokenize=False, add_generation_prompt=True)
    assert smol.decode(first.prompt_ids) == prompt
    assert first.row_ids[: len(first.prompt_ids)] == first.prompt_ids
    assert smol.decode(second.row_ids[len(second.prompt_ids) :]) == "Paris 🗼.<|im_end|>"
    assert len(ChatTask().questions(rows, smol, 1000, 1)) == 1
    assert ChatTask().questions(rows, smol, len(second.prompt_ids), 5) == []


@pytest.mark.parametrize("template", [None, THINKING])
def test_an_answer_of_weight_0_is_read_and_not_learnt(tmp_path: Path, tiny: Any, template: str | None) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template or tiny.chat_template
    given = [{**TURNS[0], "weight": 1}, TURNS[1], {**TURNS[2], "weight": 0}, *TURNS[3:5], TURNS[5]]
    given.append({"role": "assistant", "content": "Hm.", "weight": 0})
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": given}) + "\n")
    rows = [RowFile("pvc://data/rows.jsonl", path)]
    data = ChatTask().read(rows, rows, DatasetPlan(train=[DataFile(source="pvc://data/rows.jsonl")]), 0)
    (example,) = ChatTask().encode(data.train, tokenizer, 500).examples
    (all_learnt,) = tokenize(TURNS[:5], tokenizer)[-1:]
    assert list(example.input_ids) == all_learnt[0]
    (learnt,) = said(tokenizer, list(example.input_ids), list(map(bool, example.targets)))
    assert "Rome" in learnt
    (question,) = ChatTask().questions(data.train, tokenizer, 500, 1)
    assert question.reference == TURNS[4]["content"]
