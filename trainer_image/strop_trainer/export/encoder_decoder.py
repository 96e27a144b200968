"""ONNX by torch.onnx for models of encoder and decoder: two graphs without a cache, and what runs them.

Legend: R rows, S tokens of a source, T tokens that the decoder has read, H width of the model, V vocabulary.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from strop_trainer.export.encoder import exporting, quantize, weight_precision, write_graph
from strop_trainer.export.reference import Greedy, Reference, load_merged
from strop_trainer.greedy import greedily
from strop_trainer.plan import OnnxPrecision
from strop_trainer.proof_rows import Kept, ProofRow, read

ENCODER: Final = "encoder_model.onnx"
"""input_ids, attention_mask (R, S) → last_hidden_state (R, S, H)."""
DECODER: Final = "decoder_model.onnx"
"""input_ids (R, T), encoder_hidden_states (R, S, H), encoder_attention_mask (R, S) → logits (R, T, V)."""


SETTINGS: Final = "generation_config.json"


@dataclass(frozen=True)
class DecoderRow:
    """One held-out row.

    Args:
        source_ids: tokens that the encoder reads.
        input_ids: the decoder's tokens: what it begins with, and the reference.
        given: how many of them it begins with.
    """

    source_ids: Sequence[int]
    input_ids: Sequence[int]
    given: int


def export_encoder_decoder(merged: Path, out: Path, precision: OnnxPrecision) -> None:
    """Write both graphs, configuration and tokenizer to `out`; rows, sources and targets may have any length.

    Args:
        merged: Hugging Face folder of the merged model.
        out: the folder to make; it must not exist.
        precision: of the weights of the matrix products. int8 is onnxruntime's dynamic quantization.

    Raises:
        TrainerError: the exporter failed (exit 70), with its words.
    """
    import torch  # noqa: PLC0415 - seconds, only where it is used
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer  # noqa: PLC0415

    out.mkdir(parents=True)
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(
        merged, dtype=torch.float32, use_safetensors=True, local_files_only=True, attn_implementation="eager"
    ).eval()
    # Tokens are of no account to the tracing; two rows of unequal length, as an axis of one would be a constant.
    sources, mask = torch.ones((2, 7), dtype=torch.long), torch.ones((2, 7), dtype=torch.long)
    mask[1, 5:] = 0
    with exporting(precision):
        write_graph(
            model,
            _encode,
            out / ENCODER,
            {"input_ids": sources, "attention_mask": mask},
            ["last_hidden_state"],
        )
        with torch.no_grad():
            hidden = _encode(model, sources, mask)
        write_graph(
            model,
            _decode,
            out / DECODER,
            {
                "input_ids": torch.ones((2, 5), dtype=torch.long),
                "encoder_hidden_states": hidden,
                "encoder_attention_mask": mask,
            },
            ["logits"],
        )
        if precision == "int8":
            for file in (ENCODER, DECODER):
                quantize(out / file)
    AutoConfig.from_pretrained(merged, local_files_only=True).save_pretrained(out)
    shutil.copyfile(merged / SETTINGS, out / SETTINGS)
    AutoTokenizer.from_pretrained(merged, local_files_only=True).save_pretrained(out)


def keep_begin(folder: Path, given: Sequence[int], languages: tuple[str, str] | None = None) -> None:
    """Write to a model's settings for writing what its decoder was given: the start, and maybe one token more.

    Args:
        folder: of the model.
        given: the tokens.
        languages: the tokenizer's codes of source and target, where it has such; its settings get them.
    """
    names = ("decoder_start_token_id", "forced_bos_token_id")
    _write_to(folder / SETTINGS, dict.fromkeys(names) | dict(zip(names, given, strict=False)))
    if languages is not None:
        _write_to(folder / "tokenizer_config.json", dict(zip(("src_lang", "tgt_lang"), languages, strict=True)))


def _write_to(file: Path, values: dict[str, Any]) -> None:
    settings = json.loads(file.read_bytes()) | values
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _encode(model: Any, input_ids: Any, attention_mask: Any) -> Any:
    return model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def _decode(model: Any, input_ids: Any, encoder_hidden_states: Any, encoder_attention_mask: Any) -> Any:
    from transformers.modeling_outputs import BaseModelOutput  # noqa: PLC0415

    return model(
        encoder_outputs=BaseModelOutput(last_hidden_state=encoder_hidden_states),
        attention_mask=encoder_attention_mask,
        decoder_input_ids=input_ids,
        use_cache=False,
    ).logits


def precision_of(folder: Path) -> OnnxPrecision:
    """Return the precision of an export's weights as both graphs have it; int8 where one of them is."""
    return next((found for file in (ENCODER, DECODER) if (found := weight_precision(folder / file)) != "fp32"), "fp32")


