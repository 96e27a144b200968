"""ONNX by torch.onnx for models that put out labels: one pass, no cache; and what both sides give on the same rows."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import OnnxPrecision
from strop_trainer.tasks.labelled import LabelledExample, Outputs

FILE: Final = "model.onnx"
EXTERNAL_BYTES: Final = 2**30
"""Weights of more lie in a file of their own, beside the graph, which may not have 2 GiB."""
PRECISIONS: Final[tuple[OnnxPrecision, ...]] = ("fp32", "int8")


def model_inputs(examples: Sequence[LabelledExample], pad_id: int) -> dict[str, Any]:
    """Return rows below each other, padded on the right: int64 (R, L) each."""
    import torch  # noqa: PLC0415 - seconds, only where it is used

    longest = max(len(example.input_ids) for example in examples)

    def rows(values: Sequence[Sequence[int]], fill: int) -> Any:
        return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in values], dtype=torch.long)

    inputs = {
        "input_ids": rows([example.input_ids for example in examples], pad_id),
        "attention_mask": rows([[1] * len(example.input_ids) for example in examples], 0),
    }
    if examples[0].segments:
        inputs["token_type_ids"] = rows([example.segments for example in examples], 0)
    return inputs


def split_rows(outputs: Sequence[Any], examples: Sequence[LabelledExample]) -> list[Outputs]:
    """Return each row's part of a pass's outputs, as float32 arrays; where each token has one, without padding."""
    return [
        tuple(found[row, : len(example.input_ids)].copy() if example.places else found[row] for found in outputs)
        for row, example in enumerate(examples)
    ]


def export_encoder(
    merged: Path,
    out: Path,
    precision: OnnxPrecision,
    *,
    auto_class: str,
    outputs: Sequence[str],
    example: LabelledExample,
) -> None:
    """Write model.onnx with free batch and sequence axes, configuration with its labels, and tokenizer to `out`.

    Args:
        merged: Hugging Face folder of the merged model.
        out: the folder to make; it must not exist.
        precision: of the weights of the matrix products. int8 is onnxruntime's dynamic quantization.
        auto_class: of transformers.
        outputs: names of what the model puts out.
        example: a row to trace the model with.

    Raises:
        TrainerError: the exporter failed (exit 70), with its words.
    """
    import transformers  # noqa: PLC0415 - seconds

    out.mkdir(parents=True)
    model: Any = getattr(transformers, auto_class).from_pretrained(
        merged, dtype="float32", use_safetensors=True, local_files_only=True, attn_implementation="eager"
    )
    with exporting(precision):
        _trace(model.eval(), out / FILE, outputs, example)
        if precision == "int8":
            quantize(out / FILE)
    transformers.AutoConfig.from_pretrained(merged, local_files_only=True).save_pretrained(out)
    # Whoever loads the tokenizer gets exactly what the graph reads.
    names = list(model_inputs([example], 0))
    transformers.AutoTokenizer.from_pretrained(merged, local_files_only=True, model_input_names=names).save_pretrained(
        out
    )


@contextlib.contextmanager
def exporting(precision: OnnxPrecision) -> Iterator[None]:
    """Keep the exporters quiet, and tell in words where one fails.

    Raises:
        TrainerError: one did (exit 70).
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch and onnxscript, about their own names
            yield
    except Exception as error:
        words = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        raise TrainerError(
            ExitCode.INTERNAL, f"ONNX export in {precision} failed: {type(error).__name__}: {words}"
        ) from error


def _trace(model: Any, file: Path, outputs: Sequence[str], example: LabelledExample) -> None:
    # Two rows of unequal length: an axis of one would be taken for a constant.
    short = LabelledExample(example.input_ids[: max(2, len(example.input_ids) - 1)], [], segments=example.segments[:-1])
    inputs = model_inputs([example, short], model.config.pad_token_id or 0)

    def forward(model: Any, **given: Any) -> tuple[Any, ...]:
        found = model(**given)
        return tuple(getattr(found, name) for name in outputs)

    write_graph(model, forward, file, inputs, outputs)


def write_graph(
    model: Any, forward: Callable[..., Any], file: Path, inputs: Mapping[str, Any], outputs: Sequence[str]
) -> None:
    """Write what a function computes with a model; the first two axes of each input are free.

    Args:
        model: whose weights the graph holds.
        forward: model and inputs by name → a tensor, or a tuple of them.
        file: to write; weights of more than a GiB go to a file beside it.
        inputs: to trace with. An axis of one would be taken for a constant.
        outputs: names.
    """
    import torch  # noqa: PLC0415

    class Plain(torch.nn.Module):
        """Takes tensors by place."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Any) -> Any:
            return forward(self.model, **dict(zip(inputs, values, strict=True)))

    program = torch.onnx.export(
        Plain(),
        tuple(inputs.values()),
        dynamo=True,
        input_names=list(inputs),
        output_names=list(outputs),
        # How long rows may be is the model's own affair, which the exporter finds out.
        dynamic_shapes={"values": tuple({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for _ in inputs)},
        verbose=False,
    )
    program.save(str(file), external_data=sum(p.numel() for p in model.parameters()) * 4 > EXTERNAL_BYTES)


def quantize(file: Path) -> None:
    """Replace the weights of matrix products by 8 bits, one scale a column, in place.

    Seven of the eight bits are used: on CPUs without VNNI, products of eight would overflow.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    exact, data = file.with_name("exact.onnx"), file.with_name(f"{file.name}.data")
    file.rename(exact)
    # The weights in 8 bits get a file of the same name.
    made = file.parent / "quantized" / file.name
    made.parent.mkdir()
    quantize_dynamic(
        exact,
        made,
        use_external_data_format=data.exists(),
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gemm"],
        extra_options={"MatMulConstBOnly": True},
    )
    exact.unlink()
    data.unlink(missing_ok=True)
    for new in made.parent.iterdir():
        new.rename(file.with_name(new.name))
    made.parent.rmdir()


def run_torch(
    merged: Path, auto_class: str, outputs: Sequence[str], batches: Sequence[Sequence[LabelledExample]]
) -> list[Outputs]:
    """Return what PyTorch in fp32 gives for each row."""
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    model: Any = (
        getattr(transformers, auto_class)
        .from_pretrained(merged, dtype=torch.float32, use_safetensors=True, local_files_only=True)
        .eval()
    )
    rows: list[Outputs] = []
    with torch.inference_mode():
        for examples in batches:
            found = model(**model_inputs(examples, model.config.pad_token_id or 0))
            rows += split_rows([getattr(found, name).float().numpy() for name in outputs], examples)
    return rows


def run_onnx(
    folder: Path, outputs: Sequence[str], batches: Sequence[Sequence[LabelledExample]], pad_id: int, threads: int
) -> list[Outputs]:
    """Return what ONNX Runtime on the CPU gives for each row."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session: Any = onnxruntime.InferenceSession(str(folder / FILE), options, providers=["CPUExecutionProvider"])
    wanted = {found.name for found in session.get_inputs()}
    rows: list[Outputs] = []
    for examples in batches:
        inputs = {name: value.numpy() for name, value in model_inputs(examples, pad_id).items() if name in wanted}
        rows += split_rows(session.run(list(outputs), inputs), examples)
    return rows


def weight_precision(file: Path) -> OnnxPrecision:
    """Return the precision of an export's weights as the graph has it."""
    import onnx  # noqa: PLC0415

    graph = onnx.load(file, load_external_data=False).graph
    return "int8" if any("MatMulInteger" in node.op_type for node in graph.node) else "fp32"
