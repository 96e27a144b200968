"""A job whose precision is left open: chosen by what this machine does, kept by later attempts, told in its version."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from strop_trainer.batches import pad_pairs, target_logits
from strop_trainer.methods.loading import load_model, load_tokenizer
from strop_trainer.precision import choose_on_accelerator
from strop_trainer.roofline import Work, matmul_rate, work_of_model
from strop_trainer.tasks.encoder_decoder import SourceTarget
from tests.support.models import tiny_encoder_decoder, tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]

OPEN: dict[str, Any] = {
    "hyperparameters": {"precision": "auto", "gradient_checkpointing": "auto"},
    "evaluation": {"generate_rows": 0},
}


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Surroundings:
    surroundings = Surroundings(tmp_path_factory.mktemp("precision"))
    surroundings.write_rows()
    tiny_llama(surroundings.volumes / "models" / "tiny")
    return surroundings


def test_a_first_attempt_chooses_and_a_later_one_keeps_to_it(around: Surroundings) -> None:
    plan = make_plan(**OPEN)
    first = around.run(plan)
    assert first.code == 0, first
    note = around.work / "precision.json"
    chosen = json.loads(note.read_text())["precision"]
    assert f"precision: {chosen} (a matrix product reaches" in first.output
    told = json.loads((around.registry / "tuned" / "1" / "training.json").read_text())
    assert told["precision"] == chosen
    assert told["plan"]["hyperparameters"]["precision"] == "auto"
    assert told["gradientCheckpointing"] is True
    assert told["plan"]["hyperparameters"]["gradientCheckpointing"] == "auto"
    assert told["planDigest"] == plan.digest
    found = told["roofline"]
    assert 0 < found["flopsPerSecond"] < found["peakFlopsPerSecond"]
    share = found["flopsPerSecond"] / found["peakFlopsPerSecond"]
    assert f"{share:.0%} of the" in first.output

    other = "fp32" if chosen == "bf16" else "bf16"
    note.write_text(json.dumps({"plan": plan.digest, "precision": other}))
    around.uid = "22222222-2222-3333-4444-555555555555"
    again = around.run(plan)
    assert again.code == 0, again
    assert f"precision: {other} (as this job began)" in again.output
    assert json.loads((around.registry / "tuned" / "2" / "training.json").read_text())["precision"] == other


@pytest.mark.parametrize(("has_bf16", "chosen", "words"), [(True, "bf16", "has bf16"), (False, "fp32", "has no bf16")])
def test_an_accelerator_is_asked_whether_it_has_bf16_itself(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, chosen: str, words: str
) -> None:
    # As torch answers of a T4 or V100: bf16 can be emulated there, slowly.
    def answer(including_emulation: bool = True) -> bool:
        return has_bf16 or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", answer)
    precision, why = choose_on_accelerator("cuda")
    assert precision == chosen
    assert words in why


def test_the_work_of_a_model_is_that_of_its_linear_layers(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "tiny")
    hidden, inner, layers, vocabulary = 64, 128, 2, 512
    body = layers * (2 * hidden * hidden + 2 * hidden * hidden // 2 + 3 * hidden * inner)
    whole = AutoModelForCausalLM.from_pretrained(folder)
    assert work_of_model(whole) == Work(6 * body, 6 * hidden * vocabulary)
    adapted = load_model(folder, make_plan().training, load_tokenizer(folder))
    trained = adapted.trainable_parameters
    assert work_of_model(adapted.base) == Work(4 * body + 6 * trained, 4 * hidden * vocabulary)


@pytest.mark.parametrize(
    ("lora", "per_target"),
    [
        # One is trained in place of the original, which is kept beside it.
        ({"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]}, 6 * 64 * 512),
        ({"target_modules": ["q_proj", "lm_head"]}, 4 * 64 * 512 + 6 * 4 * (64 + 512)),
    ],
    ids=["trained in full", "with an adapter"],
)
def test_the_output_layer_works_on_targets_alone_whatever_is_around_it(
    tmp_path: Path, lora: dict[str, Any], per_target: int
) -> None:
    folder = tiny_llama(tmp_path / "tiny", tie_word_embeddings=False)
    body = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    plan = make_plan(method={"lora": {"rank": 4, "alpha": 8, "dropout": 0.0, **lora}}).training
    adapted = load_model(folder, plan, load_tokenizer(folder))
    assert work_of_model(adapted.base) == Work(4 * body + 6 * 2 * 4 * (64 + 64), per_target)


@pytest.mark.parametrize("architecture", ["t5", "bart", "marian", "mt5", "pegasus", "nllb", "mbart-50"])
def test_of_an_encoder_decoder_each_half_works_on_its_own_tokens(tmp_path: Path, architecture: str) -> None:
    base: Any = AutoModelForSeq2SeqLM.from_pretrained(tiny_encoder_decoder(tmp_path / "tiny", architecture))
    get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="SEQ_2_SEQ_LM"))
    base.eval().requires_grad_(requires_grad=False)
    batch = pad_pairs([SourceTarget(list(range(5, 25)), [], given=(1,), target_ids=tuple(range(30, 37)))], 0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        target_logits(base, batch)
    counts = counter.get_flop_counts()["Global"]
    linear = counts[torch.ops.aten.mm] + counts.get(torch.ops.aten.addmm, 0)
    work = work_of_model(base)
    assert (batch.tokens, batch.predicted) == (27, 7)
    # Frozen, a weight costs 4 operations a token: 2 forward, which torch has counted, and 2 backward.
    assert work.of(batch.tokens, batch.predicted) == 2 * linear


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_matrix_product_is_measured_and_randomness_left_alone(precision: Any) -> None:
    before = torch.get_rng_state()
    assert 1e8 < matmul_rate(precision, "cpu") < 1e14
    assert torch.equal(before, torch.get_rng_state())
