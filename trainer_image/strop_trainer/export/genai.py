"""ONNX by onnxruntime-genai's model builder: a folder that ONNX Runtime GenAI and plain ONNX Runtime load."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from strop_trainer.errors import TrainerError, bad_configuration
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import OnnxPrecision

ARCHITECTURES = frozenset(
    {
        "GraniteForCausalLM",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Phi3ForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "SmolLM3ForCausalLM",
    }
)
"""Those whose export is proven right by our tests; the builder knows more."""

EXECUTION_PROVIDER = "cpu"


def architecture_of(model: Path) -> str:
    """Return the architecture that a Hugging Face folder names, or its model type, or `unknown`."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    named = config.get("architectures") or [config.get("model_type") or "unknown"]
    return str(named[0])


def check_exportable(model: Path) -> None:
    """Refuse a model whose architecture cannot be exported, before anything is trained.

    Raises:
        TrainerError: the architecture is not supported (exit 78).
    """
    found = architecture_of(model)
    if found not in ARCHITECTURES:
        raise bad_configuration(
            f"model: found architecture {found}, ONNX export supports {', '.join(sorted(ARCHITECTURES))}; "
            "with `output.onnx: []` the adapter alone is published"
        )


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
            parsed = parse_extra_options(*arguments, ["hf_token=false", *options])
            create_model(*arguments, **parsed)
        except Exception as error:
            shutil.rmtree(out, ignore_errors=True)
            last = " | ".join(output.getvalue().strip().splitlines()[-3:])
            raise TrainerError(
                ExitCode.INTERNAL, f"ONNX export in {precision} failed: {type(error).__name__}: {error} ({last})"
            ) from error
