"""Is a folder a model that may be loaded? Judged by its files alone, before torch is imported."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from strop_trainer.errors import bad_configuration, missing_input
from strop_trainer.sources.local import inside
from strop_trainer.sources.text_part import text_class, text_config, text_tensors, weight_files

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
NOT_TEXT = ("vision_config", "audio_config")
"""Parts of a configuration that tell of a model that reads images or sound beside text."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""Names by which configurations tell of experts: Qwen's, Mixtral's, DeepSeek's."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
FINGERPRINTED = (".safetensors", ".json", ".jinja", ".model", ".spm", ".txt")


@dataclass(frozen=True)
class ModelFolder:
    """A checked model folder."""

    source: str
    path: Path
    model_type: str
    architecture: str
    weight_bytes: int
    encoder_decoder: bool = False
    """One part reads a text, another writes."""
    experts: bool = False
    """Its MLPs are mixtures of experts."""
    whole: Path | None = None
    """Folder of the model that reads images beside text, of which this is the text part."""


def check_model_folder(path: Path, source: str, *, chat: bool) -> ModelFolder:
    """Check that a folder has a configuration, safetensors weights and a tokenizer, and wants no code of its own run.

    Args:
        path: the folder.
        source: as the job names it, for messages.
        chat: the tokenizer must bring a chat template.

    Raises:
        TrainerError: what is missing (exit 66) or not supported (exit 78), in words.
    """
    where = f"model folder {source}"
    config = _json(path, "config.json", source)
    if config is None:
        raise missing_input(f"{where} has no config.json: expected a Hugging Face model folder")
    tokenizer = _json(path, "tokenizer_config.json", source)
    model_type, architectures = config.get("model_type"), config.get("architectures") or []
    if not isinstance(model_type, str) or not model_type:
        raise bad_configuration(f"{where}: config.json has no model_type, so its architecture is not known")
    # Phi-3's and other folders name code that transformers has had of its own since; that is used, and no other.
    if config.get("auto_map") and not transformers_has(model_type):
        raise bad_configuration(
            f"{where} needs remote code: transformers knows no {model_type} itself, and the folder's own code "
            "(auto_map) is never run; use a natively supported model"
        )
    part = text_class(config)
    if part is None and "text_config" in config and (others := [name for name in NOT_TEXT if name in config]):
        raise bad_configuration(
            f"{where} is of {model_type}, which reads more than text ({', '.join(others)}), allowed: a model of text "
            "alone, such as google/gemma-3-1b-it, or one whose text part Strop cuts out: Gemma 3, Mistral 3"
        )
    if part is not None and config.get("quantization_config"):
        raise bad_configuration(
            f"{where} has quantized weights (quantization_config), allowed for the text part of {model_type}: bf16, "
            "fp16 or fp32"
        )
    if (tokenizer or {}).get("auto_map"):
        raise bad_configuration(
            f"{where} needs remote code for its tokenizer (auto_map), which is never run; use a native one"
        )
    encoder_decoder = config.get("is_encoder_decoder") is True
    kind = "AutoModelForSeq2SeqLM" if encoder_decoder else "AutoModelForCausalLM"
    weight_bytes = _weights(path, source, kind)
    if part is not None:
        weight_bytes = sum(tensor.end - tensor.begin for tensor in text_tensors(path, source))
        config = text_config(config)
        model_type, architectures = str(config["model_type"]), [part]
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise missing_input(f"{where} has no tokenizer: expected tokenizer.json or tokenizer_config.json")
    if chat and not encoder_decoder and not _has_chat_template(path, tokenizer or {}):
        raise missing_input(
            f"{where} has no chat template: expected chat_template.jinja, or chat_template in tokenizer_config.json; "
            "take the model's instruct variant, or add its template"
        )
    architecture = str(next(iter(architectures), model_type))
    experts = any(isinstance(config.get(name), int) and config[name] > 1 for name in EXPERTS)
    whole = None if part is None else path
    return ModelFolder(source, path, model_type, architecture, weight_bytes, encoder_decoder, experts, whole)


def transformers_has(model_type: str) -> bool:
    """Whether transformers has code of its own for a model type; asked of its files, as importing it takes seconds.

    Without transformers it is not told; the trainer, which has it, will.
    """
    package = find_spec("transformers")
    if package is None or not package.submodule_search_locations:
        return True
    name = model_type.replace("-", "_")
    if not name.isidentifier():
        return False
    return (Path(package.submodule_search_locations[0]) / "models" / name / f"modeling_{name}.py").is_file()


def fingerprint(path: Path, threads: int = 2) -> str:
    """Return `sha256:<hex>` over the names and hashes of a model's weight, config and tokenizer files."""
    files = sorted(file for file in path.iterdir() if file.is_file() and file.suffix in FINGERPRINTED)

    def digest(file: Path) -> str:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    with ThreadPoolExecutor(threads) as pool:
        lines = [f"{file.name} {found}\n" for file, found in zip(files, pool.map(digest, files), strict=True)]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def _weights(path: Path, source: str, kind: str) -> int:
    """Return the bytes of the weights; `kind` is transformers' class that loads them."""
    where = f"model folder {source}"
    index = _json(path, "model.safetensors.index.json", source)
    if index is not None:
        shards = sorted(set(index.get("weight_map", {}).values()))
        for shard in shards:
            inside(path, str(shard), source, where)
        missing = [shard for shard in shards if not (path / shard).is_file()]
        if missing or not shards:
            raise missing_input(
                f"{where}: model.safetensors.index.json names {missing or 'nothing'}, which is not there"
            )
    found = weight_files(path)
    if found:
        return sum(file.stat().st_size for file in found)
    pickled = sorted(file.name for file in path.iterdir() if file.suffix in PICKLED)
    if pickled:
        raise bad_configuration(
            f"{where} has its weights as {pickled[0]} only, a format that can run code when it is loaded; convert it "
            f"once, where you trust it: {kind}.from_pretrained(folder).save_pretrained(new_folder), "
            "which writes model.safetensors"
        )
    others = ", ".join(sorted(file.name for file in path.glob("*.safetensors"))) or "nothing"
    raise missing_input(f"{where} has no weights: found {others}, expected model.safetensors, or its parts and index")


def _has_chat_template(path: Path, tokenizer: dict[str, Any]) -> bool:
    return (
        bool(tokenizer.get("chat_template"))
        or (path / "chat_template.jinja").is_file()
        or (path / "chat_template.json").is_file()
        or any((path / "additional_chat_templates").glob("*.jinja"))
    )


def _json(path: Path, name: str, source: str) -> dict[str, Any] | None:
    file = path / name
    if not file.is_file():
        return None
    try:
        document = json.loads(file.read_bytes())
    except ValueError as error:
        raise bad_configuration(f"model folder {source}: {name} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise bad_configuration(f"model folder {source}: {name} is not a JSON object")
    return document
