"""Logits of many positions are never held at once, and the loss is the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from strop.planning.presets import ARCHITECTURES
from strop_trainer import chunked_logits
from strop_trainer.batches import Batch, pack, pad
from strop_trainer.chunked_logits import summed
from strop_trainer.evaluation import held_out_metrics
from strop_trainer.heads.preference import PairBatch, answer_log_probabilities
from strop_trainer.methods.prompts import use_prompt
from strop_trainer.tasks.base import Example
from tests.support.models import tiny_llama

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]

VOCABULARY, CHUNK = 512, 8
ROWS = [Example(list(range(3, 33)), [False] * 10 + [True] * 20), Example(list(range(40, 59)), [False] + [True] * 18)]


@pytest.fixture
def widest(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bound the logits to 8 positions; return of how many positions the output layers give some at a time."""
    monkeypatch.setattr(chunked_logits, "LOGITS_BYTES", 4 * VOCABULARY * CHUNK)
    return []


def load(path: Path, widest: list[int], **configuration: Any) -> Any:
    folder = tiny_llama(path / "model", tie_word_embeddings=False, **configuration)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.lm_head.register_forward_hook(lambda _layer, _read, logits: widest.append(logits.numel() // VOCABULARY))
    return model


def gradients(model: Any, batch: Batch) -> dict[str, Any]:
    model.zero_grad()
    loss = summed(model, batch)
    loss.backward()
    found = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    return {"loss": loss.detach(), **found}


@pytest.mark.parametrize("batch", [pack(ROWS[:1]), pad(ROWS, 0)], ids=["packed", "padded"])
@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
def test_loss_and_gradients_are_those_of_all_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, widest: list[int], batch: Batch, adapted: bool
) -> None:
    batch.inputs.pop("row_lengths", None)
    model = load(tmp_path, widest)
    if adapted:
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    found = gradients(model, batch)
    assert max(widest) == CHUNK
    with monkeypatch.context() as whole:
        whole.setattr(chunked_logits, "LOGITS_BYTES", 1 << 30)
        expected = gradients(model, batch)
    assert max(widest) >= batch.predicted
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_what_is_measured_on_held_out_rows_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, widest: list[int]
) -> None:
    model, batches = load(tmp_path, widest), [pad(ROWS, 0)]
    found = held_out_metrics(model, batches)
    assert max(widest) == CHUNK
    with monkeypatch.context() as whole:
        whole.setattr(chunked_logits, "LOGITS_BYTES", 1 << 30)
        assert found == pytest.approx(held_out_metrics(model, batches), rel=1e-6)


def test_what_pairs_are_given_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, widest: list[int]) -> None:
    model, sides = load(tmp_path, widest), pad(ROWS, 0)
    batch = PairBatch(
        sides.inputs,
        sides.keep,
        sides.select,
        sides.labels,
        sides.tokens,
        lengths=(20, 18),
        reference=torch.zeros(1, 2),
    )
    found = answer_log_probabilities(model, batch)
    assert found.shape == (1, 2)
    assert max(widest) == CHUNK
    with monkeypatch.context() as whole:
        whole.setattr(chunked_logits, "LOGITS_BYTES", 1 << 30)
        torch.testing.assert_close(found, answer_log_probabilities(model, batch))


def test_an_output_layer_that_is_adapted_gives_all_at_once(tmp_path: Path, widest: list[int]) -> None:
    adapter = LoraConfig(r=4, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM")
    model, batch = get_peft_model(load(tmp_path, widest), adapter), pad(ROWS, 0)
    summed(model, batch)
    assert max(widest) >= batch.predicted > CHUNK


def test_with_tokens_in_front_of_each_row_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, widest: list[int]
) -> None:
    adapter = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model: Any = get_peft_model(load(tmp_path, widest), adapter)
    use_prompt(model)
    found = gradients(model, pad(ROWS, 0))
    assert max(widest) == CHUNK
    with monkeypatch.context() as whole:
        whole.setattr(chunked_logits, "LOGITS_BYTES", 1 << 30)
        expected = gradients(model, pad(ROWS, 0))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", [name for name, kind in ARCHITECTURES.items() if not kind.encoder_decoder])
def test_what_the_planner_counts_in_parts_is_taken_in_parts(
    tmp_path: Path, widest: list[int], architecture: str
) -> None:
    kind, *_ = (kind for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if name == architecture)
    summed(load(tmp_path, widest, architecture=kind), pad(ROWS, 0))
    assert max(widest) == CHUNK


@pytest.mark.parametrize(
    ("architecture", "own"),
    [("gemma2", {"final_logit_softcapping": 1.0}), ("granite", {"logits_scaling": 8.0}), ("cohere", {})],
)
def test_a_model_that_scales_its_logits_has_them_at_once(
    tmp_path: Path, widest: list[int], architecture: str, own: dict[str, Any]
) -> None:
    model = load(tmp_path, widest, architecture=architecture, **own)
    batch = pad(ROWS, 0)
    for _ in range(2):
        found = summed(model, batch)
        whole = model(**batch.inputs).logits[:, batch.keep].flatten(0, 1)[batch.select]
        torch.testing.assert_close(found, chunked_logits.cross_entropy(whole, batch.labels))
    assert max(widest) > batch.predicted > CHUNK
