"""A first estimate of the memory of a run, before anything is fetched.

It leans towards too much: a job that is refused can be given more, one that is killed half-way has wasted its time.
All sizes are bytes of one rank; h is the width of the model, a token and layer that of one token in one layer.
"""

from __future__ import annotations

from typing import Final

from strop.api.quantities import GIB
from strop.planning.preference import sequences_of
from strop.planning.presets import Shape
from strop_trainer.plan import (
    CPU_PASS_TOKENS,
    LABEL_TASKS,
    LOGITS_BYTES,
    PROOF_LOGITS_BYTES,
    ZERO_BUCKET,
    MemoryEstimate,
    OnnxPrecision,
    Precision,
    Task,
    TrainingPlan,
)

BYTES: Final[dict[Precision, int]] = {"auto": 2, "fp32": 4, "bf16": 2, "fp16": 2}
"""Of a number; auto is planned as bf16, and is fp32 only where there is room."""
FP32: Final = BYTES["fp32"]
NF4_BYTES: Final = 0.52
"""A weight in 4 bits, and its share of a block's scale, itself of 8 bits (Dettmers et al. 2023, §3): 0.516."""
_QUANTIZED_BYTES: Final[dict[OnnxPrecision, float]] = {"int8": 1.2, "int4": 0.63}
"""A weight of an ONNX graph, and its share of a block's scale and zero point: int4 has an fp32 scale a block of 32."""
RUNTIME_BYTES: Final = GIB
"""Python, torch, transformers and their buffers in a process without a model: 0.9 GiB seen, and slack."""
LAUNCHER_BYTES: Final = GIB // 2
"""What starts the ranks of a pod and waits for them: Python and torch without a model, 0.3 GiB seen."""
ACCELERATOR_RUNTIME_BYTES: Final = GIB
"""Context of the accelerator's driver and kernels' workspaces."""
FRAGMENTATION: Final = 1.1
"""What the caching allocator of an accelerator holds over what is in use."""
HEAP_FRAGMENTATION: Final = 1.5
"""The same for the C library's heap, which activations of many sizes leave with holes: 1.4 to 1.5 seen. Logits are so
large that they go back to the system at once."""

_PADDED: Final[frozenset[Task]] = frozenset({*LABEL_TASKS, "question-answering"})
"""Tasks whose rows are not packed, or not by every kind of model."""
_ATTENTION: Final = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
"""Target modules that leave experts alone."""
_HEAD: Final = "lm_head"
"""Name of the output layer in the models that have a preset."""
_ADAM_BYTES: Final = 8
"""Two fp32 moments a trained parameter (Kingma & Ba 2015)."""


def trained_parameters(shape: Shape, parameters: int, training: TrainingPlan) -> int:
    """Return how many parameters a method trains.

    - full: all.
    - lora, qlora: rank x (inputs + outputs) of each adapted layer (Hu et al. 2021, §4.1); dora: and a magnitude an
      output (Liu et al. 2024, §4.1). Named target modules are counted as if all linear layers were adapted, and each
      module to save as the largest there is, the embedding: their shapes are not known by name. Each expert, of width h
      and inner width m, has factors of its own, those of gate and up of twice the rank: rank x (3 h + 5 m) for 3 h m
      weights, as PEFT has it.
    - ia3: a factor for each key, value and inner activation of the MLP (Liu et al. 2022, §3.3).
    - prompt-tuning: the tokens; prefix-tuning: a key and a value of each in each layer; p-tuning: the tokens, and
      three linear layers that make them, as PEFT has it.
    """
    method = training.method
    virtual, keys = method.virtual_tokens or 0, shape.kv_heads * shape.head_dim
    if method.lora is not None:
        rank = method.lora.rank
        layer = sum(rank * (inputs + outputs) for inputs, outputs in shape.linear_layers)
        if method.type == "dora":
            layer += sum(outputs for _, outputs in shape.linear_layers)
        adapted = shape.layers * layer
        named = method.lora.target_modules
        if shape.expert is not None and (named == "all-linear" or not _ATTENTION.issuperset(named)):
            width, inner = shape.expert
            weights = max(0, parameters - _embeddings(shape))
            adapted += round(rank * weights * (3 * width + 5 * inner) / (3 * width * inner))
        return adapted + len(method.lora.modules_to_save) * shape.vocabulary * shape.hidden
    if method.type == "ia3":
        return shape.layers * (2 * keys + shape.intermediate)
    if method.type == "prefix-tuning":
        return shape.layers * virtual * 2 * keys
    if method.type == "p-tuning":
        return virtual * shape.hidden + 3 * (shape.hidden + 1) * shape.hidden
    return virtual * shape.hidden if method.type == "prompt-tuning" else parameters


