import random
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from strop_trainer import batches
from strop_trainer.documents import TrainingDocument
from strop_trainer.tasks.base import Example
from strop_trainer.tasks.preference import Pair
from tests.support.models import tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = pytest.mark.trainer

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}


def example(seed: int, length: int) -> Example:
    chance = random.Random(seed)
    ids = [chance.randrange(3, 250) for _ in range(length)]
    return Example(ids, [False] + [chance.random() < 0.5 for _ in range(length - 2)] + [True])


EXAMPLES = [example(seed, length) for seed, length in enumerate((5, 17, 9, 30, 2))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny")


def load(folder: Path, attention: str = "sdpa") -> Any:
    batches.register_attention()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.set_attn_implementation(attention)
    return model.eval()


def plain_loss(model: Any, examples: list[Example]) -> Any:
    """Sum of the losses, row by row, by transformers' own loss on all logits."""
    total = torch.zeros(())
    for row in examples:
        ids = torch.tensor([row.input_ids])
        labels = ids.masked_fill(~torch.tensor([list(map(bool, row.targets))]), -100)
        labels[:, 0] = -100
        total = total + model(input_ids=ids, labels=labels).loss * row.target_count
    return total


def loss_of(model: Any, batch: batches.Batch) -> Any:
    return torch.nn.functional.cross_entropy(batches.target_logits(model, batch), batch.labels, reduction="sum")


@pytest.mark.parametrize("packed", [True, False])
def test_packed_padded_and_plain_loss_and_gradient_are_equal(folder: Path, packed: bool) -> None:
    plain = load(folder)
    expected = plain_loss(plain, EXAMPLES)
    expected.backward()
    model = load(folder, batches.ATTENTION if packed else "sdpa")
    batch = batches.pack(EXAMPLES) if packed else batches.pad(EXAMPLES, 0)
    found = loss_of(model, batch)
    found.backward()
    assert batch.targets == sum(row.target_count for row in EXAMPLES)
    assert batch.tokens == 63
    assert abs(float((found - expected).detach())) / float(expected.detach()) < 1e-5
    for (name, one), other in zip(plain.named_parameters(), model.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=2e-4, rtol=1e-3), name


FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma3_text": {"sliding_window": 8, "query_pre_attn_scalar": 16, "layers": 6},
}
RUN_TOLERANCE = {"fp32": 1e-5, "bf16": 1e-2}
"""Of the loss on held-out rows after 8 steps, nats: 5e-7 and 3e-3 seen. On a CPU, attention of packed rows is computed
in fp32, and that of padded ones in the plan's precision."""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_run_comes_to_the_same_packed_and_padded(tmp_path: Path, family: str, precision: str) -> None:
    around = Surroundings(tmp_path)
    around.write_rows(train=16, held=8)
    tiny_llama(around.volumes / "models" / "tiny", architecture=family, **FAMILIES[family])
    found = {}
    for packed in (True, False):
        # Dropout's masks are those of a pass, whose rows are shared otherwise.
        plan = make_plan(
            method={"lora": LORA},
            hyperparameters={"packing": packed, "precision": precision, "max_steps": 8, "micro_batch_size": 4},
            evaluation={"generate_rows": 0},
        )
        around.uid = f"00000000-0000-0000-0000-00000000000{int(packed)}"
        shutil.rmtree(around.work)
        around.work.mkdir()
        ended = around.run(plan)
        assert ended.code == 0, ended.output + ended.errors
        document = around.registry / "tuned" / str(len(found) + 1) / "training.json"
        found[packed] = TrainingDocument.model_validate_json(document.read_bytes())
    one, other = found[True], found[False]
    assert (one.packed, other.packed) == (True, False)
    before, after = one.metrics_base["eval_loss"], one.metrics_tuned["eval_loss"]
    assert before is not None
    assert after is not None
    assert before - after > 0.4
    assert other.metrics_tuned["eval_loss"] == pytest.approx(after, abs=RUN_TOLERANCE[precision], rel=0)


