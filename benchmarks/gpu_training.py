"""LoRA and QLoRA of an 8B-shaped random Llama on one GPU, against TRL with Liger's kernels in the same run.

The model is made on the machine, nothing is downloaded but Liger itself. A tiny shape goes the same way on a CPU,
without Liger, for the tests: its figures mean nothing.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.contest import WORKERS, Turn, in_step_order, peer_turn, strop_turn, task_of
from benchmarks.quickstart import lay_out, quickstart_plan, run_python
from benchmarks.results import Goal, Result, table
from strop_trainer.plan import Plan
from tests.support.models import tiny_tokenizer

COMMAND = "make bench-gpu"
METHODS = ("lora", "qlora")
OURS, PEER = "Strop", "TRL SFTTrainer with Liger"
PUBLISHED = 12_473.0
"""Tokens a second, published for bf16 LoRA of an 8B Llama at 4096 tokens on one H100."""
WORDS = (
    "sharp",
    "blade",
    "edge",
    "leather",
    "stone",
    "water",
    "the",
    "a",
    "of",
    "and",
    "draws",
    "over",
    "keeps",
    "fine",
)


@dataclass(frozen=True)
class Shape:
    """What is trained, and on what."""

    model: str
    """Folder; the planner knows the shape of a preset by it."""
    configuration: dict[str, Any] = field(default_factory=dict)
    """Of a Llama."""
    length: int = 4096
    """Tokens of each row."""
    steps: int = 12
    batch: int = 8
    """Rows of a step."""
    micro: int = 2
    """Rows of a forward pass."""
    gpu: bool = True


LLAMA_8B = Shape(
    model="Meta-Llama-3-8B",
    configuration={
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
    },
)
TINY = Shape(
    model="tiny-1m",
    configuration={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    },
    length=320,
    steps=2,
    batch=2,
    micro=1,
    gpu=False,
)


def make_model(shape: Shape, folder: Path) -> Path:
    """Write the random model to a folder; return its own."""
    path = folder / shape.model
    device = "cuda" if shape.gpu else "cpu"
    task = {"out": str(path), "device": device, "configuration": shape.configuration}
    run_python("-m", f"{WORKERS}.random_llama", environment={}, text=json.dumps(task))
    return path


def make_rows(shape: Shape) -> list[bytes]:
    """Return conversations that are longer than the length, and are cut to it: nothing is padded by anyone."""
    source = random.Random(0)  # noqa: S311 - words, no secret
    tokenizer = tiny_tokenizer()
    rows = []
    for _ in range(shape.steps * shape.batch):
        said = " ".join(source.choices(WORDS, k=shape.length))
        messages = [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": said}]
        rows.append(json.dumps({"messages": messages}).encode() + b"\n")
    assert len(tokenizer(said)["input_ids"]) >= shape.length
    return rows


def plan_of(shape: Shape, method: str) -> Plan:
    """Return Strop's plan for a shape, with its own defaults but for what the peer shares."""
    pool: dict[str, Any] = {"cpuPerNode": "8", "memoryPerNode": "96Gi"}
    if shape.gpu:
        pool["accelerator"] = {"resourceName": "nvidia.com/gpu", "memory": "80Gi", "perNode": 1}
    training: dict[str, Any] = {
        "maxSteps": shape.steps,
        "maxLength": shape.length,
        "effectiveBatchSize": shape.batch,
        "microBatchSize": shape.micro,
        "precision": "bf16",
        "gradientCheckpointing": True,
    }
    return quickstart_plan(
        pool, model={"source": f"pvc://base-models/{shape.model}"}, method={"type": method}, training=training
    )


