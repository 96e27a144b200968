"""The proof of an exported encoder and decoder: as of any model that answers in words, with its own two graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from strop_trainer.export.encoder_decoder import (
    DecoderRow,
    TranslationRunner,
    precision_of,
    run_encoder_decoder,
)
from strop_trainer.plan import OnnxPrecision, ProofPlan
from strop_trainer.proof import FREE_ROWS, ProofResult, ProofRow, judge, kept_positions, not_run
from strop_trainer.tasks.encoder_decoder import SourceQuestion


def prove_encoder_decoder(
    merged: Path,
    exports: Mapping[OnnxPrecision, Path],
    questions: Sequence[SourceQuestion],
    limits: ProofPlan,
    max_new_tokens: int,
) -> list[ProofResult]:
    """Run PyTorch in fp32 and each export on the same held-out rows, and compare.

    Args:
        merged: Hugging Face folder of the merged model.
        exports: precision → folder of an export, named as in the version.
        questions: held-out rows; the first `limits.rows` are used.
        limits: what must be reached.
        max_new_tokens: length of a free answer at most.
    """
    import torch  # noqa: PLC0415 - seconds, only where it is used
    from transformers import AutoTokenizer  # noqa: PLC0415

    used = questions[: limits.rows]
    rows = [DecoderRow(question.prompt_ids, question.row_ids, len(question.given)) for question in used]
    targets = [ProofRow(row.input_ids, row.given, asked.reference) for row, asked in zip(rows, used, strict=True)]
    positions = kept_positions(merged, len(used))
    reference = run_encoder_decoder(merged, rows, rows[:FREE_ROWS], positions, max_new_tokens)
    tokenizer = AutoTokenizer.from_pretrained(merged, local_files_only=True)
    results = []
    for precision, folder in exports.items():
        try:
            found = precision_of(folder)
            runner = TranslationRunner(folder, torch.get_num_threads())
            logits = [runner.logits(row, positions) for row in rows]
            free = [runner.greedy(row, reference.end_tokens, max_new_tokens) for row in rows[:FREE_ROWS]]
            del runner
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever keeps an export from running, it is not proven
            results.append(not_run(folder.name, precision, len(used), error))
            continue
        results.append(judge(folder.name, (precision, found), targets, reference, logits, free, tokenizer, limits))
    return results
