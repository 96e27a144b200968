"""Trainable tokens in front of a row: what the model answers with them is what it was trained to say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from strop_trainer.evaluation import answer
from strop_trainer.methods import load_adapter, load_model, load_tokenizer
from strop_trainer.methods.loading import LoadedModel
from strop_trainer.plan import PROMPT_METHODS, TrainingPlan
from strop_trainer.tasks.base import Question
from tests.support.models import tiny_llama
from tests.support.training import make_plan

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")]

TOKENS = 12
PROMPTS = ("blue", "What is the capital of France?", "A strop gives an already sharp blade its final edge.")


def plan_of(method: str) -> TrainingPlan:
    return make_plan(
        method={"type": method, "lora": None, "virtual_tokens": 5},
        hyperparameters={"packing": False, "precision": "fp32"},
        artifact={"onnx": []},
    ).training


@pytest.fixture(params=PROMPT_METHODS)
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    """A model whose answers go by all that it has read, and whose trainable tokens matter."""
    folder = tmp_path / "model"
    tiny_llama(folder, tie_word_embeddings=False)
    weights = load_file(folder / "model.safetensors")
    save_file({name: 6 * value for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    found = load_model(folder, plan_of(request.param), load_tokenizer(folder))
    for parameter in found.trainable.values():
        torch.nn.init.normal_(parameter, std=0.5)
    return found


def questions(tokenizer: Any) -> list[Question]:
    return [Question(ids, text, "", ids) for text in PROMPTS for ids in [tokenizer(text).input_ids]]


def greedy(model: Any, tokenizer: Any, prompt: list[int]) -> str:
    """Return an answer made from nothing but whole forward passes, as in training."""
    ids, new = list(prompt), []
    model.eval()
    with torch.no_grad():
        for _ in range(TOKENS):
            rows = torch.tensor([ids])
            token = int(model(input_ids=rows, attention_mask=torch.ones_like(rows)).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            ids.append(token)
            new.append(token)
    return str(tokenizer.decode(new, skip_special_tokens=True)).strip()


def test_answers_are_those_of_the_passes_of_training(loaded: LoadedModel, tmp_path: Path) -> None:
    asked = questions(loaded.tokenizer)
    expected = [greedy(loaded.model, loaded.tokenizer, question.prompt_ids) for question in asked]
    together = answer(loaded.model, loaded.tokenizer, asked, TOKENS)
    assert together == expected
    assert [answer(loaded.model, loaded.tokenizer, [question], TOKENS)[0] for question in asked] == expected
    loaded.save_adapter(tmp_path / "adapter", "https://host/base.tar.gz?signature=hidden")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "https://host/base.tar.gz"
    again = load_adapter(tmp_path / "adapter", loaded.folder, loaded.plan, torch.device("cpu"), exact=False)
    assert answer(again, loaded.tokenizer, asked, TOKENS) == expected


def test_the_base_answers_without_them(loaded: LoadedModel) -> None:
    asked = questions(loaded.tokenizer)
    with loaded.as_base() as base:
        found = answer(base, loaded.tokenizer, asked, TOKENS)
        expected = [greedy(base, loaded.tokenizer, question.prompt_ids) for question in asked]
    assert found == expected != answer(loaded.model, loaded.tokenizer, asked, TOKENS)


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning"])
def test_tokens_start_as_tokens_of_the_vocabulary(method: str, tmp_path: Path) -> None:
    tiny_llama(tmp_path / "model")
    model = load_model(tmp_path / "model", plan_of(method), load_tokenizer(tmp_path / "model")).model
    vocabulary = model.get_input_embeddings().weight
    with torch.no_grad():
        distances = (model.get_prompt(1)[0][:, None] - vocabulary).norm(dim=-1)
    assert distances.min(dim=1).values.max() < 1e-4 < vocabulary.norm(dim=-1).median()


def test_answers_do_not_go_by_the_model_s_own_settings(loaded: LoadedModel) -> None:
    asked = questions(loaded.tokenizer)
    expected = [greedy(loaded.model, loaded.tokenizer, question.prompt_ids) for question in asked]
    own = loaded.model.generation_config
    own.repetition_penalty, own.no_repeat_ngram_size, own.num_beams = 5.0, 1, 4
    assert answer(loaded.model, loaded.tokenizer, asked, TOKENS) == expected
    assert loaded.model.generation_config is own
    assert loaded.model.get_base_model().generation_config is own
