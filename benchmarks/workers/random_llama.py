"""A random Llama in bf16 with a tokenizer and a chat template, made in a process that leaves nothing on the GPU.

Reads one JSON object from standard input: out (folder), device (torch's name; an 8B takes seconds on a GPU),
configuration (of LlamaConfig).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.support.models import tiny_tokenizer


def main() -> None:
    """Entry point."""
    task = json.load(sys.stdin)
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: PLC0415

    out, tokenizer = Path(task["out"]), tiny_tokenizer()
    config = LlamaConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **task["configuration"],
    )
    torch.manual_seed(0)
    with torch.device(task["device"]):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(out, max_shard_size="4GB")
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