def weight_bytes(shape: Shape, parameters: int, training: TrainingPlan) -> int:
    """Return the weights while they are trained: what is trained in fp32, what is frozen in the compute precision.

    QLoRA has linear layers in 4 bits, embeddings and head in fp32; a model that gives labels has a head of a few rows
    in place of the output layer, which is left out here.
    """
    if training.method.type == "full":
        return FP32 * parameters
    adapter = FP32 * trained_parameters(shape, parameters, training)
    if training.method.type == "qlora":
        embeddings = _embeddings(shape)
        kept = shape.vocabulary * shape.hidden if training.task in LABEL_TASKS else embeddings
        return FP32 * kept + round(NF4_BYTES * max(0, parameters - embeddings)) + adapter
    return BYTES[training.hyperparameters.precision] * parameters + adapter


def pass_tokens(training: TrainingPlan, *, accelerator: bool) -> int:
    """Return the most tokens of one forward pass, those that a method puts in front of each row included.

    On a CPU, packed rows are shared among passes of CPU_PASS_TOKENS on average, the longest first, each to the pass
    with the fewest tokens that has a place. Hence a pass with less than the average may get a row as long as what it
    has, and the pass of the longest row gets no more than its share of an average one besides.
    """
    h, sequences = training.hyperparameters, sequences_of(training.task)
    rows, length = h.micro_batch_size, sequences * h.max_length
    tokens = rows * (length + sequences * (training.method.virtual_tokens or 0))
    if accelerator or not _packs(training):
        return tokens
    filled = CPU_PASS_TOKENS + min(length, CPU_PASS_TOKENS)
    longest = length + CPU_PASS_TOKENS - CPU_PASS_TOKENS // rows
    return min(tokens, max(filled, longest))


def layer_bytes(shape: Shape, training: TrainingPlan, *, accelerator: bool) -> int:
    """Return what the layers keep of one forward pass for the backward pass.

    Counted by what autograd saves, in the manner of Korthikanti et al. 2022 ("Reducing Activation Recomputation in
    Large Transformer Models", §4.1); the T x T attention matrix is missing, since fused attention never stores it.
    With gradient checkpointing (Chen et al. 2016) a layer keeps its input alone, and one layer at a time the rest; auto
    is counted as with it, which is what is needed at least.
    """
    tokens = pass_tokens(training, accelerator=accelerator)
    layer = tokens * token_bytes(shape, training, accelerator=accelerator) + _kept_of_weights(shape, training)
    if training.hyperparameters.gradient_checkpointing is False:
        return shape.layers * layer
    return shape.layers * tokens * _stream_bytes(training) * shape.hidden + layer


def token_bytes(shape: Shape, training: TrainingPlan, *, accelerator: bool) -> int:
    """Return what is kept of a token and layer.

    By any method:

    - both norms' inputs, in fp32;
    - queries, keys and values as attention reads them, and its output; packed rows are read in fp32 on a CPU;
    - gate, its activation and up.

    lora, qlora and full keep the linear layers' inputs besides: the norms' outputs, attention's and the MLP's product;
    and of the adapter a few columns. full trains the norms, which keep what they scale. qlora computes in fp32 around
    its 4 bits. The other ways of PEFT cast what they read: dora keeps the input of each layer in fp32 and both outputs
    that its magnitudes scale, ia3 the MLP's product. Dropout keeps a mask and what it lets through, but for lora, whose
    masks are made again.

    SmolLM2-135M in bf16, packed, on a CPU, as measured (and by this count): lora 26.8 kB (26.7), full 31.7 (31.1),
    dora 71.5 (71.3), with dropout 101.6 (101.6), qlora 42.8 (42.7), with dropout 69.4 (69.6), ia3 26.9 (28.0); padded:
    lora 22.5 (22.5), prompt- and p-tuning 17.0 (16.9), prefix-tuning 18.7 (18.4).
    """
    method, packed = training.method, _packs(training)
    size = _compute_bytes(training)
    read = FP32 if packed and not accelerator else size
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    inputs = sum(inputs for inputs, _ in shape.linear_layers)
    outputs = sum(outputs for _, outputs in shape.linear_layers)
    dropout = method.lora is not None and method.lora.dropout > 0

    kept = 2 * FP32 * shape.hidden + read * (2 * queries + 2 * keys) + 3 * size * shape.intermediate
    if method.type in {"lora", "full"} or (method.type == "qlora" and not dropout):
        copied = queries if packed else 0
        kept += size * (2 * shape.hidden + copied + shape.intermediate)
    if method.type == "full":
        kept += 2 * FP32 * shape.hidden
    elif method.type == "dora":
        kept += FP32 * (inputs + outputs) + size * outputs
    elif method.type == "ia3":
        kept += size * queries + FP32 * shape.intermediate + 2 * size * keys
    elif method.type == "prefix-tuning":
        kept += 2 * size * (queries - keys)
    if method.lora is not None:
        kept += size * method.lora.rank * len(shape.linear_layers)
    if dropout and method.type != "lora":
        kept += 2 * FP32 * inputs if method.type == "qlora" else FP32 * (inputs + outputs) - size * outputs
    return kept


