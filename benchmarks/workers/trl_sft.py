"""TRL's SFTTrainer with its own defaults: the peer of the training-speed benchmark.

Reads one JSON object from standard input (model, rows, steps, rank, alpha, learning_rate, max_length, options) and
prints one.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Entry point."""
    task = json.load(sys.stdin)
    from datasets import Dataset  # noqa: PLC0415
    from peft import LoraConfig  # noqa: PLC0415
    from transformers import AutoTokenizer, set_seed  # noqa: PLC0415
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415

    set_seed(0)
    rows = [json.loads(line) for line in Path(task["rows"]).read_text(encoding="utf-8").splitlines()]
    # Prompt and completion, so that the loss is on the assistant's tokens, as ours is.
    data = Dataset.from_list([{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows])
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(
            out,
            max_steps=task["steps"],
            logging_steps=task["steps"],
            learning_rate=task["learning_rate"],
            max_length=task["max_length"],
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            seed=0,
            **task["options"],
        )
        trainer = SFTTrainer(
            task["model"],
            config,
            train_dataset=data,
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=task["rank"], lora_alpha=task["alpha"], target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    history = trainer.state.log_history
    tokens = max(entry.get("num_tokens", 0) for entry in history)
    losses = [entry["loss"] for entry in history if "loss" in entry]
    print(
        json.dumps(
            {
                "seconds": seconds,
                "tokens": tokens,
                "loss": losses[-1],
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


main()
