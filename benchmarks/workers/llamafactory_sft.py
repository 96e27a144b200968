"""LLaMA-Factory's SFT, a peer of the training-speed benchmark, in an environment of its own.

Reads the task (`benchmarks.contest.Task`) as JSON from standard input, leaves the adapter in its folder and prints one
JSON object as its last line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.workers.said import peak_bytes, tell


def main() -> None:
    """Entry point."""
    task = json.load(sys.stdin)
    from llamafactory.train.tuner import run_exp  # noqa: PLC0415 - of its own environment

    out = Path(task["out"])
    data = out.parent / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "rows.jsonl").write_bytes(Path(task["rows"]).read_bytes())
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    shape = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags | {"system_tag": "system"}}
    (data / "dataset_info.json").write_text(
        json.dumps({"rows": {"file_name": "rows.jsonl", **shape}}), encoding="utf-8"
    )
    quantized = {"quantization_bit": 4, "quantization_method": "bnb"} if task["method"] == "qlora" else {}
    run_exp(
        {
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": task["model"],
            "template": "smollm2",
            "finetuning_type": "lora",
            "lora_target": "all",
            "lora_rank": task["rank"],
            "lora_alpha": task["alpha"],
            "lora_dropout": 0.0,
            "dataset": "rows",
            "dataset_dir": str(data),
            "cutoff_len": task["max_length"],
            "per_device_train_batch_size": task["micro"],
            "gradient_accumulation_steps": task["accumulation"],
            "max_steps": task["steps"],
            "learning_rate": task["learning_rate"],
            "weight_decay": 0.0,
            "warmup_steps": task["warmup_steps"],
            "lr_scheduler_type": task["scheduler"],
            "bf16": True,
            "flash_attn": "sdpa",
            # Memory that need not be saved is not paid for with time.
            "disable_gradient_checkpointing": True,
            # The rows are in their order already.
            "disable_shuffling": True,
            "use_cpu": True,
            "seed": 0,
            "preprocessing_num_workers": 1,
            "save_strategy": "no",
            "logging_steps": task["steps"],
            "report_to": "none",
            "disable_tqdm": True,
            "output_dir": str(out),
            **quantized,
        }
    )
    history = json.loads((out / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    tell(history, peak_bytes=peak_bytes())


if __name__ == "__main__":
    main()
