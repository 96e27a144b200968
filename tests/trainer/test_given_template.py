"""A chat template that a job gives: refused in words where it renders nothing, else learnt with and published."""

import json
from pathlib import Path
from typing import Any

import onnxruntime_genai
import pytest
from transformers import AutoTokenizer

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.export.genai import export_onnx
from strop_trainer.plan import ProofPlan
from strop_trainer.proof import prove
from strop_trainer.proof_rows import ProofRow
from strop_trainer.registry import verify
from strop_trainer.tasks.given_template import check_template
from tests.support.models import CHAT_TEMPLATE, tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = pytest.mark.trainer

GIVEN = (
    "{% for message in messages %}"
    "{{ '<|im_start|>[' + message['role'] + '] ' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>[assistant] ' }}{% endif %}"
)


@pytest.mark.parametrize(
    "template",
    [
        GIVEN,
        CHAT_TEMPLATE,
        # What templates of the hub use beside plain Jinja.
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}{% endgeneration %}"
        "{% else %}{{ strftime_now('%d %b %Y') ~ m.content ~ (tools | tojson if tools else '') }}{% endif %}"
        "{% endfor %}",
    ],
)
def test_a_template_that_renders_a_conversation_is_taken(template: str) -> None:
    check_template(template)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "{% for m in messages %}{{ m.content }}",
            r"does not render a question \(line 1\): Unexpected end",
        ),
        ("{{ messages | nothing }}", "does not render a question .*No filter named 'nothing'"),
        ("{{ messages[0].content.lower('x') }}", "does not render a question: .*argument"),
        ("{{ messages[0].text + '!' }}", "does not render a question: .*has no attribute 'text'"),
        ("messages", "leaves out what the user says: of 'What sharpens a blade\\?' it makes 'messages'"),
        ("{{ messages[0].content }}", "leaves out what the assistant says"),
        ("{{ messages[0].content }}{{ raise_exception('no such role') }}", "does not render a question: no such role"),
        (
            "{{ messages.__class__.__mro__ }}",
            "does not render a question: access to attribute '__class__' .*unsafe",
        ),
    ],
)
def test_a_template_that_does_not_render_is_refused_in_words(template: str, expected: str) -> None:
    with pytest.raises(TrainerError, match=f"model.chatTemplate: it {expected}") as caught:
        check_template(template)
    assert caught.value.exit_code == ExitCode.BAD_CONFIGURATION


def test_a_job_with_a_template_of_its_own_is_trained_with_it_and_publishes_it(tmp_path: Path) -> None:
    around = Surroundings(tmp_path)
    around.write_rows()
    folder = tiny_llama(around.volumes / "models" / "tiny")
    (folder / "chat_template.jinja").unlink()  # a base model that brings none
    plan = make_plan(
        model={"source": "pvc://models/tiny", "chat_template": GIVEN},
        artifact={"onnx": ["fp32"], "merged": True, "onnx_form": "both"},
        hyperparameters={"max_steps": 2},
    )
    ended = around.run(plan)
    assert ended.code == 0, ended.output + ended.errors
    version = around.registry / "tuned" / "1"
    assert verify(version) == []
    for name in ("adapter", "merged", "onnx", "onnx-adapter"):
        assert (version / name / "chat_template.jinja").read_text() == GIVEN, name
    messages = [{"role": "user", "content": "one two"}]
    expected = "<|im_start|>[user] one two<|im_end|>\n<|im_start|>[assistant] "
    ours: Any = AutoTokenizer.from_pretrained(version / "merged")
    assert ours.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == expected
    tokenizer = onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(str(version / "onnx")))
    assert tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True) == expected


def test_what_the_runtimes_own_engine_cannot_render_is_told(tmp_path: Path) -> None:
    merged = tiny_llama(tmp_path / "merged")
    messages = [{"role": "user", "content": "one two"}]
    row = ProofRow([*range(40, 60), 2], 10, "", messages)
    for number, (template, expected) in enumerate(
        {
            CHAT_TEMPLATE: "",
            GIVEN.replace("message['role']", "message['role'] | upper"): "it cannot render it: ",
        }.items()
    ):
        (merged / "chat_template.jinja").write_text(template)
        export_onnx(merged, tmp_path / f"onnx{number}", "fp32")
        (found,) = prove(merged, {"fp32": tmp_path / f"onnx{number}"}, [row], ProofPlan(), 2)
        assert found.passed
        assert found.template is not None
        assert found.template.startswith(expected)
        assert bool(found.template) == bool(expected)


def test_a_broken_template_ends_a_job_before_its_model_is_looked_at(tmp_path: Path) -> None:
    around = Surroundings(tmp_path)
    around.write_rows()
    ended = around.run(make_plan(model={"source": "pvc://models/missing", "chat_template": "{{ messages | nothing }}"}))
    assert ended.code == ExitCode.BAD_CONFIGURATION
    assert ended.message
    assert ended.message.stage == "check"
    assert "model.chatTemplate: it does not render a question" in ended.message.message
