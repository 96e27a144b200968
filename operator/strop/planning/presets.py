"""What is known of a base model before anything is fetched: its preset, or what its size tells."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Annotated, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

from strop.api.finetunejob import ModelSpec

Family = Literal["llama", "qwen", "mistral", "gemma", "phi", "t5", "bart", "unknown"]

_SIZE_IN_NAME: Final = re.compile(r"(?<![^-_.])(?<!\d\.)(?:(\d{1,3})[xX])?(\d{1,4}(?:\.\d{1,3})?)([mMbB])(?=$|[-_.])")
"""A size, or experts times a size: `7B`, `8x7B`. No end of a number such as `7B` in `A2.7B`, which is active alone."""
_EXPERTS_IN_NAME: Final = re.compile(r"(?<![^-_.])\d{1,3}[eE](?=$|[-_.])")
"""As in `17B-16E`: the size beside it is of what is active."""
_NAMED_EXPERTS: Final = re.compile(r"(?<![^-_.])(?:\d{1,3}x\d|a\d[\d.]*[bm](?![a-z\d]))|moe(?![a-z])", re.IGNORECASE)
"""As in `8x7B`, `30B-A3B`, `OLMoE`."""
_SMALLEST_EXPERT: Final = (2048, 768)
"""Of Qwen3-30B-A3B; adapters of small experts are a larger share of their weights."""
_FAMILIES: Final[tuple[tuple[str, Family], ...]] = (
    (r"qwen|qwq", "qwen"),
    (r"llama|smollm", "llama"),
    (r"mistral|mixtral|ministral|codestral", "mistral"),
    (r"gemma", "gemma"),
    (r"(?<![a-z])phi(?![a-z])", "phi"),
)
"""What stands in the name of a model → the family that it is derived from."""
_ATTENTION_LAYERS: Final = 4
"""Linear layers of one attention: queries, keys, values, output."""
_LARGEST_ENCODER: Final = 1_000_000_000
"""Parameters; the encoders that are in use are smaller, but for a few."""
_TYPICAL_VOCABULARY: Final = 128_256
"""Of a recent large model: a large vocabulary errs towards too much memory."""


class _Frozen(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Shape(_Frozen):
    """Shape of a transformer, as in its config.json."""

    hidden: int
    layers: int
    """Of the decoder."""
    encoder_layers: int = 0
    """Of the encoder; 0: there is none. With one, each layer of the decoder attends to the source as well."""
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    """The head shares the embedding's weights."""
    gated: bool = True
    """The MLP has gate, up and down projections (SwiGLU, GeGLU), else two."""
    expert: tuple[int, int] | None = None
    """(width of the model, inner width) of each expert, at the least, where they are most of the weights; what else is
    said is of a model without experts that has as many weights. None: there are none."""
    logits_in_parts: bool = False
    """Whether the output layer is known to give the logits as they are, so that the loss takes them in parts."""

    @property
    def linear_layers(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each linear layer of one block: q, k, v, o and the MLP's."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = ((self.hidden, query), (self.hidden, key), (self.hidden, key), (query, self.hidden))
        up = (self.hidden, self.intermediate)
        mlp = (up, up) if self.gated else (up,)
        return (*attention, *mlp, (self.intermediate, self.hidden))

    @property
    def parameters(self) -> int:
        """Weights of the linear layers and embeddings; norms and biases (under 1 %) are left out."""
        block = sum(inputs * outputs for inputs, outputs in self.linear_layers)
        to_source = sum(inputs * outputs for inputs, outputs in self.linear_layers[:_ATTENTION_LAYERS])
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        crossing = self.layers * to_source if self.encoder_layers else 0
        return (self.layers + self.encoder_layers) * block + crossing + embeddings

    @property
    def covering(self) -> Shape:
        """The shape of a model without encoder that needs no less memory with as many tokens.

        A layer of the decoder that also attends to the source counts as two.
        """
        if not self.encoder_layers:
            return self
        return self.model_copy(update={"layers": self.encoder_layers + 2 * self.layers, "encoder_layers": 0})


class Architecture(_Frozen):
    """A class of weights that presets have."""

    name: str
    linear: tuple[str, ...]
    """Names of the linear layers of a block, which adapters are for."""
    others: tuple[str, ...]
    """Names of what else has weights and can be trained in full, but for both ends: norms, positions, whole parts."""
    onnx: bool
    """Whether the trainer exports it to ONNX as a model that answers in words."""
    encoder_decoder: bool = False
    """Whether it reads one text and writes another."""


class Preset(_Frozen):
    """A model that Strop knows."""

    name: str
    architecture: str
    """Class of the weights, one of the file's `architectures`."""
    template: str | None = None
    """What its chat template is like, one of the file's `templates`."""
    sources: tuple[str, ...]
    """Hugging Face repositories of this shape, owner/name."""
    licence: str
    family: Family
    images: bool = False
    """Whether it reads images beside text: its text part is trained, which all that follows is of."""
    parameters: int
    shape: Shape
    context_length: int | None
    """Tokens; the longest row that the model was made for. None: its positions are relative, and have no end."""


class _Kind(_Frozen):
    linear: tuple[str, ...]
    others: tuple[str, ...]
    onnx: bool
    encoder_decoder: bool = False


class _Refused(_Frozen):
    sources: tuple[str, ...]
    reason: str


class PresetFile(_Frozen):
    """What presets.yaml says."""

    architectures: dict[str, _Kind]
    templates: dict[str, str]
    refused: tuple[_Refused, ...]
    experts: tuple[str, ...]
    revisions: dict[str, Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]]
    presets: tuple[Preset, ...]


