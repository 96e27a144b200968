"""A base graph that LoRA adapters share, and an adapter as a file for it.

The graph is the base model's with a LoRA branch beside each adapted layer. The branch's matrices are inputs of the
graph whose default is nothing, so that without an adapter it answers as the base model; ONNX Runtime's adapter file
gives them values at run time. Their rank is left open: one graph serves adapters of any.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

from strop_trainer.errors import TrainerError, bad_configuration
from strop_trainer.exit_codes import ExitCode
from strop_trainer.export.exportable import check_exportable
from strop_trainer.export.genai import build
from strop_trainer.export.runners import model_file
from strop_trainer.plan import ONNX_ADAPTER_MODULES, OnnxPrecision

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
RANK: Final = "adapter_rank"
"""Name of the open dimension."""
_KEY: Final = re.compile(r"\.layers\.(\d+)\.(self_attn|mlp)\.(\w+)\.lora_([AB])\.weight$")
_PARTS: Final = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Layers that the builder takes apart."""
_ERRORS_ONLY: Final = 3


@dataclass(frozen=True, order=True)
class Matrix:
    """One matrix of an adapter, by the layer of the model that it is for."""

    layer: int
    block: Literal["attn", "mlp"]
    module: str
    side: Literal["A", "B"]

    def nodes(self) -> tuple[str, ...]:
        """Return the names of the graph's nodes that multiply by it; the rows of B are shared among them."""
        parts = _PARTS.get(self.module, (self.module,))
        return tuple(f"/model/layers.{self.layer}/{self.block}/{part}/lora_{self.side}/MatMul" for part in parts)


def matrices_of(names: Sequence[str]) -> dict[str, Matrix]:
    """Return name in the PEFT file → matrix.

    Raises:
        TrainerError: a layer is adapted that a base graph has no input for (exit 78).
    """
    found: dict[str, Matrix] = {}
    for name in names:
        match = _KEY.search(name)
        if match is None or match[3] not in ONNX_ADAPTER_MODULES:
            raise bad_configuration(
                f"method.lora.targetModules: found {name}, an ONNX adapter has {', '.join(ONNX_ADAPTER_MODULES)}; "
                "with `output.onnx.form: merged` any layer may be adapted"
            )
        block: Literal["attn", "mlp"] = "attn" if match[2] == "self_attn" else "mlp"
        found[name] = Matrix(int(match[1]), block, match[3], "A" if match[4] == "A" else "B")
    return found


def adapted_layers(adapter: Path) -> list[str]:
    """Return the layers that a PEFT adapter is for, such as `3.self_attn.q_proj`, sorted."""
    from safetensors import safe_open  # noqa: PLC0415

    with safe_open(adapter / WEIGHTS, framework="np") as opened:
        matrices = matrices_of(list(opened.keys())).values()
    return sorted({f"{matrix.layer}.{matrix.block}.{matrix.module}" for matrix in matrices})


def build_base(model: Path, adapter: Path, out: Path, precision: OnnxPrecision) -> None:
    """Build a base graph for adapters like a given one: of the same layers, whatever their rank and values.

    Args:
        model: Hugging Face folder of the base model.
        adapter: PEFT folder; which layers it is for is all that counts.
        out: the folder to make; it must not exist.
        precision: of the base model's weights. The adapters' stay in fp32.

    Raises:
        TrainerError: the architecture or a layer is not supported (78), or the builder failed (70).
    """
    check_exportable(model)
    with tempfile.TemporaryDirectory() as temporary:
        empty, base = Path(temporary) / "adapter", Path(temporary) / "base"
        matrices = _write_empty(adapter, empty)
        _link_as_fp32(model, base)
        nodes = sorted({node for matrix in matrices for node in matrix.nodes()})
        # Quantized they would be constants.
        quantized = [f"nodes_to_exclude={','.join(nodes)}"] if precision != "fp32" else []
        build(base, out, precision, [f"adapter_path={empty}", *quantized])
    opened = _open_inputs(model_file(out))
    if missing := {_initializer(node) for node in nodes} - opened:
        raise TrainerError(
            ExitCode.INTERNAL, f"ONNX base graph in {precision}: the builder left out {sorted(missing)[0]}"
        )
    config = json.loads((out / "genai_config.json").read_text(encoding="utf-8"))
    # ONNX Runtime warns of each input that has a default.
    config["model"]["decoder"].setdefault("session_options", {})["log_severity_level"] = _ERRORS_ONLY
    (out / "genai_config.json").write_text(json.dumps(config, indent=4), encoding="utf-8")