def test_a_model_without_logits_to_keep_gives_the_same_loss(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = loss_of(load(folder), batches.pad(EXAMPLES, 0))
    monkeypatch.setattr(batches, "keeps_logits", lambda _model: False)
    assert torch.equal(loss_of(load(folder), batches.pad(EXAMPLES, 0)), expected)


def test_rows_stay_apart_only_by_our_attention(folder: Path) -> None:
    apart, words = batches.keeps_rows_apart(load(folder, batches.ATTENTION), 250)
    assert apart
    assert "from itself alone" in words


def test_a_model_that_mixes_rows_is_found_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mixing(module, query, key, value, attention_mask, **more):  # type: ignore[no-untyped-def]
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return found.transpose(1, 2).contiguous(), None

    monkeypatch.setattr(batches, "_segments", mixing)
    apart, words = batches.keeps_rows_apart(load(folder, batches.ATTENTION), 250)
    assert not apart
    assert words == "a row changes when the row before it does"
    monkeypatch.undo()
    batches.register_attention()


def test_attention_with_extra_terms_is_refused_so_that_rows_are_padded(folder: Path) -> None:
    model = load(folder, batches.ATTENTION)
    original = model.forward
    model.forward = lambda **inputs: original(**inputs, softcap=30.0)
    apart, words = batches.keeps_rows_apart(model, 250)
    assert not apart
    assert "NotImplementedError" in words


@pytest.mark.parametrize("window", [4, 16, 64])
def test_a_sliding_window_is_kept_within_packed_rows(tmp_path: Path, window: int) -> None:
    folder = tiny_llama(tmp_path / "m", architecture="mistral")

    def windowed(attention: str) -> Any:
        model = load(folder)
        model.config.sliding_window = window
        model.config.use_cache = False
        model.set_attn_implementation(attention)
        return model

    expected = plain_loss(windowed("eager"), EXAMPLES)
    found = loss_of(windowed(batches.ATTENTION), batches.pack(EXAMPLES))
    assert abs(float((found - expected).detach())) / float(expected.detach()) < 1e-5


def test_micro_batches_hold_every_row_once_within_their_size() -> None:
    rows = [example(seed, 2 + seed * 7 % 40) for seed in range(23)]
    for packed in (True, False):
        for size in (1, 4, 23, 50):
            passes = batches.micro_batches(rows, size, packed=packed)
            assert sorted(map(id, (row for part in passes for row in part))) == sorted(map(id, rows))
            assert max(map(len, passes)) <= size
            assert len(passes) == -(-23 // size)


def test_packed_passes_hold_about_the_same_tokens() -> None:
    rows = [example(seed, 2 + seed * 7 % 40) for seed in range(24)]
    tokens = [sum(len(row.input_ids) for row in part) for part in batches.micro_batches(rows, 6, packed=True)]
    assert max(tokens) - min(tokens) <= 40


def test_packed_passes_are_bounded_by_tokens_but_for_long_rows() -> None:
    rows = [example(seed, 2 + seed * 7 % 40) for seed in range(24)]
    passes = batches.micro_batches([*rows, example(99, 200)], 25, packed=True, tokens=100)
    assert sorted(sum(len(row.input_ids) for row in part) for part in passes)[-2] <= 140
    assert [len(part) for part in passes if any(len(row.input_ids) == 200 for row in part)] == [1]
    assert len(batches.micro_batches(rows, 24, packed=True, tokens=1)) == 24


class Counted(list[int]):
    """Tokens that count how often they are asked for their number."""

    asked = 0

    def __len__(self) -> int:
        Counted.asked += 1
        return super().__len__()


@pytest.mark.parametrize(("size", "tokens"), [(2, 512), (8, 512), (8, None)])
def test_a_million_held_out_rows_would_be_shared_in_seconds(size: int, tokens: int | None) -> None:
    chance = random.Random(3)
    rows = [example(seed, chance.randrange(2, 400)) for seed in range(500)]
    for row in rows:
        object.__setattr__(row, "input_ids", Counted(row.input_ids))
    Counted.asked = 0
    passes = batches.micro_batches(rows, size, packed=True, tokens=tokens)
    assert Counted.asked <= 4 * len(rows)
    # Longest first, each row to the first of the emptiest passes that have a place.
    expected: list[list[Example]] = [[] for _ in passes]
    for row in sorted(rows, key=lambda row: -len(row.input_ids)):
        places = [part for part in expected if len(part) < size]
        min(places, key=lambda part: sum(len(row.input_ids) for row in part)).append(row)
    assert passes == expected


@pytest.mark.parametrize("packed", [True, False])
def test_a_long_row_does_not_change_the_positions_of_short_ones(tmp_path: Path, packed: bool) -> None:
    factors = {"short_factor": [1.0] * 8, "long_factor": [50.0] * 8}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32, **factors}
    model = load(
        tiny_llama(tmp_path / "phi", architecture="phi3", original_max_position_embeddings=32, rope_parameters=rope),
        batches.ATTENTION if packed else "sdpa",
    )
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.qkv_proj.weight.mul_(20)  # so that it matters what a token attends to
    rows = [example(seed, length) for seed, length in enumerate((20, 32, 33, 40))]
    assert batches.switch_of(model.config) == 32

    def loss(parts: list[list[Example]]) -> float:
        made = [batches.pack(part) if packed else batches.pad(part, 0) for part in parts]
        with torch.no_grad():
            return float(sum(loss_of(model, batch) for batch in made))

    alone = loss([[row] for row in rows])
    passes = batches.micro_batches(batches.with_sides(rows, 32), 4, packed=packed)
    assert [sorted(len(row.input_ids) for row in part) for part in passes] == [[20, 32], [33, 40]]
    assert loss(passes) == pytest.approx(alone, rel=1e-6)
    assert loss([rows]) != pytest.approx(alone, rel=1e-5)


def test_the_longer_answer_of_a_pair_tells_on_which_side_it_is() -> None:
    pairs = [Pair([5] * 50, [True] * 50, chosen) for chosen in (25, 18, 17)]
    assert [pair.stretched for pair in batches.with_sides(pairs, 32)] == [False, False, True]
    assert batches.with_sides(pairs, None) == pairs


def test_each_epoch_sees_every_row_once_in_an_order_of_its_own() -> None:
    epochs = [[row for step in range(e * 4, e * 4 + 4) for row in batches.step_rows(step, 10, 3, 5)] for e in range(3)]
    assert all(sorted(order) == list(range(10)) for order in epochs)
    assert all(one != other for one, other in pairwise(epochs))
    assert batches.step_rows(3, 10, 3, 5) == epochs[0][9:]
    assert batches.step_rows(0, 10, 3, 6) != batches.step_rows(0, 10, 3, 5)
