"""Scenarios and techniques, and the FineTuneJob of each pair. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from strop.api.names import API_VERSION
from strop_trainer.plan import METRICS, Task

DECODER: Final = "smollm2-135m-instruct"
ENCODER: Final = "all-minilm-l6-v2"
MODEL_CLAIM: Final = "base-models"
ROWS_CLAIM: Final = "scenario-rows"


@dataclass(frozen=True)
class Scenario:
    """A row of the table: a task on real rows."""

    name: str
    words: str
    """As the published table calls it, or near."""
    task: Task
    model: str
    file: str
    """Rows to train on; those with `held-` in front of the name are held out."""
    metric: str
    """What is shown in the overview."""
    training: dict[str, Any]
    rows: str
    """What the rows are, in words."""
    evaluation: dict[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    """Techniques that it is measured with, where it is no row of the published table; empty: all."""

    @property
    def answered(self) -> bool:
        """Whether the metric is taken of generated answers."""
        return self.metric in METRICS[self.task].generated

    @property
    def held_out(self) -> str:
        """Name of the file with the held-out rows."""
        return f"held-{self.file}"


@dataclass(frozen=True)
class Technique:
    """A column of the table."""

    name: str
    column: str
    """Of the published table; empty for a yardstick."""
    words: str
    method: str
    strategy: str | None = None
    """Of two processes; None: one process."""
    only: tuple[str, ...] = ()
    """Scenarios that it is for; empty: all."""


LANGUAGE: Final = {"generateRows": 16, "maxNewTokens": 32}
CONTINUED: Final = {"generateRows": 2, "maxNewTokens": 32}
"""No metric is taken of continued texts; two are read by people."""

SCENARIOS: Final = (
    Scenario(
        "domain",
        "adapting a pretrained LLM to a domain",
        "text-generation",
        DECODER,
        "api-reference.jsonl",
        "perplexity",
        {"epochs": 1, "maxLength": 128, "effectiveBatchSize": 8},
        "what the Kubernetes API says of its fields, by its Python client (Apache-2.0)",
        CONTINUED,
    ),
    Scenario(
        "classification",
        "text classification",
        "text-classification",
        ENCODER,
        "topics.jsonl",
        "f1",
        {"epochs": 5, "maxLength": 64},
        "questions of chatterbot-corpus (BSD-3-Clause) by their topic, six topics",
    ),
    Scenario(
        "classification-in-words",
        "text classification, answered in words by an LLM",
        "instruction",
        DECODER,
        "topics-in-words.jsonl",
        "exact_match",
        {"epochs": 2, "maxLength": 128},
        "the same questions as prompts, the topic as completion",
        LANGUAGE | {"maxNewTokens": 12},
    ),
    Scenario(
        "ner",
        "named-entity recognition",
        "token-classification",
        ENCODER,
        "names.jsonl",
        "f1",
        {"epochs": 5, "maxLength": 128},
        "Japanese sentences of hironsancorpus (MIT) with places, people, organisations, dates, … in IOB2. The encoder "
        "is an English one whose vocabulary lacks nearly a third of their characters: that it learns is the point, "
        "not how well",
    ),
    Scenario(
        "translation",
        "machine translation",
        "translation",
        DECODER,
        "translation.csv",
        "chrf",
        {"epochs": 2, "maxLength": 128},
        "messages of Django (BSD-3-Clause), English to French",
        LANGUAGE,
    ),
    Scenario(
        "question-answering",
        "question answering",
        "question-answering",
        DECODER,
        "questions.jsonl",
        "f1",
        {"epochs": 1, "maxLength": 256, "effectiveBatchSize": 8},
        "what a fiddle tune in ABC notation says of itself (title, dance, metre, unit length), asked of its first "
        "lines; Ryan's Mammoth Collection (1883, out of copyright), read from music21's corpus where it is installed. "
        "No tune is both trained on and held out",
        {"generateRows": 48, "maxNewTokens": 24},
    ),
    Scenario(
        "chat",
        "human-like answers of a chatbot",
        "chat",
        DECODER,
        "talk.jsonl",
        "perplexity",
        {"epochs": 2, "maxLength": 128},
        "small talk of chatterbot-corpus (BSD-3-Clause): what a bot answers to questions on itself and the world",
        LANGUAGE,
    ),
    Scenario(
        "creative",
        "creative content: tunes in ABC notation",
        "text-generation",
        DECODER,
        "tunes.jsonl",
        "perplexity",
        {"epochs": 1, "maxLength": 256, "effectiveBatchSize": 4},
        "traditional fiddle tunes of Ryan's Mammoth Collection (1883, out of copyright), read from music21's corpus "
        "where it is installed: it names no licence for its text of them, and none of it is kept here",
        CONTINUED,
    ),
)

SHARED: Final = ("domain", "translation", "chat")
"""Scenarios that two processes train without sharing, too."""

FURTHER: Final = (
    Scenario(
        "extractive",
        "question answering by an encoder, which marks the answer",
        "question-answering",
        ENCODER,
        "marked-questions.jsonl",
        "f1",
        {"epochs": 5, "maxLength": 128},
        "the questions on tunes whose answer is in the text once",
        {"generateRows": 2},
        ("lora",),
    ),
    Scenario(
        "summarization",
        "summarization",
        "summarization",
        DECODER,
        "docstrings.jsonl",
        "rougeL",
        {"epochs": 1, "maxLength": 256, "effectiveBatchSize": 8},
        "docstrings of Python's standard library (PSF licence): what follows the first line, and that line",
        {"generateRows": 48, "maxNewTokens": 24},
        ("lora",),
    ),
    Scenario(
        "preference",
        "preference (DPO): of two answers the chosen one",
        "preference",
        DECODER,
        "wordings.jsonl",
        "reward_accuracy",
        {"epochs": 3, "learningRate": 1e-4, "maxLength": 128, "effectiveBatchSize": 8},
        "messages of Django (BSD-3-Clause) in Portuguese and Spanish: of Brazil and Argentina (chosen), of Europe",
        {"generateRows": 2, "maxNewTokens": 32},
        ("lora",),
    ),
)
"""Tasks that the published table has no row for."""
EVERY: Final = (*SCENARIOS, *FURTHER)

TECHNIQUES: Final = (
    Technique("full", "", "all weights: the yardstick", "full"),
    Technique("lora", "LoRA", "LoRA", "lora"),
    Technique("qlora", "QLoRA", "QLoRA", "qlora"),
    Technique("ia3", "PEFT", "(IA)³", "ia3"),
    Technique("prompt-tuning", "PEFT", "prompt-tuning", "prompt-tuning"),
    Technique("prefix-tuning", "PEFT", "prefix-tuning", "prefix-tuning"),
    Technique("p-tuning", "PEFT", "p-tuning", "p-tuning"),
    Technique("ddp", "", "two processes without sharing: the yardstick for two", "full", "ddp", SHARED),
    Technique("deepspeed", "DeepSpeed", "DeepSpeed: two processes, ZeRO-2", "full", "zero-2"),
    Technique("zero", "ZeRO", "ZeRO-3: two processes", "full", "zero-3"),
    Technique("dora", "DoRA", "DoRA", "dora"),
)
COLUMNS: Final = ("LoRA", "QLoRA", "PEFT", "DeepSpeed", "ZeRO", "DoRA")


@dataclass(frozen=True)
class Cell:
    """One job of the table."""

    scenario: Scenario
    technique: Technique

    @property
    def name(self) -> str:
        """Name of the job, and of the cell on the command line."""
        return f"{self.scenario.name}-{self.technique.name}"


CELLS: Final = tuple(
    Cell(scenario, technique)
    for scenario in EVERY
    for technique in TECHNIQUES
    if (not technique.only or scenario.name in technique.only)
    and (not scenario.only or technique.name in scenario.only)
)


def job(cell: Cell) -> dict[str, Any]:
    """Return the FineTuneJob of a cell. What it leaves out is the planner's choice: that is measured, too."""
    scenario, technique = cell.scenario, cell.technique
    spec: dict[str, Any] = {
        "task": scenario.task,
        "model": {"source": f"pvc://{MODEL_CLAIM}/{scenario.model}"},
        "dataset": {
            "train": [{"source": f"pvc://{ROWS_CLAIM}/{scenario.file}"}],
            "validation": [{"source": f"pvc://{ROWS_CLAIM}/{scenario.held_out}"}],
        },
        "method": {"type": technique.method},
        "training": dict(scenario.training),
    }
    if scenario.evaluation:
        spec["evaluation"] = dict(scenario.evaluation)
    if not technique.method.startswith(("prompt", "prefix", "p-")):
        spec["output"] = {"onnx": {"precisions": ["fp32"]}}
    if technique.strategy:
        spec["distributed"] = {"processesPerNode": 2, "strategy": technique.strategy}
    return {"apiVersion": API_VERSION, "kind": "FineTuneJob", "metadata": {"name": cell.name}, "spec": spec}


def manifest(cell: Cell) -> str:
    """Return the job as YAML."""
    return yaml.safe_dump(job(cell), sort_keys=False, allow_unicode=True)
