"""axolotl's SFT, a peer of the training-speed benchmark, in an environment of its own.

Reads the task (`benchmarks.contest.Task`) as JSON from standard input, leaves the adapter in its folder and prints one
JSON object as its last line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from axolotl.cli.config import load_cfg
from axolotl.common.datasets import load_datasets
from axolotl.integrations.base import BasePlugin
from axolotl.train import train

from benchmarks.workers.said import peak_bytes, tell


class OnCpu(BasePlugin):  # type: ignore[misc]
    """Hands on what axolotl's configuration has no field for: without it, bf16 is refused where there is no GPU."""

    def get_training_args(self, cfg: Any) -> dict[str, Any]:
        """Return more of the Trainer's arguments."""
        del cfg
        return {"use_cpu": True}


def main() -> None:
    """Entry point."""
    task = json.load(sys.stdin)
    sys.argv = sys.argv[:1]
    out = Path(task["out"])
    out.parent.mkdir(parents=True, exist_ok=True)
    config = {
        "base_model": task["model"],
        "adapter": task["method"],
        "load_in_4bit": task["method"] == "qlora",
        "lora_r": task["rank"],
        "lora_alpha": task["alpha"],
        "lora_dropout": 0.0,
        "lora_target_linear": True,
        "datasets": [
            {"path": task["rows"], "ds_type": "json", "type": "chat_template", "field_messages": "messages"},
        ],
        "dataset_prepared_path": str(out.parent / "prepared"),
        "dataset_num_proc": 1,
        "sequence_len": task["max_length"],
        "micro_batch_size": task["micro"],
        "gradient_accumulation_steps": task["accumulation"],
        "max_steps": task["steps"],
        "num_epochs": 1,
        "learning_rate": task["learning_rate"],
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "warmup_steps": task["warmup_steps"],
        "lr_scheduler": task["scheduler"],
        "optimizer": "adamw_torch_fused",
        "bf16": True,
        "attn_implementation": "sdpa",
        # Left out, its kernels for a GPU are chosen without one, too.
        "lora_mlp_kernel": False,
        "lora_qkv_kernel": False,
        "lora_o_kernel": False,
        # Memory that need not be saved is not paid for with time.
        "gradient_checkpointing": False,
        # The rows are in their order already.
        "curriculum_sampling": True,
        "shuffle_merged_datasets": False,
        "seed": 0,
        "save_strategy": "no",
        "logging_steps": task["steps"],
        "plugins": ["benchmarks.workers.axolotl_sft.OnCpu"],
        "output_dir": str(out),
    }
    file = out.parent / "axolotl.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    settings = load_cfg(str(file))
    _, _, trainer = train(cfg=settings, dataset_meta=load_datasets(cfg=settings))
    history = trainer.state.log_history
    tell(history, peak_bytes=peak_bytes())


if __name__ == "__main__":
    main()