class ModelFacts(_Frozen):
    """What planning goes by."""

    parameters: int | None
    """None: nothing tells the size."""
    shape: Shape | None
    """Without encoder: of a model that has one, a shape that covers it."""
    family: Family
    context_length: int | None
    basis: str
    """Where this is from, in words."""
    architecture: Architecture | None = None
    """None: not known before the model is fetched."""
    images: bool = False
    """Whether it is known to read images beside text, so that its text part is trained."""
    licence: str | None = None
    """Of the base model; None: not known."""
    peculiar: str | None = None
    """What is peculiar about its chat template, in words."""
    revision: str | None = None
    """Commit that the preset pins of an hf:// source, 40 hexadecimal digits; None: none is pinned."""

    @property
    def may_be_encoder(self) -> bool:
        """Whether it may be an encoder, for all that is known: presets are of language models, encoders small."""
        return self.architecture is None and (self.parameters is None or self.parameters <= _LARGEST_ENCODER)


_FILE: Final = PresetFile.model_validate(
    yaml.safe_load(files("strop.planning").joinpath("presets.yaml").read_text(encoding="utf-8"))
)
PRESETS: Final[tuple[Preset, ...]] = _FILE.presets
ARCHITECTURES: Final = {name: Architecture(name=name, **dict(kind)) for name, kind in _FILE.architectures.items()}
TEMPLATES: Final = _FILE.templates
"""Name → what is peculiar about a chat template."""
REVISIONS: Final = _FILE.revisions
"""Hugging Face repository, owner/name → the commit that is taken where a job says none."""

_REVISION_OF: Final = {source.lower(): commit for source, commit in REVISIONS.items()}
_REFUSED: Final = {source.lower(): entry.reason for entry in _FILE.refused for source in entry.sources}
_EXPERTS: Final = {source.lower() for source in _FILE.experts}
_BY_REPOSITORY: Final = {source.lower(): preset for preset in PRESETS for source in preset.sources}
_BY_FOLDER: Final = {source.rpartition("/")[2]: preset for source, preset in _BY_REPOSITORY.items()}


def model_facts(model: ModelSpec) -> ModelFacts:
    """Return what is known of a job's base model.

    A preset is found by the repository of an hf:// source, else by the last element of the path (a folder named as the
    repository). Without one, `model.parameters` or the largest size in the name (`…-7B-…`) gives a typical shape of it.
    """
    name, repository = _last_element(model.source), _repository(model)
    preset = _BY_REPOSITORY.get(repository) if repository else _BY_FOLDER.get(name.lower())
    if preset is not None:
        parts = not ARCHITECTURES[preset.architecture].encoder_decoder
        return ModelFacts(
            parameters=preset.parameters,
            shape=preset.shape.covering.model_copy(update={"logits_in_parts": parts}),
            family=preset.family,
            context_length=preset.context_length,
            basis=f"preset {preset.name}",
            architecture=ARCHITECTURES[preset.architecture],
            images=preset.images,
            licence=preset.licence,
            peculiar=TEMPLATES[preset.template].strip() if preset.template else None,
            revision=_REVISION_OF.get(repository) if repository else None,
        )
    family = _family_of(name)
    if model.parameters is not None:
        basis = f"a typical model of model.parameters, {model.parameters}"
        return _of_size(parse_parameters(model.parameters), basis, family, _expert_of(model))
    if found := _size_in(name):
        size, parameters = found
        return _of_size(
            parameters, f"a typical model of the size in the name {name!r}, {size}", family, _expert_of(model)
        )
    return ModelFacts(
        parameters=None,
        shape=None,
        family=family,
        context_length=None,
        basis=f"nothing: no preset is named {name!r}, and model.parameters is not given",
    )


