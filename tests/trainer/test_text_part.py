"""Models that read images beside text: their text part is trained, and what is published fits what it says."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.export.genai import export_onnx
from strop_trainer.plan import ProofPlan
from strop_trainer.proof import prove
from strop_trainer.proof_rows import ProofRow
from strop_trainer.sources.model_folder import check_model_folder, fingerprint
from strop_trainer.sources.text_part import cut
from tests.support.models import CHAT_TEMPLATE, tiny_images
from tests.support.training import Surroundings, make_plan, told_of_learnt_and_proven

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]

LINEAR = {"rope_type": "linear", "factor": 8.0}
"""As Gemma 3 from 4B up has it: of the layers that see all, not of those that see a window."""
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma-3": (
        "gemma3",
        {"num_hidden_layers": 6, "sliding_window": 24, "query_pre_attn_scalar": 16, "rope_scaling": LINEAR},
    ),
    "mistral-small-3.1": ("mistral3", {"tie_word_embeddings": False, "sliding_window": None, "rope_theta": 1e9}),
    "ministral-3": ("mistral3", {"model_type": "ministral3"}),
}
CLASSES = {"gemma-3": "Gemma3ForCausalLM", "mistral-small-3.1": "MistralForCausalLM"}
IDS = [7 * index % 400 for index in range(61)]


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model.eval()(torch.tensor([IDS])).logits[0]


def of_class(auto: Any, folder: Path) -> Any:
    return auto.from_pretrained(folder, dtype=torch.float32)


def as_in_memory(folder: Path) -> None:
    """Write the weights again under the names that transformers 5 has, in two files."""
    old = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    new = {}
    for name, value in old.items():
        renamed = name.replace("language_model.model.", "model.language_model.")
        renamed = renamed.replace("language_model.lm_head.", "lm_head.")
        new[renamed if renamed != name else f"model.{name}"] = value
    names = sorted(new)
    where = {name: f"model-0000{1 + position % 2}-of-00002.safetensors" for position, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: new[name] for name in names if where[name] == file}, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_part_answers_as_the_whole_model(family: str, in_memory: bool, tmp_path: Path) -> None:
    architecture, own = FAMILIES[family]
    folder = tiny_images(tmp_path / "whole", architecture, **own)
    if in_memory:
        as_in_memory(folder)
    checked = check_model_folder(folder, "pvc://models/m", chat=True)
    assert checked.whole == folder
    part, size = cut(folder, "pvc://models/m", tmp_path / "fetched")
    model, info = AutoModelForCausalLM.from_pretrained(part, dtype=torch.float32, output_loading_info=True)
    assert type(model).__name__ == checked.architecture
    assert json.loads((part / "config.json").read_text())["architectures"] == [checked.architecture]
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert size == checked.weight_bytes == 4 * model.num_parameters()
    assert torch.equal(logits(model), logits(of_class(AutoModelForImageTextToText, folder)))
    assert AutoTokenizer.from_pretrained(part).chat_template == CHAT_TEMPLATE
    before = sorted(file.stat().st_mtime_ns for file in part.iterdir())
    assert cut(folder, "pvc://models/m", tmp_path / "fetched") == (part, size)
    assert sorted(file.stat().st_mtime_ns for file in part.iterdir()) == before
    assert [path.name for path in (tmp_path / "fetched").iterdir()] == [part.name]


@pytest.mark.parametrize("family", CLASSES)
def test_it_is_trained_merged_exported_proven_and_handed_over(family: str, tmp_path: Path) -> None:
    around = Surroundings(tmp_path)
    around.write_rows()
    architecture, own = FAMILIES[family]
    folder = tiny_images(around.volumes / "models" / "tiny", architecture, **own)
    artifact = {"onnx": ["fp32", "int4"], "merged": True, "proof": {"metric_drop": 1.0}}
    ended = around.run(make_plan(hyperparameters={"max_steps": 16}, artifact=artifact))
    assert ended.code == 0, ended.output + ended.errors
    assert "its text part is trained" in ended.output
    version = around.registry / "tuned" / "1"
    told = told_of_learnt_and_proven(version)
    assert told.base_model.architecture == CLASSES[family]
    assert told.base_model.fingerprint == fingerprint(folder), "of the folder that the job names"
    merged = of_class(AutoModelForCausalLM, version / "merged")
    assert type(merged).__name__ == CLASSES[family]
    assert AutoTokenizer.from_pretrained(version / "merged").chat_template == CHAT_TEMPLATE
    # The adapter is for what it says its base is: the whole model.
    whole = PeftModel.from_pretrained(of_class(AutoModelForImageTextToText, folder), version / "adapter")
    adapted = [name for name, module in whole.named_modules() if hasattr(module, "lora_A")]
    assert adapted
    assert all(".language_model." in name for name in adapted)
    assert all(float(whole.get_submodule(name).lora_B["default"].weight.abs().max()) > 0 for name in adapted)
    assert (logits(whole) - logits(merged)).abs().max() < 1e-4
    card = (version / "README.md").read_text()
    assert "Its text part alone was trained and measured." in card
    assert "`merged/` and `onnx/` and `onnx-int4/` are that part: they read no images." in card
    assert "vllm serve" in card


def test_windows_are_not_scaled_in_the_export(tmp_path: Path) -> None:
    # A scale by which a row of 61 tokens tells that one of the two kinds of layers has the other's positions.
    own = {**FAMILIES["gemma-3"][1], "rope_scaling": {"rope_type": "linear", "factor": 100.0}}
    part, _ = cut(tiny_images(tmp_path / "whole", "gemma3", **own), "pvc://models/m", tmp_path)
    export_onnx(part, tmp_path / "onnx", "fp32")
    rows = [ProofRow([*IDS, 2], 40, "")]
    (found,) = prove(part, {"fp32": tmp_path / "onnx"}, rows, ProofPlan(), 8)
    assert found.reasons == ()
    assert found.measured.max_logit_difference < 1e-5


def test_ministral_3_has_no_export_and_publishes_its_adapter(tmp_path: Path) -> None:
    around = Surroundings(tmp_path)
    around.write_rows()
    architecture, own = FAMILIES["ministral-3"]
    tiny_images(around.volumes / "models" / "tiny", architecture, **own)
    ended = around.run(make_plan(hyperparameters={"max_steps": 2}, artifact={"onnx": ["fp32"]}))
    assert ended.code == 0, ended.output + ended.errors
    assert "no ONNX is published" in ended.output
    version = around.registry / "tuned" / "1"
    assert sorted(path.name for path in version.iterdir() if path.is_dir()) == ["adapter"]
    assert "answers about images were not measured" in (version / "README.md").read_text()


def test_a_template_of_the_processor_becomes_the_tokenizers(tmp_path: Path) -> None:
    folder = tiny_images(tmp_path / "whole")
    for file in folder.glob("*.jinja"):
        file.unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "{{ 'from the processor' }}"}))
    part, _ = cut(folder, "pvc://models/m", tmp_path / "fetched")
    found = AutoTokenizer.from_pretrained(part).apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert found == "from the processor"


def with_tensors(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda tensors: tensors.update({"audio_tower.weight": torch.zeros(1)}),
            "model.safetensors has a tensor audio_tower.weight, which is neither of the text part nor of what reads",
        ),
        (
            lambda tensors: tensors.pop("language_model.model.norm.weight"),
            "its weights lack 1 tensors, such as model.norm.weight",
        ),
        (
            lambda tensors: tensors.update({"language_model.model.layers.0.mlp.up_proj.scale": torch.zeros(1)}),
            "its text part has 1 tensors too many, such as model.layers.0.mlp.up_proj.scale",
        ),
    ],
)
def test_weights_that_are_not_all_loaded_are_refused(change: Any, words: str, tmp_path: Path) -> None:
    around = Surroundings(tmp_path)
    around.write_rows()
    with_tensors(tiny_images(around.volumes / "models" / "tiny"), change)
    ended = around.run(make_plan())
    assert ended.code == ExitCode.BAD_CONFIGURATION
    assert words in ended.message.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantization_config": {"quant_method": "fp8"}}, r"has quantized weights \(quantization_config\), allowed"),
        ({"text_config": {"model_type": "qwen3"}}, r"is of gemma3, which reads more than text \(vision_config\)"),
        ({"audio_config": {}}, r"is of gemma3, which reads more than text \(vision_config, audio_config\)"),
        ({"model_type": "llava"}, r"is of llava, which reads more than text \(vision_config\), allowed"),
    ],
)
def test_what_stays_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = tiny_images(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TrainerError, match=words) as caught:
        check_model_folder(folder, "pvc://models/m", chat=True)
    assert caught.value.exit_code == ExitCode.BAD_CONFIGURATION


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    folder = tiny_images(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{")
    with pytest.raises(TrainerError, match=r"model\.safetensors is not of safetensors: "):
        check_model_folder(folder, "pvc://models/m", chat=True)


def test_tokens_in_front_of_a_row_are_refused_for_a_text_part(tmp_path: Path) -> None:
    around = Surroundings(tmp_path)
    around.write_rows()
    tiny_images(around.volumes / "models" / "tiny")
    method = {"type": "prompt-tuning", "virtual_tokens": 4, "lora": None}
    ended = around.run(make_plan(method=method, hyperparameters={"packing": False}))
    assert ended.code == ExitCode.BAD_CONFIGURATION
    assert "found prompt-tuning, allowed for the text part of a model that reads images" in ended.message.message
