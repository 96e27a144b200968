"""README.md: the model card, with Hugging Face's metadata. It says what was measured, and what was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from strop_trainer.capacity import capacity_note
from strop_trainer.documents import TrainingDocument
from strop_trainer.encoder_decoders import has_languages

if TYPE_CHECKING:
    from strop_trainer.record import RunRecord
    from strop_trainer.vllm import Verdict

MERGED = "_merged"
_TAGS = dict.fromkeys(("chat", "text-generation", "instruction", "preference"), "text-generation")

_LICENCES = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "CC-BY-NC-4.0": "cc-by-nc-4.0",
    "Gemma Terms of Use": "gemma",
    "Llama 3 Community License": "llama3",
    "Llama 3.1 Community License": "llama3.1",
    "Llama 3.2 Community License": "llama3.2",
}
"""A licence as presets call it → as the hub does."""


def render_card(record: RunRecord, training: TrainingDocument, folders: Sequence[str], served: Verdict | None) -> str:
    """Return the card's text.

    Args:
        record: the run.
        training: what training.json says.
        folders: of models in the version, such as `onnx` and `adapter`.
        served: what vLLM does with the adapter; None without one.
    """
    front = yaml.safe_dump(_metadata(record, folders), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + _template().render(
        record=record,
        training=training,
        name=record.plan.placement.output.model,
        plan=record.plan.training,
        folders=folders,
        models=[f"`{name}/`" for name in folders if name != "adapter"],
        served=served,
        languages=has_languages(record.architecture),
        capacity=capacity_note(record.plan.training, record.trainable_parameters, record.target_tokens),
        metrics=metric_rows(record),
        merged=merged_in_words(record),
        proofs=[proof.to_json() for proof in record.proofs],
    )


@dataclass(frozen=True)
class MetricRow:
    """A metric of the models, as far as it was measured."""

    name: str
    base: float | None
    tuned: float | None
    merged: float | None


def metric_rows(record: RunRecord) -> list[MetricRow]:
    """Return a row of each metric; those that end in `_merged` are a column of it."""
    base, tuned = record.metrics_base, record.metrics_tuned
    names = [name for name in dict.fromkeys([*tuned, *base]) if not name.endswith(MERGED)]
    return [MetricRow(name, base.get(name), tuned.get(name), tuned.get(name + MERGED)) for name in names]


def merged_in_words(record: RunRecord) -> str:
    """Return what the merged model is to the trained one; empty where none was measured."""
    if not any(name.endswith(MERGED) for name in record.metrics_tuned):
        return ""
    method = record.plan.training.method
    published = "merged is that model with the adapter folded into the base as it is, which is what is exported"
    if method.type == "qlora":
        return f"base and tuned have their weights in four bits; {published}, in fp32: its numbers may be others"
    if method.lora is not None and method.lora.initialization != "default":
        return f"tuned has a base that its adapter's start was taken off, in training's precision; {published}, in fp32"
    return f"{published}, in fp32"


def _metadata(record: RunRecord, folders: Sequence[str]) -> dict[str, Any]:
    training = record.plan.training
    metadata: dict[str, Any] = {}
    if training.model.source.startswith("hf://"):
        metadata |= {"base_model": training.model.source.removeprefix("hf://"), "base_model_relation": "finetune"}
    metadata |= _licence(record.plan.licence)
    metadata["tags"] = [
        "strop",
        training.method.type,
        *(["onnx"] if any(name.startswith("onnx") for name in folders) else []),
    ]
    if training.method.type != "full":
        metadata["tags"].append("peft")
    if training.task in _TAGS:
        metadata["pipeline_tag"] = _TAGS[training.task]
    metrics = [{"type": name, "value": value} for name, value in record.metrics_tuned.items() if _finite(value)]
    if metrics:
        metadata["model-index"] = [
            {
                "name": record.plan.placement.output.model,
                "results": [
                    {
                        "task": {"type": _TAGS.get(training.task, training.task)},
                        "dataset": {"name": "held-out rows", "type": record.dataset.fingerprint},
                        "metrics": metrics,
                    }
                ],
            }
        ]
    return metadata


def _licence(name: str | None) -> dict[str, str]:
    """Return the hub's fields of the base model's licence, which binds what is made from it; none of several."""
    if name is None or " and " in name:
        return {}
    if name in _LICENCES:
        return {"license": _LICENCES[name]}
    return {"license": "other", "license_name": name.lower().replace(" ", "-")}


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")  # noqa: PLR0124 - NaN differs from itself


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415

    # Markdown, not HTML: nothing to escape but code fences, which samples are not put into.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701
    environment.filters["number"] = lambda value: "-" if value is None else f"{value:.4g}"
    return environment.from_string((Path(__file__).parent / "templates" / "README.md.j2").read_text(encoding="utf-8"))