def refusal_of(model: ModelSpec) -> str | None:
    """Return why a model is known not to be tunable, in words; None where nothing is known against it."""
    folder = _last_element(model.source).lower()
    if repository := _repository(model):
        return _REFUSED.get(repository)
    return next((reason for source, reason in _REFUSED.items() if source.rpartition("/")[2] == folder), None)


def has_experts(model: ModelSpec) -> bool:
    """Whether a model is known to be a mixture of experts."""
    repository, folder = _repository(model), _last_element(model.source).lower()
    return repository in _EXPERTS if repository else folder in {name.rpartition("/")[2] for name in _EXPERTS}


def _repository(model: ModelSpec) -> str | None:
    """Return owner/name of an hf:// source, in small letters."""
    return model.source.removeprefix("hf://").lower() if model.source.startswith("hf://") else None


def parse_parameters(text: str) -> int:
    """Return the number of parameters that `135M` or `1.5B` says.

    Raises:
        ValueError: the text is of another form.
    """
    factor = {"M": 10**6, "B": 10**9}.get(text[-1:])
    if factor is None:
        raise ValueError(f"parameters: found {text!r}, allowed: a number with M or B, such as 135M")
    return round(float(text[:-1]) * factor)


def _size_in(name: str) -> tuple[str, int] | None:
    """Return the largest size in a name, as it is written and in parameters; None where there is none.

    A name may have what is active beside what there is (`OLMoE-1B-7B`). Experts share what is no MLP, so that their
    product is an upper bound.
    """
    if _EXPERTS_IN_NAME.search(name):
        return None
    sizes = {
        f"{match[1]}x{size}" if match[1] else size: int(match[1] or 1) * parse_parameters(size)
        for match in _SIZE_IN_NAME.finditer(name)
        for size in [f"{match[2]}{match[3].upper()}"]
    }
    return max(sizes.items(), key=lambda item: item[1], default=None)


def typical_shape(parameters: int) -> Shape:
    """Return the shape of a Llama-like model of about so many parameters.

    Depth grows with width as in the Llama 3, Qwen 2.5 and SmolLM2 families: some 130 units of width a layer, within
    16 and 80 layers; MLP 3.5 x width; one key-value head to four query heads. The width is the smallest multiple of
    64 that reaches the size.
    """
    hidden = 128
    while True:
        shape = _shape_of_width(hidden)
        if shape.parameters >= parameters:
            return shape
        hidden += 64


def _shape_of_width(hidden: int) -> Shape:
    head_dim = 128 if hidden >= 2048 else 64  # noqa: PLR2004 - where the families change from 64 to 128
    heads = max(1, hidden // head_dim)
    return Shape(
        hidden=hidden,
        layers=min(80, max(16, hidden // 128)),
        heads=heads,
        kv_heads=max(1, heads // 4),
        head_dim=head_dim,
        intermediate=hidden * 7 // 2,
        vocabulary=_TYPICAL_VOCABULARY,
        tied=hidden < 3584,  # noqa: PLR2004 - models up to some 4B share embedding and head
    )


def _family_of(name: str) -> Family:
    """Return the family that a model is named after; of several the last, as in `DeepSeek-R1-Distill-Qwen-7B`."""
    found = [(match.start(), family) for words, family in _FAMILIES for match in re.finditer(words, name.lower())]
    return max(found)[1] if found else "unknown"


def _of_size(parameters: int, basis: str, family: Family, expert: tuple[int, int] | None) -> ModelFacts:
    if family != "unknown":
        basis = f"{basis}; of the {family} family by its name"
    shape = typical_shape(parameters).model_copy(update={"expert": expert})
    return ModelFacts(parameters=parameters, shape=shape, family=family, context_length=None, basis=basis)


def _expert_of(model: ModelSpec) -> tuple[int, int] | None:
    """Return (width of the model, inner width) of an expert, at the least; None: the name tells of none."""
    name = _last_element(model.source)
    product = next((match for match in _SIZE_IN_NAME.finditer(name) if match[1]), None)
    if product:
        alone = typical_shape(parse_parameters(f"{product[2]}{product[3].upper()}"))
        return alone.hidden, alone.intermediate
    named = _NAMED_EXPERTS.search(name) or _EXPERTS_IN_NAME.search(name) or has_experts(model)
    return _SMALLEST_EXPERT if named else None


def _last_element(source: str) -> str:
    return source.rstrip("/").rpartition("/")[2].removesuffix(".tar.gz")
