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
from strop_trainer.export.exportable import ROPE_TYPES, architecture_of, check_exportable, rope_type_of
from strop_trainer.export.genai import export_onnx
from strop_trainer.export.merge import merge_adapter
from strop_trainer.export.runners import LogitsRunner, model_file, weight_precision
from strop_trainer.export.shared_base import build_base
from strop_trainer.heads.causal import reloaded_limit
from strop_trainer.methods import load_tokenizer
from strop_trainer.plan import ProofPlan
from strop_trainer.proof import prove
from strop_trainer.proof_rows import ProofRow
from strop_trainer.sources.model_folder import check_model_folder
from tests.support.models import tiny_llama
from tests.support.training import Surroundings, make_plan, told_of_learnt_and_proven

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]

SCALED = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 32}


def longrope(pairs: int, **more: Any) -> dict[str, Any]:
    """Positions scaled as in Phi's long models: otherwise for rows of more than 32 tokens, each pair by its factor."""
    short, long = [1 + 0.01 * pair for pair in range(pairs)], [1 + 0.5 * pair for pair in range(pairs)]
    return {**SCALED, "short_factor": short, "long_factor": long, **more}


def rope(theta: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta}


LLAMA3_ROPE = {
    **rope(500_000.0), "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
WIDE = {"hidden_size": 256, "vocab_size": 520}
"""Of a vocabulary that no other matrix is as wide as, see `tiny_llama`."""
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma-3": ("gemma3_text", {"sliding_window": 24, "query_pre_attn_scalar": 16, "layers": 6}),
    "gemma-3-4b": (
        "gemma3_text",
        {
            "sliding_window": 24, "query_pre_attn_scalar": 16, "layers": 6,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ),
    "granite": ("granite", {}),
    "llama-3": ("llama", {"tie_word_embeddings": False, "rope_parameters": rope(500_000.0)}),
    "llama-3.1": ("llama", {"tie_word_embeddings": False, "rope_parameters": LLAMA3_ROPE}),
    "llama-3.2": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "mistral": ("mistral", {"tie_word_embeddings": False, "sliding_window": None, "rope_parameters": rope(1e6)}),
    "mistral-0.1": ("mistral", {"tie_word_embeddings": False, "sliding_window": 24}),
    "phi-3-mini-4k": (
        "phi3", {"tie_word_embeddings": False, "original_max_position_embeddings": 512, "sliding_window": 24}
    ),
    "phi-3-mini-128k": (
        "phi3",
        {"tie_word_embeddings": False, "original_max_position_embeddings": 32, "rope_parameters": longrope(8)},
    ),
    "phi-3.5-mini": (
        "phi3",
        {
            "tie_word_embeddings": False, "original_max_position_embeddings": 32, "sliding_window": 400,
            "rope_parameters": longrope(8),
        },
    ),
    "phi-4": (
        "phi3",
        {"tie_word_embeddings": False, "original_max_position_embeddings": 512, "rope_parameters": rope(250_000.0)},
    ),
    "phi-4-mini": (
        "phi3",
        {"original_max_position_embeddings": 32, "rope_parameters": longrope(24, partial_rotary_factor=0.75), **WIDE},
    ),
    "qwen-2.5": ("qwen2", {"rope_parameters": rope(1e6)}),
    "qwen-2.5-7b": ("qwen2", {"tie_word_embeddings": False, "rope_parameters": rope(1e6)}),
    "qwen-3": ("qwen3", {"head_dim": 32, "rope_parameters": rope(1e6)}),
    "qwen-3-8b": ("qwen3", {"tie_word_embeddings": False, "head_dim": 32, "rope_parameters": rope(1e6)}),
    "smollm2": ("llama", {"rope_parameters": rope(100_000.0)}),
    "smollm3": ("smollm3", {}),
}  # fmt: skip
"""What sets a family apart, small: windows, scaled positions and heads so that a row of 61 tokens feels them."""
TRAINED = ("gemma-3", "granite", "llama-3", "mistral", "phi-4", "qwen-2.5", "qwen-3", "smollm3")
"""One of each architecture goes all the way; of the others, which differ in a few numbers, an adapter is made up."""
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


@pytest.mark.parametrize("family", TRAINED)
def test_a_family_of_each_architecture_is_trained_merged_exported_and_proven(family: str, tmp_path: Path) -> None:
    around = Surroundings(tmp_path)
    around.write_rows()
    architecture, own = FAMILIES[family]
    tiny_llama(around.volumes / "models" / "tiny", architecture=architecture, **own)
    # In 4 bits a model of 0.1 million weights keeps its perplexity, and now and then takes another token.
    artifact = {"onnx": ["fp32", "int4"], "proof": {"metric_drop": 1.0}}
    ended = around.run(make_plan(hyperparameters={"max_steps": 16}, artifact=artifact))
    assert ended.code == 0, ended.output + ended.errors
    version = around.registry / "tuned" / "1"
    told_of_learnt_and_proven(version)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in TRAINED])
