"""An export as its consumers run it: plain ONNX Runtime for logits, ONNX Runtime GenAI for answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_NUMPY_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64"}
_ACTIVE = "adapter"


def decoder_of(folder: Path) -> dict[str, Any]:
    """Return what genai_config.json says of the decoder."""
    config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    decoder: dict[str, Any] = config["model"]["decoder"]
    return decoder


def model_file(folder: Path) -> Path:
    """Return the ONNX file that genai_config.json names."""
    return folder / str(decoder_of(folder)["filename"])


def weight_precision(folder: Path) -> str:
    """Return the precision of an export's weights as the graph has it: int4, int8, fp16, bf16 or fp32."""
    import onnx  # noqa: PLC0415 - only where it is used

    graph = onnx.load(model_file(folder), load_external_data=False).graph
    bits = {
        attribute.i
        for node in graph.node
        if node.op_type == "MatMulNBits"
        for attribute in node.attribute
        if attribute.name == "bits"
    }
    if bits:
        return f"int{min(bits)}"
    kinds = {tensor.data_type for tensor in graph.initializer}
    for kind, name in ((onnx.TensorProto.FLOAT16, "fp16"), (onnx.TensorProto.BFLOAT16, "bf16")):
        if kind in kinds:
            return name
    return "fp32"


class LogitsRunner:
    """Plain ONNX Runtime on the CPU, without a cache: whole rows at once."""

    def __init__(self, folder: Path, threads: int, adapter: Path | None = None) -> None:
        """Load the model; `threads` of one operator, as ONNX Runtime knows nothing of a container's quota.

        Args:
            folder: of the model.
            threads: of one operator.
            adapter: file for a base graph.
        """
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._run_options: Any = None
        if adapter is not None:
            options.log_severity_level = 3  # it warns of each input that has a default
            self._adapter = onnxruntime.LoraAdapter()  # must live as long as it is used
            self._adapter.Load(str(adapter))
            self._run_options = onnxruntime.RunOptions()
            self._run_options.add_active_adapter(self._adapter)
        self._session: Any = onnxruntime.InferenceSession(
            str(model_file(folder)), options, providers=["CPUExecutionProvider"]
        )
        decoder = decoder_of(folder)
        self._empty_cache = (1, int(decoder["num_key_value_heads"]), 0, int(decoder["head_size"]))

    def logits(self, row: Sequence[int], positions: int) -> Any:
        """Return float32 (P, V): the logits of the last `positions` positions of a row."""
        import numpy as np  # noqa: PLC0415

        length = len(row)
        known = {
            "input_ids": np.array([row], dtype=np.int64),
            "attention_mask": np.ones((1, length), dtype=np.int64),
            "position_ids": np.arange(length, dtype=np.int64)[None],
        }
        feeds: dict[str, Any] = {}
        for wanted in self._session.get_inputs():
            if wanted.name in known:
                feeds[wanted.name] = known[wanted.name]
            else:
                feeds[wanted.name] = np.zeros(self._empty_cache, dtype=_NUMPY_TYPES[wanted.type])
        (found,) = self._session.run(["logits"], feeds, self._run_options)
        return found[0, -positions:].astype(np.float32)


class AnswerRunner:
    """ONNX Runtime GenAI, with its own cache and search."""

    def __init__(self, folder: Path, threads: int, adapter: Path | None = None) -> None:
        """Load the model, and an adapter file for it if it is a base graph; `threads` of one operator."""
        import onnxruntime_genai as genai  # noqa: PLC0415

        config = genai.Config(str(folder))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        self._genai: Any = genai
        self._model: Any = genai.Model(config)
        self._adapters: Any = None
        if adapter is not None:
            self._adapters = genai.Adapters(self._model)
            self._adapters.load(str(adapter), _ACTIVE)

    def greedy(self, prompt: Sequence[int], max_new_tokens: int) -> list[int]:
        """Return the tokens of a greedy answer, the end of sequence included where it was reached."""
        import numpy as np  # noqa: PLC0415

        parameters = self._genai.GeneratorParams(self._model)
        parameters.set_search_options(do_sample=False, repetition_penalty=1.0, max_length=len(prompt) + max_new_tokens)
        generator = self._genai.Generator(self._model, parameters)
        if self._adapters is not None:
            generator.set_active_adapter(self._adapters, _ACTIVE)
        generator.append_tokens(np.array(prompt, dtype=np.int32))
        tokens: list[int] = []
        while not generator.is_done() and len(tokens) < max_new_tokens:
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
        return tokens

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return a conversation, rendered by the export's chat template with the runtime's own engine, and a prompt.

        Raises:
            RuntimeError: the engine cannot; it knows a part of Jinja.
        """
        tokenizer = self._genai.Tokenizer(self._model)
        return str(tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True))
