"""The proof of an exported encoder and decoder: as of any model that answers in words, with its own two graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from strop_trainer.export.encoder_decoder import (
    DecoderRow,
    TranslationRunner,
    precision_of,
    run_encoder_decoder,
)
from strop_trainer.plan import OnnxPrecision, ProofPlan
from strop_trainer.proof import FREE_ROWS, ProofResult, judge, kept_positions, not_run, tie_of
from strop_trainer.proof_rows import Kept, ProofRow, read, taken
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
        questions: held-out rows; the first `limits.rows` are used, fewer where they are long.
        limits: what must be reached.
        max_new_tokens: length of a free answer at most.
    """
    import torch  # noqa: PLC0415 - seconds, only where it is used

    lengths = [len(asked.prompt_ids) + len(asked.row_ids) for asked in questions]
    used = questions[: taken(lengths, limits)]
    rows = [DecoderRow(asked.prompt_ids, asked.row_ids, len(asked.given)) for asked in used]
    targets = [ProofRow(asked.row_ids, len(asked.given), asked.reference) for asked in used]
    pairs = list(zip(rows, targets, strict=True))
    kept = Kept(kept_positions(merged, len(rows)))
    with_ties = replace(kept, tie=tie_of(limits))
    reference = run_encoder_decoder(merged, pairs, rows[:FREE_ROWS], with_ties, max_new_tokens)
    results = []
    for precision, folder in exports.items():
        try:
            found = precision_of(folder)
            runner = TranslationRunner(folder, torch.get_num_threads())
            readings = [
                read(target, runner.logits(row, target.needed(kept)), kept, reference.end_tokens)
                for row, target in pairs
            ]
            free = [runner.greedy(row, reference.end_tokens, max_new_tokens) for row in rows[:FREE_ROWS]]
            del runner
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever keeps an export from running, it is not proven
            results.append(not_run(folder.name, precision, len(rows), error))
            continue
        results.append(judge(folder.name, (precision, found), targets, reference, readings, free, limits))
    return results
