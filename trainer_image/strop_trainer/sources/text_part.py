"""The text part of a model that reads images beside text, as a model of its own. No torch here.

Such a model is tuned on text by its text part, a causal language model that transformers has a class for. It is cut out
of the folder once: the same tensors under the names of that class, with its configuration and tokenizer. All that comes
after sees a plain folder of text.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from strop_trainer.errors import bad_configuration, missing_input

CLASSES: Final[Mapping[str, Mapping[str, str]]] = {
    "gemma3": {"gemma3_text": "Gemma3ForCausalLM"},
    "mistral3": {"mistral": "MistralForCausalLM", "ministral3": "Ministral3ForCausalLM"},
}
"""Model type → model type of its text part → transformers' class of that, for what our tests prove right."""
MARK: Final = "text-part.json"
"""In a folder that was cut out: what it was cut out of."""
_NAMES: Final = (
    (re.compile(r"^language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^language_model\.model\."), "model."),
    (re.compile(r"^model\.language_model\."), "model."),
    (re.compile(r"^lm_head\."), "lm_head."),
)
"""Names in folders as they are published, and as transformers 5 has them in memory → the text class's."""
_LEFT_OUT: Final = re.compile(r"^(model\.)?(vision_tower|multi_modal_projector)\.")
_HEAD: Final = "lm_head.weight"
_COPIED: Final = (".json", ".jinja", ".model", ".spm", ".txt")
_NOT_COPIED: Final = frozenset(
    {
        "config.json", "model.safetensors.index.json", "chat_template.json", "params.json", "preprocessor_config.json",
        "processor_config.json", "tekken.json",
    }
)  # fmt: skip
_TOKENS: Final = ("bos_token_id", "eos_token_id", "pad_token_id")
_CHUNK: Final = 1 << 24
_IMAGES: Final = r"(?!(?:.*\.)?(?:vision_tower|multi_modal_projector)\.)"
_INNER: Final = "base_model.model.model."


@dataclass(frozen=True)
class Tensor:
    """A tensor of the text part in a safetensors file."""

    file: Path
    name: str
    """By the text class."""
    form: Mapping[str, Any]
    """Its dtype and shape, as the file's header says."""
    begin: int
    end: int
    """Where its bytes are in the file."""