def logits_bytes(shape: Shape, training: TrainingPlan, *, accelerator: bool) -> int:
    """Return the logits: (T, vocabulary) in compute precision and three times in fp32: cast, normalised, gradient.

    The output layer runs on tokens with a target alone. All are taken to have one, an upper bound for chat. Where the
    loss takes logits in parts, T is that of a part. Models that give labels have a few logits, which are left out.
    """
    if training.task in LABEL_TASKS:
        return 0
    tokens = pass_tokens(training, accelerator=accelerator)
    if _takes_parts(shape, training):
        tokens = min(tokens, max(1, LOGITS_BYTES // (FP32 * shape.vocabulary)))
    return tokens * shape.vocabulary * (_compute_bytes(training) + 3 * FP32)


def _takes_parts(shape: Shape, training: TrainingPlan) -> bool:
    """Whether the loss can call the output layer itself: not where it is dealt out, adapted, or may have a copy."""
    lora = training.method.lora
    named = lora.target_modules if lora and lora.target_modules != "all-linear" else ()
    around = lora is not None and (bool(lora.modules_to_save) or any(name.endswith(_HEAD) for name in named))
    return shape.logits_in_parts and not around and not training.distributed.partitions_weights


def activation_bytes(shape: Shape, training: TrainingPlan, *, accelerator: bool) -> int:
    """Return what one forward pass keeps for the backward pass, logits included."""
    head = _compute_bytes(training) * shape.vocabulary * shape.hidden if _casts_weights(training) else 0
    return (
        layer_bytes(shape, training, accelerator=accelerator)
        + logits_bytes(shape, training, accelerator=accelerator)
        + head
    )


def export_bytes(shape: Shape, parameters: int, training: TrainingPlan) -> int:
    """Return the host memory that export and proof need beside the runtime.

    The adapter is merged into fp32 weights, and the ONNX builder holds a second copy while it writes. The proof runs
    PyTorch and then the export, and needs more than that of a small model with a large vocabulary (`proof_bytes`).
    Where nothing is merged, the adapter is tried on a second copy of the base model.

    An adapter that was trained on other weights than the published ones is merged in any case, to be measured on those.
    Where nothing is written of that, it is one copy in fp32 and half of one while it is loaded and merged, 5.8 bytes a
    parameter seen with 135M; task preference measures it beside the base model.
    """
    method, artifact = training.method, training.artifact
    moved = method.type == "qlora" or (method.lora is not None and method.lora.initialization != "default")
    written = method.type == "full" or artifact.onnx or artifact.merged
    if moved and not written and sequences_of(training.task) == 1:
        return FP32 * parameters * 3 // 2
    copies = 2 * parameters * (FP32 if written or moved else BYTES[training.hyperparameters.precision])
    return max(copies, proof_bytes(shape, parameters, training)) if artifact.onnx else copies


def proof_bytes(shape: Shape, parameters: int, training: TrainingPlan) -> int:
    """Return what the proof of a model that answers in words needs beside the runtime; of others its fp32 graph.

    ONNX Runtime has the fp32 weights once, the head apart from the embedding, and puts out fp32 logits of each position
    of a row, (1, maxLength, vocabulary), PyTorch of short rows together; of all rows, the last positions' are kept, of
    both sides. A graph of 504 MiB took 512 MiB when loaded, and 218 more with 192 MiB of logits.
    """
    graph = FP32 * (parameters + _head_apart(shape, training))
    if training.task in LABEL_TASKS:
        return graph
    position, longest = FP32 * shape.vocabulary, training.hyperparameters.max_length
    kept = min(PROOF_LOGITS_BYTES, training.artifact.proof.rows * longest * position)
    return graph + max(longest, CPU_PASS_TOKENS) * position + 2 * kept


def estimate_memory(
    shape: Shape, parameters: int, training: TrainingPlan, *, accelerator: bool, basis: str
) -> MemoryEstimate:
    """Return the estimate for the memory that training uses, of one rank: on its accelerator, or of its process.

    On a CPU, where one rank has the pod for itself, `overhead` also covers by how much export needs more than training.
    """
    trained = trained_parameters(shape, parameters, training)
    whole = weight_bytes(shape, parameters, training)
    weights, gradients, optimizer, loading = _dealt_out(trained, whole, training, accelerator=accelerator)
    activations = activation_bytes(shape, training, accelerator=accelerator)
    in_use = weights + gradients + optimizer + activations
    if accelerator:
        overhead = ACCELERATOR_RUNTIME_BYTES + round(in_use * (FRAGMENTATION - 1))
    else:
        layers = layer_bytes(shape, training, accelerator=False)
        # What was loaded to be quantized leaves holes in the heap: 2.5 bytes a parameter seen.
        holes = FP32 * parameters if training.method.type == "qlora" else 0
        peak = max(in_use + round(layers * (HEAP_FRAGMENTATION - 1)) + holes, loading)
        if training.distributed.world_size == 1:
            peak = max(peak, export_bytes(shape, parameters, training))
        overhead = RUNTIME_BYTES + peak - in_use
    return MemoryEstimate(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        overhead=overhead,
        total=in_use + overhead,
        basis=basis,
    )


def _dealt_out(trained: int, weights: int, training: TrainingPlan, *, accelerator: bool) -> tuple[int, int, int, int]:
    """Return what a rank has in training of weights, gradients and optimizer state, and what it has while it loads.

    ZeRO (Rajbhandari et al. 2020, §5) deals out the optimizer's state, with a copy of what is trained that it steps on;
    from stage 2 on the gradients; from stage 3 on the weights, of which some are put together at a time. What is
    exchanged goes through two buffers. Each rank loads the whole model first. An accelerator has nothing of what is
    kept in the host's memory.

    Args:
        trained: parameters.
        weights: bytes of all of them, in one place.
        training: what is computed.
        accelerator: whether it is one's memory, or that of a process that trains on CPUs.
    """
    distributed, gradients = training.distributed, trained * FP32
    if not distributed.is_zero:
        return weights, gradients, trained * _ADAM_BYTES, 0
    ranks, stage = distributed.world_size, distributed.zero_stage
    buffers = 2 * FP32 * min(ZERO_BUCKET, trained)
    optimizer = trained * (_ADAM_BYTES + FP32) // ranks
    loading = weights + (weights + trained * FP32) // ranks
    gradients = gradients if stage == 1 else gradients // ranks
    if distributed.partitions_weights:
        kept = 0 if accelerator and distributed.offload == "all" else weights // ranks
        weights = min(weights, kept + 2 * FP32 * ZERO_BUCKET)
    if accelerator and distributed.offload is not None:
        optimizer, gradients = 0, gradients if stage == 1 else 0
    return weights, gradients + buffers, optimizer, loading


def pod_bytes(rank: MemoryEstimate, shape: Shape, parameters: int, training: TrainingPlan) -> int:
    """Return the memory of a pod that trains on CPUs: that of its ranks and of what starts them.

    Export has the pod for itself: it is the first rank's, when the others have gone.

    Args:
        rank: estimate of one on a CPU.
        shape: of the model.
        parameters: of the model.
        training: what is computed.
    """
    ranks = training.distributed.world_size
    if ranks == 1:
        return rank.total
    return LAUNCHER_BYTES + max(ranks * rank.total, RUNTIME_BYTES + export_bytes(shape, parameters, training))


def host_bytes(shape: Shape, parameters: int, training: TrainingPlan, *, kept: int = 0) -> int:
    """Return the memory of a pod that trains on accelerators: its ranks load the weights, and it exports on the CPU.

    Args:
        shape: of the model.
        parameters: of the model.
        training: what is computed.
        kept: bytes that a rank has there besides the runtime.
    """
    ranks = training.distributed.world_size
    alone = RUNTIME_BYTES + export_bytes(shape, parameters, training)
    together = ranks * (RUNTIME_BYTES + kept)
    return max(alone, together) + (LAUNCHER_BYTES if ranks > 1 else 0)


def kept_bytes(shape: Shape, parameters: int, training: TrainingPlan) -> int:
    """Return what a rank on an accelerator has in the host's memory besides the runtime.

    ZeRO-3 loads the whole model there and deals it out; with offload, the rank's part of the optimizer's state and of
    the gradients is there, or of the weights as well.
    """
    distributed = training.distributed
    trained, weights = trained_parameters(shape, parameters, training), weight_bytes(shape, parameters, training)
    kept = weights if distributed.partitions_weights else 0
    if distributed.offload is not None:
        kept += trained * (_ADAM_BYTES + 2 * FP32) // distributed.world_size
    if distributed.offload == "all":
        kept += weights // distributed.world_size
    return kept


def work_volume_bytes(
    shape: Shape, parameters: int, training: TrainingPlan, *, downloads: bool, cut: bool = False
) -> int:
    """Return the size of the work volume: the merged fp32 weights, their exports, checkpoints, and a model unpacked.

    With `cut`, the text part of a model that reads images is written there as well.

    A base graph is as large as the export of the merged model. A checkpoint holds what is trained and its two moments;
    one more than are kept is there while it is written.
    """
    artifact, fp32 = training.artifact, parameters * FP32
    checkpoint = trained_parameters(shape, parameters, training) * (FP32 + _ADAM_BYTES)
    # Which of the two lists holds, the model's folder tells.
    lists = (artifact.onnx, artifact.onnx_encoder or [])
    graphs = max(sum(graph_bytes(shape, parameters, training, each) for each in precisions) for precisions in lists)
    forms = 2 if artifact.onnx_form == "both" else 1
    copies = 1 + downloads + cut
    return copies * fp32 + forms * graphs + (training.checkpoint.keep + 1) * checkpoint + 2 * GIB


def graph_bytes(shape: Shape, parameters: int, training: TrainingPlan, precision: OnnxPrecision) -> int:
    """Return what an ONNX graph takes on the work volume, its fp32 form included where it is quantized from that.

    Quantized are the matrices of linear layers and the head; the embedding stays in fp32, and a head that shares it is
    written apart. Only onnxruntime's dynamic quantization, which makes int8 of encoders, has the fp32 graph on disk;
    all int8 is counted so.
    """
    embedding = shape.vocabulary * shape.hidden
    apart = _head_apart(shape, training)
    fp32 = FP32 * (parameters + apart)
    if precision == "fp32":
        return fp32
    quantized = FP32 * embedding + round(_QUANTIZED_BYTES[precision] * max(0, parameters + apart - embedding))
    return quantized + (fp32 if precision == "int8" else 0)


def _head_apart(shape: Shape, training: TrainingPlan) -> int:
    """Return the weights that a graph has more than the model: a head that shares the embedding's is there twice."""
    return shape.vocabulary * shape.hidden if shape.tied and training.task not in LABEL_TASKS else 0


def _embeddings(shape: Shape) -> int:
    """Return the weights of embedding and head."""
    return shape.vocabulary * shape.hidden * (1 if shape.tied else 2)


def _packs(training: TrainingPlan) -> bool:
    return training.hyperparameters.packing and training.task not in _PADDED


def _compute_bytes(training: TrainingPlan) -> int:
    """Return the bytes of a number that linear layers compute; around QLoRA's 4 bits it is fp32.

    So it is counted of models that give labels: autocast keeps much in fp32 and its copy in bf16 besides. With
    all-MiniLM-L6-v2 a process took 1.49 GB in bf16 and 1.33 GB in fp32 (lora), 1.66 and 1.54 GB (full).
    """
    exact = training.method.type == "qlora" or training.task in LABEL_TASKS
    return FP32 if exact else BYTES[training.hyperparameters.precision]


def _stream_bytes(training: TrainingPlan) -> int:
    """Return the bytes of a number that goes from layer to layer: in fp32 where embeddings are."""
    return FP32 if training.method.type == "full" else _compute_bytes(training)


def _casts_weights(training: TrainingPlan) -> bool:
    """Whether fp32 weights are cast for a pass, and the copies kept until its end."""
    return training.method.type == "full" and training.hyperparameters.precision != "fp32"


def _kept_of_weights(shape: Shape, training: TrainingPlan) -> int:
    """Return what a layer keeps for the backward pass besides activations, however many tokens there are.

    full: the weights in compute precision. dora: PEFT multiplies its matrices by a unit matrix of inputs x inputs, in
    fp32, and keeps that and the product; with dropout it keeps the base layer's weights in fp32, too.
    """
    weights = sum(inputs * outputs for inputs, outputs in shape.linear_layers)
    if _casts_weights(training):
        return _compute_bytes(training) * weights
    lora = training.method.lora
    if training.method.type != "dora" or lora is None:
        return 0
    kept = sum(inputs * (inputs + lora.rank) + 2 * outputs for inputs, outputs in shape.linear_layers)
    return FP32 * (kept + (weights if lora.dropout else 0))
