"""Merging and exporting: what consumers load is what was trained."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import onnxruntime_genai
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.export.genai import ARCHITECTURES, architecture_of, check_exportable, export_onnx
from strop_trainer.export.merge import merge_adapter
from strop_trainer.export.runners import LogitsRunner, model_file, weight_precision
from strop_trainer.plan import ProofPlan
from strop_trainer.proof import ProofRow, prove
from tests.support.models import tiny_llama

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]

FAMILIES = {
    "granite": "GraniteForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
IDS = list(range(40, 60))


def adapter_for(base: Path, out: Path) -> Path:
    """Write a LoRA adapter with weights that change the answer."""
    model: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(out)
    return out


def torch_logits(model: Any) -> Any:
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0]


def test_merging_changes_the_form_and_not_the_answer(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    adapter = adapter_for(base, tmp_path / "adapter")
    merge_adapter(base, adapter, tmp_path / "merged")
    tuned = torch_logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval())
    merged = torch_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    assert (merged - tuned).abs().max() < 1e-5
    assert (merged - torch_logits(AutoModelForCausalLM.from_pretrained(base))).abs().max() > 1e-2


def test_a_bf16_base_is_merged_in_fp32(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    adapter = adapter_for(base, tmp_path / "adapter")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    merge_adapter(base, adapter, tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "float32"
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.float32}


def test_the_merged_folder_is_whole(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    GenerationConfig(eos_token_id=[2, 0], repetition_penalty=1.5).save_pretrained(base)
    merge_adapter(base, adapter_for(base, tmp_path / "adapter"), tmp_path / "merged")
    assert GenerationConfig.from_pretrained(tmp_path / "merged").eos_token_id == [2, 0]
    messages = [{"role": "user", "content": "one"}]
    texts = {
        AutoTokenizer.from_pretrained(tmp_path / name).apply_chat_template(messages, tokenize=False)
        for name in ("base", "merged")
    }
    assert texts == {"<|im_start|>user\none<|im_end|>\n"}


def test_an_adapter_with_broken_weights_is_not_merged(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    loaded: Any = AutoModelForCausalLM.from_pretrained(base)
    model: Any = get_peft_model(loaded, LoraConfig(target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(float("nan"))
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="NaNs detected"):
        merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_each_family_that_is_offered_is_exported_right(family: str, tied: bool, tmp_path: Path) -> None:
    own = {"original_max_position_embeddings": 512} if family == "phi3" else {}
    merged = tiny_llama(tmp_path / "merged", architecture=family, tie_word_embeddings=tied, **own)
    assert architecture_of(merged) == FAMILIES[family]
    export_onnx(merged, tmp_path / "onnx", "fp32")
    (found,) = prove(merged, {"fp32": tmp_path / "onnx"}, [ProofRow([*IDS, 2], 10, "")], ProofPlan(), 8)
    assert found.reasons == ()
    assert found.measured.max_logit_difference < 1e-5


def test_all_families_that_are_offered_are_tried() -> None:
    assert set(FAMILIES.values()) == ARCHITECTURES


def test_heads_wider_than_their_share_are_exported_right(tmp_path: Path) -> None:
    merged = tiny_llama(tmp_path / "merged", architecture="qwen3", head_dim=128, vocab_size=520)
    export_onnx(merged, tmp_path / "onnx", "fp32")
    (found,) = prove(merged, {"fp32": tmp_path / "onnx"}, [ProofRow([*IDS, 2], 10, "")], ProofPlan(), 8)
    assert found.reasons == ()


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_an_export_is_a_folder_that_both_runtimes_load(precision: Any, tmp_path: Path) -> None:
    merged = tiny_llama(tmp_path / "merged")
    out = tmp_path / "onnx"
    export_onnx(merged, out, precision)
    assert sorted(path.name for path in out.iterdir()) == [
        "chat_template.jinja",
        "genai_config.json",
        "model.onnx",
        "model.onnx.data",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert weight_precision(out) == precision
    session = onnxruntime.InferenceSession(str(model_file(out)), providers=["CPUExecutionProvider"])
    assert {item.type for item in session.get_inputs()} == {"tensor(int64)", "tensor(float)"}  # never fp16 on a CPU
    assert LogitsRunner(out, 1).logits(IDS, 5).shape == (5, 512)
    model = onnxruntime_genai.Model(str(out))
    tokenizer = onnxruntime_genai.Tokenizer(model)
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one two"}]
    text = tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True)
    ours = AutoTokenizer.from_pretrained(merged)
    assert text == ours.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert list(tokenizer.encode(text)) == ours(text, add_special_tokens=False)["input_ids"]


def test_the_end_of_a_turn_ends_an_answer(tmp_path: Path) -> None:
    merged = tiny_llama(tmp_path / "merged")
    GenerationConfig(eos_token_id=0).save_pretrained(merged)
    export_onnx(merged, tmp_path / "onnx", "fp32")
    config = json.loads((tmp_path / "onnx" / "genai_config.json").read_text())
    assert set(config["model"]["eos_token_id"]) == {0, 2}  # the model's own, and the tokenizer's end of turn


def test_an_architecture_that_cannot_be_exported_is_named(tmp_path: Path) -> None:
    merged = tiny_llama(tmp_path / "merged", architecture="olmo2")
    expected = "found architecture Olmo2ForCausalLM, ONNX export supports"
    with pytest.raises(TrainerError, match=expected) as caught:
        check_exportable(merged)
    assert caught.value.exit_code == ExitCode.BAD_CONFIGURATION
    with pytest.raises(TrainerError, match=expected):
        export_onnx(merged, tmp_path / "onnx", "fp32")
    assert not (tmp_path / "onnx").exists()


def test_a_builder_that_fails_tells_its_last_words(tmp_path: Path) -> None:
    merged = tiny_llama(tmp_path / "merged")
    (merged / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(TrainerError, match=r"ONNX export in fp32 failed: SafetensorError: .*\(.*\)"):
        export_onnx(merged, tmp_path / "onnx", "fp32")
    assert not (tmp_path / "onnx").exists()


def test_exporting_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export_onnx(tiny_llama(tmp_path / "merged"), tmp_path / "onnx", "fp32")
    assert "Saving ONNX model" not in "".join(capfd.readouterr())


def test_whether_a_model_can_be_exported_is_told_without_torch(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    script = (
        "import sys; from pathlib import Path; from strop_trainer.export.genai import check_exportable\n"
        f"check_exportable(Path({str(tmp_path)!r}))\n"
        "print([name for name in ('torch', 'transformers', 'onnx') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "[]\n"
