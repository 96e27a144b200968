"""A first estimate of the memory of a LoRA run, before anything is fetched.

It leans towards too much: a job that is refused can be given more, one that is killed half-way has wasted its time.
All sizes are bytes of one rank; shapes are (B, T) = (rows, tokens) of one forward pass.
"""

from __future__ import annotations

from typing import Final

from strop.planning.presets import Shape
from strop.planning.quantities import GIB
from strop_trainer.plan import LoraPlan, MemoryEstimate, Precision, TrainingPlan

BYTES: Final[dict[Precision, int]] = {"fp32": 4, "bf16": 2, "fp16": 2}
RUNTIME_BYTES: Final = GIB
"""Python, torch, transformers and their buffers in a process without a model: 0.5 GiB seen, and slack."""
ACCELERATOR_RUNTIME_BYTES: Final = GIB
"""Context of the accelerator's driver and kernels' workspaces."""
FRAGMENTATION: Final = 1.1
"""What the caching allocator of an accelerator holds over what is in use."""
HEAP_FRAGMENTATION: Final = 1.5
"""The same for the C library's heap, which activations of many sizes leave with holes: 1.4 to 1.5 seen."""

_MASTER_BYTES: Final = 4
_ADAM_BYTES: Final = 8
"""Two fp32 moments a trained parameter (Kingma & Ba 2015)."""


def lora_parameters(shape: Shape, lora: LoraPlan) -> int:
    """Return how many parameters LoRA trains: rank x (inputs + outputs) of each adapted layer (Hu et al. 2021, §4.1).

    Named target modules are counted as if all linear layers were adapted: their shapes are not known by name.
    """
    return shape.layers * sum(lora.rank * (inputs + outputs) for inputs, outputs in shape.linear_layers)


def activation_bytes(shape: Shape, training: TrainingPlan) -> int:
    """Return what is kept for the backward pass of one forward pass, logits included.

    Counted by what autograd saves, in the manner of Korthikanti et al. 2022 ("Reducing Activation Recomputation in
    Large Transformer Models", §4.1); the T x T attention matrix is missing, since fused attention never stores it.
    A token and layer:

    - both norms' inputs, in fp32;
    - queries, keys and values as attention reads them, and its output;
    - gate, its activation and up;
    - each adapted layer's input, which PEFT casts to fp32 for the adapter, and dropout's mask and output besides.

    The frozen weights' own inputs are not saved. On SmolLM2-135M this is 36.9 kB, and 56.8 kB with dropout; 57.1 kB was
    measured there. With gradient checkpointing (Chen et al. 2016) a layer keeps its input alone, and one layer at a
    time the rest. Logits are (T, vocabulary) in compute precision and three times in fp32: cast, normalised, gradient.
    All tokens are taken to have a target, which is an upper bound for chat.
    """
    h = training.hyperparameters
    size = BYTES[h.precision]
    tokens = h.micro_batch_size * h.max_length
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    adapted = sum(inputs for inputs, _ in shape.linear_layers)
    copies = 2 if training.method.lora and training.method.lora.dropout else 1
    token = (
        2 * _MASTER_BYTES * shape.hidden
        + size * (2 * queries + 2 * keys + 3 * shape.intermediate)
        + copies * _MASTER_BYTES * adapted
    )
    layer = tokens * token
    layers = shape.layers * tokens * size * shape.hidden + layer if h.gradient_checkpointing else shape.layers * layer
    logits = tokens * shape.vocabulary * (size + 3 * _MASTER_BYTES)
    return layers + logits


def export_bytes(parameters: int) -> int:
    """Return the host memory that export and proof need beside the runtime.

    The adapter is merged into fp32 weights, and the ONNX builder holds a second copy while it writes; the proof runs
    the fp32 export beside PyTorch: two copies at a time.
    """
    return 2 * parameters * BYTES["fp32"]


def estimate_memory(
    shape: Shape, parameters: int, training: TrainingPlan, lora: LoraPlan, *, accelerator: bool, basis: str
) -> MemoryEstimate:
    """Return the estimate for the memory that training uses: the accelerator's, or the pod's on a CPU.

    On a CPU `overhead` also covers by how much export needs more than training, since both share the pod's memory.
    """
    trained = lora_parameters(shape, lora)
    weights = parameters * BYTES[training.hyperparameters.precision] + trained * _MASTER_BYTES
    gradients = trained * _MASTER_BYTES
    optimizer = trained * _ADAM_BYTES
    activations = activation_bytes(shape, training)
    in_use = weights + gradients + optimizer + activations
    if accelerator:
        overhead = ACCELERATOR_RUNTIME_BYTES + round(in_use * (FRAGMENTATION - 1))
    else:
        training_peak = in_use + round(activations * (HEAP_FRAGMENTATION - 1))
        overhead = RUNTIME_BYTES + max(training_peak, export_bytes(parameters)) - in_use
    return MemoryEstimate(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        overhead=overhead,
        total=in_use + overhead,
        basis=basis,
    )


def host_bytes(parameters: int) -> int:
    """Return the memory of a pod that trains on an accelerator: it loads the weights, and exports on the CPU."""
    return RUNTIME_BYTES + export_bytes(parameters)


def work_volume_bytes(parameters: int, *, downloads: bool) -> int:
    """Return the size of the work volume: the merged fp32 weights, checkpoints of the adapter, and a model fetched."""
    fp32 = parameters * BYTES["fp32"]
    return 2 * fp32 + (fp32 if downloads else 0) + 2 * GIB