class TranslationRunner:
    """Both graphs in ONNX Runtime on the CPU, for one source at a time."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Load the graphs; `threads` of one operator, as ONNX Runtime knows nothing of a container's quota."""
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._encoder, self._decoder = (
            onnxruntime.InferenceSession(str(folder / file), options, providers=["CPUExecutionProvider"])
            for file in (ENCODER, DECODER)
        )

    def logits(self, row: DecoderRow, positions: int) -> Any:
        """Return float32 (P, V): the logits of the decoder's last `positions` positions."""
        return self._logits(row.input_ids, self._read(row.source_ids))[-positions:]

    def greedy(self, row: DecoderRow, ends: frozenset[int], max_new_tokens: int) -> list[int]:
        """Return the tokens of a greedy answer, the end included where it was reached."""
        read, tokens = self._read(row.source_ids), list(row.input_ids[: row.given])
        while len(tokens) < row.given + max_new_tokens and not ends & set(tokens[row.given :]):
            tokens.append(int(self._logits(tokens, read)[-1].argmax()))
        return tokens[row.given :]

    def _read(self, source: Sequence[int]) -> dict[str, Any]:
        import numpy as np  # noqa: PLC0415

        ids = np.array([source], dtype=np.int64)
        mask = np.ones_like(ids)
        (hidden,) = self._encoder.run(["last_hidden_state"], {"input_ids": ids, "attention_mask": mask})
        return {"encoder_hidden_states": hidden, "encoder_attention_mask": mask}

    def _logits(self, tokens: Sequence[int], read: dict[str, Any]) -> Any:
        import numpy as np  # noqa: PLC0415

        ids = np.array([tokens], dtype=np.int64)
        (found,) = self._decoder.run(["logits"], {"input_ids": ids} | read)
        return found[0].astype(np.float32)


def run_encoder_decoder(
    merged: Path,
    rows: Sequence[tuple[DecoderRow, ProofRow]],
    free: Sequence[DecoderRow],
    kept: Kept,
    max_new_tokens: int,
) -> Reference:
    """Run the merged model in fp32 over whole rows, and greedily from what the decoder begins with.

    Args:
        merged: Hugging Face folder.
        rows: to compare position by position, each with its decoder's side.
        free: to be answered freely.
        kept: what is kept of what it says of each row.
        max_new_tokens: length of an answer at most.
    """
    import torch  # noqa: PLC0415

    model, tokenizer, ends = load_merged(merged)
    readings, greedy = [], []
    with torch.inference_mode():
        for row, target in rows:
            inputs = {"input_ids": torch.tensor([list(row.source_ids)])}
            found = model(**inputs, decoder_input_ids=torch.tensor([list(row.input_ids)]), use_cache=False)
            readings.append(read(target, found.logits[0].float().numpy(), kept, ends))
        for row in free:
            ids = torch.tensor([list(row.source_ids)])
            output = generate(
                model,
                {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
                given=row.input_ids[: row.given],
                ends=ends,
                max_new_tokens=max_new_tokens,
                pad_id=tokenizer.pad_token_id,
                logits=True,
            )
            tokens = output.sequences[0, row.given :].tolist()
            greedy.append(Greedy(tokens, torch.cat(output.logits).float().numpy()))
    return Reference(readings, greedy, ends, tokenizer)


def generate(
    model: Any,
    inputs: dict[str, Any],
    *,
    given: Sequence[int],
    ends: frozenset[int],
    max_new_tokens: int,
    pad_id: int,
    logits: bool = False,
) -> Any:
    """Return transformers' greedy answer, without the beams and bounds of the model's own settings.

    Args:
        model: of transformers; it is left as it was.
        inputs: input_ids and attention_mask, (R, S).
        given: what the decoder of each row begins with.
        ends: tokens that end an answer.
        max_new_tokens: length of an answer at most.
        pad_id: token behind the end of shorter answers.
        logits: whether each token's are given, too.
    """
    import torch  # noqa: PLC0415

    rows = inputs["input_ids"].shape[0]
    begin = torch.tensor([list(given)] * rows, device=inputs["input_ids"].device)
    wanted: dict[str, Any] = {"output_logits": logits, "return_dict_in_generate": True}
    wanted["decoder_start_token_id"] = given[0]
    with greedily(model, ends=ends, pad_id=pad_id, max_new_tokens=max_new_tokens, **wanted):
        return model.generate(**inputs, decoder_input_ids=begin)
