"""`spec.model` and `spec.dataset`: the base model, the rows, and where they are."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from strop.api.base import DNS_NAME, ApiModel, Revision, Rule, Sha256, quoted
from strop.api.forms import Form, data_source_hint, model_source_hint, size_hint
from strop_trainer.plan import TEMPLATE_TASKS

_HUB_NAME = r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+"
# No user:password@ in front of the host: a job is no place for credentials.
_HTTPS = r"https://[A-Za-z0-9.-]+(:[0-9]+)?/[!-~]+"
_CLAIM_PATH = rf"pvc://{DNS_NAME}/[!-~]+"
MODEL_SOURCE = Form(
    rf"hf://{_HUB_NAME}|{_CLAIM_PATH}|{_HTTPS}",
    "hf://owner/name, pvc://claim/path or https://host/archive.tar.gz",
    model_source_hint,
)
DATA_SOURCE = Form(
    rf"configmap://{DNS_NAME}/[-._a-zA-Z0-9]+|{_CLAIM_PATH}|hf://datasets/{_HUB_NAME}/[!-~]+|{_HTTPS}",
    "configmap://name/key, pvc://claim/path, hf://datasets/owner/name/path or https://host/file",
    data_source_hint,
)


def _has_dots(source: str) -> bool:
    return "/../" in source or source.endswith("/..")


# A path that begins with a slash is one from the root of the machine; a claim's folder may end with one.
_EMPTY_PART = "^(hf|pvc)://.*//|^hf://.*/$"


HTTPS_NEEDS_HASH = Rule(
    "!self.source.startsWith('https://') || has(self.sha256)",
    "an https:// source needs its hash, so that what is trained on is what was meant",
    ".sha256",
    "FieldValueRequired",
    lambda self: not self.source.startswith("https://") or self.sha256 is not None,
)
HASH_IS_HTTPS = Rule(
    "!has(self.sha256) || self.source.startsWith('https://')",
    "only an https:// source is checked against a hash",
    ".sha256",
    "FieldValueForbidden",
    lambda self: self.sha256 is None or self.source.startswith("https://"),
)
NO_DOTS = Rule(
    "!self.source.contains('/../') && !self.source.endsWith('/..')",
    "must not climb out of its folder by '..'",
    ".source",
    check=lambda self: not _has_dots(self.source),
)
NO_EMPTY_PART = Rule(
    f"!self.source.matches('{_EMPTY_PART}')",
    "must have no empty part in its path, as by '//'",
    ".source",
    check=lambda self: re.search(_EMPTY_PART, self.source) is None,
)
REVISION_IS_HF = Rule(
    "!has(self.revision) || self.source.startsWith('hf://')",
    "only an hf:// source has revisions",
    ".revision",
    "FieldValueForbidden",
    lambda self: self.revision is None or self.source.startswith("hf://"),
)
REVISION_NO_DOTS = Rule(
    "!has(self.revision) || !self.revision.contains('..')",
    "must not contain '..'",
    ".revision",
    check=lambda self: self.revision is None or ".." not in self.revision,
)
_SOURCE_RULES = (HTTPS_NEEDS_HASH, HASH_IS_HTTPS, NO_DOTS, NO_EMPTY_PART, REVISION_IS_HF, REVISION_NO_DOTS)


class ModelSpec(ApiModel):
    """The base model."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *_SOURCE_RULES,
        Rule(
            "!has(self.chatTemplate) || self.chatTemplate.contains('messages')",
            "must be the text of a Jinja template, which renders `messages`; a path or a name is none",
            ".chatTemplate",
            check=lambda self: self.chat_template is None or "messages" in self.chat_template,
        ),
    )

    source: Annotated[str, Field(min_length=1, max_length=1024), MODEL_SOURCE] = Field(
        description="Where the base model's Hugging Face folder is: hf://owner/name, pvc://claim/path, "
        "or https://… (a .tar.gz of the folder). Weights must be safetensors.",
    )
    revision: Revision | None = Field(
        default=None,
        description="Commit, tag or branch of an hf:// source; pin a commit to repeat a run exactly. Left out: the "
        "commit that the model's preset pins, else main.",
    )
    sha256: Sha256 | None = Field(default=None, description="Hash of an https:// archive, in hex.")
    parameters: (
        Annotated[
            str,
            Field(min_length=2, max_length=16),
            Form(
                r"([1-9][0-9]*(\.[0-9]+)?|0\.[0-9]*[1-9][0-9]*)[MB]",
                "a number with M or B, such as 135M or 8B",
                size_hint,
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Size, such as 135M or 8B, for the memory estimate of a model that Strop has no preset for.",
    )
    chat_template: Annotated[str, Field(min_length=8, max_length=65536)] | None = Field(
        default=None,
        description="Text of a Jinja chat template to be used in place of the model's own: in training and evaluation, "
        "and published with the model. Left out: the model's; where it has none, chat refuses it and other tasks take "
        "Alpaca's headings.",
    )


class DataSource(ApiModel):
    """One file of rows, or a folder of them."""

    rules: ClassVar[tuple[Rule, ...]] = _SOURCE_RULES

    source: Annotated[str, Field(min_length=1, max_length=1024), DATA_SOURCE] = Field(
        description="configmap://name/key (small data), pvc://claim/path, hf://datasets/owner/name/path or https://….",
    )
    revision: Revision | None = Field(default=None, description="Commit, tag or branch of an hf:// source.")
    sha256: Sha256 | None = Field(default=None, description="Hash of the file, in hex; required for https://.")


ColumnName = Annotated[
    str, Field(min_length=1, max_length=128), Form(r"[^\x00-\x1f]+", "text without control characters")
]


class DatasetSpec(ApiModel):
    """What to learn from, and what to hold out."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.validation) && has(self.validationSplit))",
            "not together with validation, which already names the held-out rows",
            ".validationSplit",
            "FieldValueForbidden",
            lambda self: self.validation is None or self.validation_split is None,
        ),
    )

    train: Annotated[list[DataSource], Field(min_length=1, max_length=64)] = Field(description="Training rows.")
    validation: Annotated[list[DataSource], Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="Held-out rows. Left out, a part of the training rows is held out."
    )
    validation_split: Annotated[float, Field(gt=0, le=0.5)] | None = Field(
        default=None,
        description="Fraction of the training rows that is held out, by a hash of the seed and each row's content: "
        "equal rows are on one side. Left out: 0.1.",
    )
    format: Literal["auto", "jsonl", "csv", "parquet", "text"] = Field(
        default="auto",
        description="Format of the files: jsonl (also JSON lists), csv (with a header; comma, semicolon or tab), "
        "parquet, or text (for text-generation: two empty lines set documents apart). auto: by suffix and content.",
    )
    columns: Annotated[dict[ColumnName, ColumnName], Field(max_length=32)] | None = Field(
        default=None, description="Name that the task expects → name in the files. Left out: none."
    )
    max_rows: Annotated[int, Field(ge=2, le=100_000_000)] | None = Field(
        default=None, description="At most so many training rows are used, the first of the files. Left out: all."
    )


TEMPLATE_IS_CONVERSATION = Rule(
    f"!has(self.model.chatTemplate) || self.task in {quoted(TEMPLATE_TASKS)}",
    f"only for {', '.join(TEMPLATE_TASKS)}: the rows of other tasks are no conversations",
    ".model.chatTemplate",
    "FieldValueForbidden",
    check=lambda self: self.model.chat_template is None or self.task in TEMPLATE_TASKS,
)

TEXT_FILES = Rule(
    "self.dataset.format != 'text' || self.task == 'text-generation'",
    "text is for task text-generation: the rows of other tasks have columns",
    ".dataset.format",
    check=lambda self: self.dataset.format != "text" or self.task == "text-generation",
)
