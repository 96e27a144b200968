"""TRL's SFTTrainer, a peer of the benchmarks of training.

Reads the task (`benchmarks.contest.Task`) as JSON from standard input, with `options` of SFTConfig, leaves the adapter
in its folder and prints one JSON object as its last line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.workers.said import peak_bytes, tell


def quantization() -> Any:
    """Return QLoRA's: NF4, double quantization, computed in bf16."""
    import torch  # noqa: PLC0415
    from transformers import BitsAndBytesConfig  # noqa: PLC0415

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def main() -> None:
    """Entry point."""
    task = json.load(sys.stdin)
    import torch  # noqa: PLC0415
    from datasets import Dataset  # noqa: PLC0415
    from peft import LoraConfig  # noqa: PLC0415
    from transformers import AutoTokenizer, set_seed  # noqa: PLC0415
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415

    set_seed(0)
    rows = [json.loads(line) for line in Path(task["rows"]).read_text(encoding="utf-8").splitlines()]
    # Prompt and completion, so that the loss is on the assistant's tokens, as ours is.
    data = Dataset.from_list([{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows])
    loading: dict[str, Any] = {"dtype": "bfloat16"}
    if task["method"] == "qlora":
        loading["quantization_config"] = quantization()
    config = SFTConfig(
        task["out"],
        max_steps=task["steps"],
        logging_steps=task["steps"],
        per_device_train_batch_size=task["micro"],
        gradient_accumulation_steps=task["accumulation"],
        learning_rate=task["learning_rate"],
        warmup_steps=task["warmup_steps"],
        lr_scheduler_type=task["scheduler"],
        max_length=task["max_length"],
        # The rows are in their order already.
        train_sampling_strategy="sequential",
        model_init_kwargs=loading,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=0,
        **task["options"],
    )
    trainer = SFTTrainer(
        task["model"],
        config,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(task["model"]),
        peft_config=LoraConfig(
            r=task["rank"], lora_alpha=task["alpha"], target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    trainer.train()
    peak = peak_bytes()
    trainer.model.save_pretrained(task["out"])
    device_peak = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    tell(trainer.state.log_history, peak_bytes=peak, device_peak_bytes=device_peak)


if __name__ == "__main__":
    main()
