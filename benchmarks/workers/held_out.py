"""Loss of several adapters on the same held-out rows: PEFT on the unquantized base in fp32, the assistant's tokens.

Reads one JSON object from standard input (model; rows, a JSONL file; max_length; adapters, name → PEFT folder) and
prints name → nats a token as its last line; "base" is the model without an adapter.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from strop_trainer.batches import Batch, pad
from strop_trainer.methods.loading import load_tokenizer
from strop_trainer.tasks.base import Example
from strop_trainer.tasks.chat import tokenize

BATCH = 13


def batches(task: dict[str, Any]) -> list[Batch]:
    """Return the rows in padded batches."""
    tokenizer = load_tokenizer(Path(task["model"]))
    rows = [json.loads(line)["messages"] for line in Path(task["rows"]).read_text(encoding="utf-8").splitlines()]
    cut = task["max_length"]
    found = [Example(ids[:cut], hits[:cut]) for row in rows for ids, hits in tokenize(row, tokenizer)]
    found.sort(key=lambda example: len(example.input_ids))
    return [pad(found[at : at + BATCH], tokenizer.pad_token_id) for at in range(0, len(found), BATCH)]


def loss(model: Any, rows: list[Batch]) -> float:
    """Return the mean over all tokens that count."""
    import torch  # noqa: PLC0415

    total = 0.0
    with torch.inference_mode():
        for batch in rows:
            logits = model(**batch.inputs, use_cache=False, logits_to_keep=batch.keep).logits.flatten(0, 1)
            total += float(torch.nn.functional.cross_entropy(logits[batch.select], batch.labels, reduction="sum"))
    return total / sum(batch.targets for batch in rows)


def main() -> None:
    """Entry point."""
    task = json.load(sys.stdin)
    import torch  # noqa: PLC0415
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    rows = batches(task)
    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32).eval()
    losses = {"base": loss(model, rows)}
    for name, folder in task["adapters"].items():
        tuned = PeftModel.from_pretrained(model, folder).eval()
        losses[name] = loss(tuned, rows)
        model = tuned.unload()
    print(json.dumps(losses))


if __name__ == "__main__":
    main()
