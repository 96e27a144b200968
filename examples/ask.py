"""Ask one held-out question of the base model (PyTorch) and of a published version (ONNX Runtime GenAI).

    python examples/ask.py BASE_MODEL_FOLDER VERSION_FOLDER [QUESTION]

Left out, the question is the first held-out row of the version's report.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnxruntime_genai as genai
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

MAX_NEW_TOKENS = 64


def ask_base(folder: Path, messages: list[dict[str, str]]) -> str:
    """Return the base model's greedy answer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    answer: str = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return answer


def ask_onnx(folder: Path, messages: list[dict[str, str]]) -> str:
    """Return the tuned ONNX model's greedy answer."""
    model = genai.Model(str(folder))
    tokenizer = genai.Tokenizer(model)
    prompt = tokenizer.encode(tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(prompt) + MAX_NEW_TOKENS, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(prompt)
    tokens = []
    while not generator.is_done():
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    answer: str = tokenizer.decode(tokens)
    return answer


def main() -> None:
    """Entry point."""
    logging.disable_progress_bar()
    base, version = Path(sys.argv[1]), Path(sys.argv[2])
    if len(sys.argv) > 3:
        messages = [{"role": "user", "content": sys.argv[3]}]
    else:
        messages = json.loads((version / "training.json").read_text(encoding="utf-8"))["samples"][0]["messages"]
    print("question:   ", messages[-1]["content"])
    print("base:       ", ask_base(base, messages).strip())
    print("tuned, ONNX:", ask_onnx(version / "onnx", messages).strip())


main()