def contest(shape: Shape, method: str, folder: Path, model: Path) -> dict[str, Turn | str]:
    """Let both train with a method; a peer that did not says why."""
    plan, rows = plan_of(shape, method), make_rows(shape)
    numbers = plan.training.hyperparameters
    ordered = folder / "rows.jsonl"
    ordered.write_bytes(b"".join(in_step_order(rows, numbers.effective_batch_size, numbers.seed)))
    options = {"gradient_checkpointing": True, "use_liger_kernel": shape.gpu, "use_cpu": not shape.gpu}
    task = task_of(plan, model=model, rows=ordered, out=folder / "peer", micro=numbers.micro_batch_size)
    task = replace(task, options=options)

    def peer() -> Turn:
        more = {"PYTHONPATH": str(peers.packages_of("liger"))} if shape.gpu else {"CUDA_VISIBLE_DEVICES": ""}
        return peer_turn("trl_sft", task, environment=more)

    def ours() -> Turn:
        return strop_turn(lay_out(folder / "run", plan, b"".join(rows), model.parent), folder / "ours")

    found: dict[str, Turn | str] = {}
    contestants: dict[str, Callable[[], Turn]] = {OURS: ours, PEER: peer}
    for name, train in contestants.items():
        try:
            found[name] = train()
        except peers.PeerError as error:
            found[name] = str(error)
    return found


def measure(shape: Shape = LLAMA_8B) -> Result:
    """Run it.

    Raises:
        RuntimeError: the shape is one for a GPU, and there is none.
    """
    import torch  # noqa: PLC0415 - seconds

    if shape.gpu and not torch.cuda.is_available():
        raise RuntimeError(f"torch {torch.__version__} finds no GPU on this machine: {COMMAND} is for one that has one")
    goals: list[Goal] = []
    lines: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        model = make_model(shape, models)
        for method in METHODS:
            inner = Path(folder) / method
            inner.mkdir()
            turns = contest(shape, method, inner, model)
            goals += goals_of(method, turns)
            lines += [row_of(f"{method}: {name}", turn, turns[OURS]) for name, turn in turns.items()]
    card = torch.cuda.get_device_name() if shape.gpu else "a CPU, tiny shape: the figures mean nothing"
    return Result(
        title="Training on a GPU",
        command=COMMAND,
        method=(
            f"{card}. A random Llama of the shape of {shape.model}, bf16, adapters on all linear layers, gradient "
            f"checkpointing, {shape.steps} steps of {shape.batch} rows of {shape.length} tokens, {shape.micro} a "
            "forward pass; each in a process of its own, the same rows in the same steps. The share is of the "
            "bf16 matrix product that is measured on the card before training: 4 operations a frozen weight and token, "
            f"6 a trained one. Published for bf16 LoRA of an 8B model at 4096 on one H100: {PUBLISHED:,.0f} tokens/s."
        ),
        goals=goals,
        tables=[table(["", "tokens/s", "share of peak", "peak GiB of the card"], lines)],
    )


def goals_of(method: str, turns: dict[str, Turn | str]) -> list[Goal]:
    """Return ours against the peer's, and LoRA's against what is published."""
    ours, peer = turns[OURS], turns[PEER]
    assert isinstance(ours, Turn)
    goals = []
    if method == "lora":
        goals.append(Goal("lora: tokens/s", ours.tokens / ours.seconds, PUBLISHED, "tokens/s", at_most=False))
    if isinstance(peer, Turn):
        memory = ours.device_peak_bytes / peer.device_peak_bytes if peer.device_peak_bytes else 1.0
        goals += [
            Goal(f"{method}: tokens/s over TRL with Liger", peer.seconds / ours.seconds, 1.0, "x", at_most=False),
            Goal(f"{method}: the card's peak memory over TRL with Liger", memory, 1.0, "x"),
        ]
    return goals


def row_of(name: str, turn: Turn | str, ours: Turn | str) -> list[str]:
    """Return a row of the table; all do the work that is counted for ours."""
    if isinstance(turn, str):
        return [name, "did not run", "", turn]
    assert isinstance(ours, Turn)
    share = ours.flops / turn.seconds / ours.peak_rate
    return [name, f"{ours.tokens / turn.seconds:,.0f}", f"{share:.0%}", f"{turn.device_peak_bytes / 2**30:.1f}"]