def write_adapter(adapter: Path, base: Path, out: Path) -> None:
    """Write a PEFT LoRA adapter as ONNX Runtime's adapter file for a base graph.

    Args:
        adapter: PEFT folder.
        base: folder of a base graph for its layers.
        out: the file, `….onnx_adapter`.

    Raises:
        TrainerError: the graph is for other layers (exit 70).
    """
    import onnx  # noqa: PLC0415 - only where it is used
    import onnxruntime  # noqa: PLC0415

    graph = onnx.load(model_file(base), load_external_data=False).graph
    widths = {
        entry.name: [dimension.dim_value for dimension in entry.type.tensor_type.shape.dim] for entry in graph.input
    }
    parameters = _parameters(adapter, widths)
    wanted = {name for name in widths if ".lora_" in name}
    if set(parameters) != wanted:
        differs = sorted(set(parameters) ^ wanted)[0]
        raise TrainerError(ExitCode.INTERNAL, f"ONNX adapter: the base graph is for other layers, such as {differs}")
    file: Any = onnxruntime.AdapterFormat()
    file.set_adapter_version(1)
    file.set_model_version(1)
    # The values point into `parameters`, which must live until they are written.
    file.set_parameters({name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in parameters.items()})
    file.export_adapter(str(out))


def builder() -> str:
    """Return name and version of what builds."""
    return f"onnxruntime-genai {version('onnxruntime-genai')}"


def scale_of(config: Mapping[str, Any]) -> float:
    """Return what PEFT multiplies B A by, from adapter_config.json."""
    rank: int = config["r"]
    return float(config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank))


def _parameters(adapter: Path, widths: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return input → float32 matrix: A as (inputs, rank), B with its scale as (rank, outputs)."""
    import numpy as np  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415 - torch reads bf16

    tensors = load_file(adapter / WEIGHTS)
    scale = scale_of(json.loads((adapter / CONFIG).read_text(encoding="utf-8")))
    parameters: dict[str, Any] = {}
    for name, matrix in matrices_of(list(tensors)).items():
        values, begin = tensors[name].float().numpy().T, 0
        for node in matrix.nodes():
            target = _initializer(node)
            if matrix.side == "A":
                parameters[target] = np.ascontiguousarray(values)
                continue
            width = widths[target][1] if target in widths else values.shape[1]
            parameters[target] = np.ascontiguousarray(values[:, begin : begin + width] * np.float32(scale))
            begin += width
    return parameters


def _write_empty(adapter: Path, out: Path) -> list[Matrix]:
    """Write an adapter of rank 1 that does nothing, for the layers of another; return its matrices."""
    import numpy as np  # noqa: PLC0415
    from safetensors import safe_open  # noqa: PLC0415
    from safetensors.numpy import save_file  # noqa: PLC0415

    with safe_open(adapter / WEIGHTS, framework="np") as opened:
        shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118 - no mapping
    matrices = matrices_of(list(shapes))
    empty = {
        name: np.zeros((1, shape[1]) if matrices[name].side == "A" else (shape[0], 1), dtype=np.float32)
        for name, shape in shapes.items()
    }
    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    out.mkdir()
    save_file(empty, out / WEIGHTS, metadata={"format": "pt"})
    (out / CONFIG).write_text(json.dumps(config | {"r": 1, "lora_alpha": 1, "use_rslora": False}), encoding="utf-8")
    return list(matrices.values())


def _link_as_fp32(model: Path, out: Path) -> None:
    """Make a folder of links to a model's files whose configuration asks for fp32, as the builder computes so."""
    out.mkdir()
    for file in model.iterdir():
        if file.is_file() and file.name != "config.json":
            (out / file.name).symlink_to(file.resolve())
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    (out / "config.json").write_text(json.dumps(config | {"dtype": "float32"}), encoding="utf-8")


def _open_inputs(path: Path) -> set[str]:
    """Make the adapters' matrices inputs with a default, of any rank; return their names."""
    import onnx  # noqa: PLC0415

    model = onnx.load(path, load_external_data=False)
    names = set()
    for tensor in model.graph.initializer:
        if ".lora_" not in tensor.name:
            continue
        shape = [tensor.dims[0], RANK] if ".lora_A." in tensor.name else [RANK, tensor.dims[1]]
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, shape))
        names.add(tensor.name)
    # What was said of the rank within the graph, which is inferred again.
    kept = [value for value in model.graph.value_info if "lora_" not in value.name]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    onnx.save(model, path)
    return names


def _initializer(node: str) -> str:
    """Return the name of the matrix that a node multiplies by."""
    return node.removeprefix("/").replace("/", ".") + ".weight"