def text_class(config: Mapping[str, Any]) -> str | None:
    """Return transformers' class of a model's text part, by its whole configuration; None where Strop has none."""
    inner = config.get("text_config")
    kinds = CLASSES.get(str(config.get("model_type")))
    if kinds is None or not isinstance(inner, dict) or "audio_config" in config:
        return None
    return kinds.get(inner.get("model_type", next(iter(kinds))))


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of the text part that a configuration is of, or the configuration itself."""
    architecture = text_class(config)
    if architecture is None:
        return dict(config)
    kind = next(iter(CLASSES[str(config["model_type"])]))
    own = {"model_type": kind, **{name: value for name, value in config["text_config"].items() if name != "auto_map"}}
    outer = {name: config[name] for name in (*_TOKENS, "dtype", "torch_dtype") if name in config}
    return {**outer, **own, "architectures": [architecture]}


def text_tensors(folder: Path, source: str) -> list[Tensor]:
    """Return the tensors of the text part of a folder.

    Raises:
        TrainerError: a file is not of safetensors, or holds what belongs to no part that is known (exit 78).
    """
    found: list[Tensor] = []
    for file in weight_files(folder):
        header, begin = _header(file, source)
        for name, form in header.items():
            if name == "__metadata__" or _LEFT_OUT.match(name):
                continue
            new = next((pattern.sub(to, name) for pattern, to in _NAMES if pattern.match(name)), None)
            if new is None:
                raise bad_configuration(
                    f"model folder {source}: {file.name} has a tensor {name}, which is neither of the text part nor of "
                    "what reads images"
                )
            first, last = form["data_offsets"]
            kept = {"dtype": form["dtype"], "shape": form["shape"]}
            found.append(Tensor(file, new, kept, begin + first, begin + last))
    return found


def cut(folder: Path, source: str, into: Path) -> tuple[Path, int]:
    """Write the text part of a checked folder as a model folder of its own, once.

    Args:
        folder: of the model that reads images beside text.
        source: as the job names it, for messages.
        into: where fetched things are.

    Returns:
        its folder, and the bytes of its weights.

    Raises:
        TrainerError: its weights are not of the form that is known (exit 78).
    """
    tensors = text_tensors(folder, source)
    size = sum(tensor.end - tensor.begin for tensor in tensors)
    stats = [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in sorted(folder.iterdir())]
    key = hashlib.sha256(json.dumps([source, stats]).encode()).hexdigest()[:16]
    out = into / f"text-{key}"
    if out.is_dir():
        return out, size
    # Ranks find it there: who starts them has been here before.
    staging = into / f".text-{key}.part"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    config = json.loads((folder / "config.json").read_bytes())
    own = text_config(config) | {"tie_word_embeddings": all(tensor.name != _HEAD for tensor in tensors)}
    _dump(own, staging / "config.json")
    _dump({"source": source, "architecture": (config.get("architectures") or [None])[0]}, staging / MARK)
    for file in folder.iterdir():
        if file.is_file() and file.suffix in _COPIED and file.name not in _NOT_COPIED:
            shutil.copyfile(file, staging / file.name)
    _copy_templates(folder, staging)
    where: dict[str, str] = {}
    for file in dict.fromkeys(tensor.file for tensor in tensors):
        held = [tensor for tensor in tensors if tensor.file == file]
        _write(held, staging / file.name)
        where |= {tensor.name: file.name for tensor in held}
    if set(where.values()) != {"model.safetensors"}:
        _dump({"metadata": {"total_size": size}, "weight_map": where}, staging / "model.safetensors.index.json")
    staging.rename(out)
    return out, size


def fit_whole(adapter: Path) -> None:
    """Name what a PEFT folder holds for the text part as the whole model does, which it is published for.

    Only layers of the text part are named: what reads images has layers of the same endings.
    """
    weights, config_file = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    header, begin = _header(weights, str(adapter))
    tensors = [
        Tensor(
            weights,
            f"{_INNER}language_model.{name.removeprefix(_INNER)}" if name.startswith(_INNER) else name,
            {"dtype": form["dtype"], "shape": form["shape"]},
            begin + form["data_offsets"][0],
            begin + form["data_offsets"][1],
        )
        for name, form in header.items()
        if name != "__metadata__"
    ]
    renamed = weights.with_suffix(".part")
    _write(tensors, renamed)
    renamed.replace(weights)
    config = json.loads(config_file.read_bytes())
    for field in ("target_modules", "feedforward_modules"):
        if config.get(field):
            config[field] = _expression(config[field])
    _dump(config, config_file)


def _expression(layers: str | Sequence[str]) -> str:
    """Return an expression for the full names of layers of the text part in the whole model."""
    if isinstance(layers, str):
        return f"{_IMAGES}(?:{layers})"
    names = [re.sub(r"^model\.", "model.language_model.", name) for name in sorted(layers)]
    return rf"{_IMAGES}(?:.*\.)?(?:{'|'.join(map(re.escape, names))})"


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that transformers loads of a folder; there may be none."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values()))]
    single = folder / "model.safetensors"
    # Mistral's folders hold the weights a second time, as consolidated.safetensors.
    return [single] if single.is_file() else []


def _header(file: Path, source: str) -> tuple[dict[str, Any], int]:
    """Return a safetensors file's header, and where the tensors' bytes begin: 8 bytes of its length, JSON, tensors."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            # A file of another form says any length.
            return json.loads(opened.read(min(length, file.stat().st_size))), 8 + length
    except FileNotFoundError:
        raise missing_input(f"model folder {source} has no {file.name}") from None
    except ValueError as error:
        raise bad_configuration(f"model folder {source}: {file.name} is not of safetensors: {error}") from None


def _write(tensors: Sequence[Tensor], out: Path) -> None:
    """Write tensors of one safetensors file to another, as they are, under their names."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        size = tensor.end - tensor.begin
        header[tensor.name] = {**tensor.form, "data_offsets": [at, at + size]}
        at += size
    words = json.dumps(header, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    with out.open("wb") as opened:
        opened.write(len(words).to_bytes(8, "little") + words)
        for tensor in tensors:
            for chunk in _bytes_of(tensor):
                opened.write(chunk)


def _bytes_of(tensor: Tensor) -> Iterator[bytes]:
    with tensor.file.open("rb") as opened:
        opened.seek(tensor.begin)
        left = tensor.end - tensor.begin
        while left:
            chunk = opened.read(min(left, _CHUNK))
            if not chunk:
                raise bad_configuration(f"model: {tensor.file.name} ends within {tensor.name}")
            left -= len(chunk)
            yield chunk


def _copy_templates(folder: Path, out: Path) -> None:
    """Copy the chat templates; one that only the processor of text and images reads becomes the tokenizer's."""
    more = "additional_chat_templates"
    if (folder / more).is_dir():
        shutil.copytree(folder / more, out / more)
    processors, tokenizer = folder / "chat_template.json", folder / "tokenizer_config.json"
    own = json.loads(tokenizer.read_bytes()).get("chat_template") if tokenizer.is_file() else None
    if processors.is_file() and not own and not (out / "chat_template.jinja").exists():
        template = json.loads(processors.read_bytes()).get("chat_template")
        if isinstance(template, str):
            (out / "chat_template.jinja").write_text(template, encoding="utf-8")


def _dump(document: Mapping[str, Any], file: Path) -> None:
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