def test_each_other_family_is_merged_exported_and_proven_with_an_adapter(family: str, tmp_path: Path) -> None:
    architecture, own = FAMILIES[family]
    base = tiny_llama(tmp_path / "base", architecture=architecture, **own)
    check_exportable(base)
    merge_adapter(base, adapter_for(base, tmp_path / "adapter"), tmp_path / "merged")
    export_onnx(tmp_path / "merged", tmp_path / "onnx", "fp32")
    rows = [ProofRow([*IDS, 2], 10, ""), ProofRow([7 * index % 500 for index in range(61)], 40, "")]
    (found,) = prove(tmp_path / "merged", {"fp32": tmp_path / "onnx"}, rows, ProofPlan(), 8)
    assert found.reasons == ()
    assert found.measured.max_logit_difference < 1e-5
    with torch.no_grad():
        models = [AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("base", "merged")]
        before, after = (model(torch.tensor([IDS])).logits for model in models)
    assert (before - after).abs().max() > 1e-2, "the adapter changes nothing"


def test_all_architectures_that_are_offered_are_tried(tmp_path: Path) -> None:
    tried = set()
    for name, (architecture, own) in FAMILIES.items():
        folder = tiny_llama(tmp_path / name, architecture=architecture, **own)
        tried.add((architecture_of(folder), rope_type_of(folder)))
    assert {FAMILIES[name][0] for name in TRAINED} == {architecture for architecture, _ in FAMILIES.values()}
    assert tried == {(name, kind) for name, kinds in ROPE_TYPES.items() for kind in kinds}


@pytest.mark.parametrize(
    ("architecture", "scaled", "expected"),
    [
        ("llama", {"rope_type": "dynamic", "factor": 2.0}, "positions scaled by dynamic, .* supports default, llama3"),
        ("qwen2", {"rope_type": "yarn", "factor": 4.0}, "positions scaled by yarn, .* supports default"),
        ("mistral", {"type": "linear", "factor": 2.0}, "positions scaled by linear, .* supports default"),
    ],
)
def test_positions_that_the_builder_would_leave_unscaled_are_refused(
    architecture: str, scaled: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    folder = tiny_llama(tmp_path / "model", architecture=architecture)
    config = json.loads((folder / "config.json").read_text())
    config.pop("rope_parameters", None)
    (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": scaled}))
    with pytest.raises(TrainerError, match=expected) as caught:
        check_exportable(folder)
    assert caught.value.exit_code == ExitCode.BAD_CONFIGURATION


def test_a_folder_that_names_code_which_transformers_has_itself_is_loaded_without_it(tmp_path: Path) -> None:
    # As microsoft/Phi-4-mini-instruct has it; nothing of it is there to be run.
    base = tiny_llama(tmp_path / "base", architecture="phi3", original_max_position_embeddings=512)
    code = {
        "AutoConfig": "configuration_phi3.Phi3Config",
        "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
        "AutoTokenizer": "owner/other",
    }
    config = json.loads((base / "config.json").read_text()) | {"auto_map": code}
    (base / "config.json").write_text(json.dumps(config))
    found = check_model_folder(base, "pvc://models/phi", chat=True)
    assert found.architecture == "Phi3ForCausalLM"
    load_tokenizer(base)
    merge_adapter(base, adapter_for(base, tmp_path / "adapter"), tmp_path / "merged")
    assert "auto_map" not in json.loads((tmp_path / "merged" / "config.json").read_text())
    build_base(base, tmp_path / "adapter", tmp_path / "graph", "fp32")
    # phi-3-small is one that transformers does not know.
    (base / "config.json").write_text(
        json.dumps(config | {"model_type": "phi3small", "architectures": ["Phi3SmallForCausalLM"]})
    )
    with pytest.raises(TrainerError, match="needs remote code: transformers knows no phi3small itself"):
        check_model_folder(base, "hf://microsoft/Phi-3-small-8k-instruct", chat=True)


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
        "import sys; from pathlib import Path; from strop_trainer.export.exportable import check_exportable\n"
        f"check_exportable(Path({str(tmp_path)!r}))\n"
        "print([name for name in ('torch', 'transformers', 'onnx') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "[]\n"


def test_a_reloaded_adapter_may_differ_by_what_half_precision_rounds() -> None:
    assert reloaded_limit("fp32", 30) == 1e-3
    assert 0.042 < reloaded_limit("bf16", 30) < 0.06
    assert reloaded_limit("bf16", 30) < reloaded_limit("bf16", 80) < 0.1
