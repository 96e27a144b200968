"""The GPU benchmark's way, gone on a CPU with a tiny shape: what runs where a GPU is has run here but for its size."""

from pathlib import Path

import pytest
import torch

from benchmarks import gpu_training
from benchmarks.__main__ import PAGE, page, sections
from benchmarks.contest import Turn, in_step_order
from benchmarks.gpu_training import LLAMA_8B, OURS, PEER, TINY
from benchmarks.results import Goal
from strop_trainer.batches import step_rows


def test_a_tiny_shape_goes_all_the_way(tmp_path: Path) -> None:
    model = gpu_training.make_model(TINY, tmp_path / "models")
    turns = gpu_training.contest(TINY, "lora", tmp_path, model)
    ours, peer = turns[OURS], turns[PEER]
    assert isinstance(ours, Turn)
    assert isinstance(peer, Turn), peer
    assert ours.tokens == TINY.steps * TINY.batch * TINY.length
    assert 0 < ours.flops / ours.seconds < ours.peak_rate
    assert peer.seconds > 0
    assert (tmp_path / "ours" / "adapter_model.safetensors").exists()
    assert (tmp_path / "peer" / "adapter_model.safetensors").exists()
    assert gpu_training.row_of("lora: Strop", ours, ours)[0] == "lora: Strop"
    assert [goal.name.split(":")[0] for goal in gpu_training.goals_of("lora", turns)] == ["lora"] * 3


def test_writing_the_page_again_changes_nothing() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(sections(text)) == text


def test_the_plan_of_the_large_shape_is_for_one_gpu() -> None:
    plan = gpu_training.plan_of(LLAMA_8B, "qlora")
    assert plan.placement.resources.accelerators == 1
    assert plan.training.hyperparameters.max_length == 4096
    assert plan.placement.estimate is not None
    assert "llama-3-8b" in plan.placement.estimate.basis


def test_a_peer_that_did_not_run_is_told_not_compared() -> None:
    ours = Turn(seconds=2.0, peak_bytes=1, device_peak_bytes=10, tokens=30_000, flops=100, peak_rate=100.0)
    turns = {OURS: ours, PEER: "no GPU kernels here"}
    assert gpu_training.goals_of("qlora", turns) == []
    assert gpu_training.row_of("qlora: TRL", turns[PEER], ours) == [
        "qlora: TRL",
        "did not run",
        "",
        "no GPU kernels here",
    ]
    (published,) = gpu_training.goals_of("lora", turns)
    assert published == Goal("lora: tokens/s", 15_000.0, 12_473.0, "tokens/s", at_most=False)


def test_peers_get_the_rows_of_each_step_the_longest_first() -> None:
    rows = [b"x" * length for length in range(1, 9)]
    ordered = in_step_order(rows, 4, seed=1)
    for step in range(2):
        part = ordered[4 * step : 4 * step + 4]
        assert sorted(part) == sorted(rows[at] for at in step_rows(step, 8, 4, 1))
        assert part == sorted(part, key=len, reverse=True)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="finds no GPU on this machine"):
        gpu_training.measure()
