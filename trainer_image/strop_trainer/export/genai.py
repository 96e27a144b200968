"""ONNX by onnxruntime-genai's model builder: a folder that ONNX Runtime GenAI and plain ONNX Runtime load."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.export.exportable import check_exportable
from strop_trainer.plan import OnnxPrecision

EXECUTION_PROVIDER = "cpu"


def export_onnx(merged: Path, out: Path, precision: OnnxPrecision) -> None:
    """Build genai_config.json, model.onnx, its data, tokenizer and chat template in the folder `out`.

    Args:
        merged: Hugging Face folder of the merged model.
        out: the folder to make; it must not exist.
        precision: of the weights. Activations are fp32, whatever the weights are.

    Raises:
        TrainerError: the architecture is not supported (78), or the builder failed (70) with its last words.
    """
    check_exportable(merged)
    build(merged, out, precision)


def build(model: Path, out: Path, precision: OnnxPrecision, options: Sequence[str] = ()) -> None:
    """Run the builder; `options` are its extra ones, as `name=value`.

    Raises:
        TrainerError: it failed (70), with its last words.
    """
    # The builder's own output is hundreds of lines; it is shown where it failed.
    output = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as cache,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        from onnxruntime_genai.models.builder import create_model, parse_extra_options  # noqa: PLC0415 - seconds

        arguments = (None, str(model), str(out), precision, EXECUTION_PROVIDER, cache)
        try:
            # A cache of the window's size is what ONNX Runtime GenAI 0.18 cannot fill with a longer prompt.
            parsed = parse_extra_options(*arguments, ["hf_token=false", "windowed_kv_cache=false", *options])
            _name_as_read(parsed["hf_details"]["hf_config"])
            with _windows_unscaled():
                create_model(*arguments, **parsed)
        except Exception as error:
            shutil.rmtree(out, ignore_errors=True)
            last = " | ".join(output.getvalue().strip().splitlines()[-3:])
            raise TrainerError(
                ExitCode.INTERNAL, f"ONNX export in {precision} failed: {type(error).__name__}: {error} ({last})"
            ) from error


@contextlib.contextmanager
def _windows_unscaled() -> Iterator[None]:
    """Let builder 0.18 scale the positions of Gemma 3's layers that see all, and not of those that see a window."""
    from onnxruntime_genai.models.builder import Gemma3Model  # noqa: PLC0415 - the class that it makes, not a second one

    inherited = Gemma3Model.make_rotary_embedding_caches_from_scratch

    def caches(self: Any) -> Any:
        if hasattr(self, "cos_cache_local_name"):  # the builder names these when the global ones are made
            self.rope_attrs["rescale_factors"] = 1
        return inherited(self)

    Gemma3Model.make_rotary_embedding_caches_from_scratch = caches
    try:
        yield
    finally:
        del Gemma3Model.make_rotary_embedding_caches_from_scratch


def _name_as_read(config: Any) -> None:
    """Give a configuration the names by which builder 0.18 reads what transformers 5 writes under others."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":  # Phi-3 128k, Phi-3.5, Phi-4-mini
        rope["type"] = "longrope"
    if "full_attention" in rope:  # Gemma 3: positions of its own for layers that see a window
        config.rope_local_base_freq = rope["sliding_attention"]["rope_theta"]
        config.rope_parameters = dict(rope["full_attention"])
    if getattr(config, "sliding_window", None) and not getattr(config, "layer_types", None):
        # Phi-3 4k, early Mistral: each layer sees a window, which would be left out.
        config.layer_types = ["sliding_attention"] * config.num_hidden_layers
