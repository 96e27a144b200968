"""Adapters as files for a base graph that they share: switched at run time, each answers as its merged model."""

import json
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as genai
import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from strop_trainer import registry
from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.export.exportable import ARCHITECTURES
from strop_trainer.export.genai import export_onnx
from strop_trainer.export.merge import merge_adapter
from strop_trainer.export.shared_base import adapted_layers, build_base, builder, write_adapter
from strop_trainer.heads.merged import largest
from strop_trainer.manifest import file_sha256, list_files
from strop_trainer.methods import check_method
from strop_trainer.plan import OnnxPrecision, ProofPlan
from strop_trainer.proof import Adapted, prove
from strop_trainer.proof_rows import ProofRow
from strop_trainer.shared_bases import BaseManifest, check_base, find_base, key_of
from tests.support.models import tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]

IDS = list(range(40, 60))
ROWS = [ProofRow([*IDS, 2], 10, "")]
LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
FINGERPRINT = "sha256:" + "a" * 64


def adapter_for(base: Path, out: Path, **options: Any) -> Path:
    """Write a LoRA adapter with weights that change the answer."""
    config = LoraConfig(**{"target_modules": "all-linear", "task_type": "CAUSAL_LM", "r": 4, **options})
    model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    generator = torch.Generator().manual_seed(sum(map(ord, out.name)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(out, save_embedding_layers=False)
    return out


def torch_logits(folder: Path) -> Any:
    """Return the logits behind the last token."""
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([IDS])).logits[0, -1].numpy()


def genai_logits(model: Any, adapters: Any, name: str | None) -> Any:
    """Return the logits behind the last token, of a model that stays loaded."""
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=64, do_sample=False)
    generator = genai.Generator(model, parameters)
    if name is not None:
        generator.set_active_adapter(adapters, name)
    generator.append_tokens(np.array(IDS, dtype=np.int32))
    return np.array(generator.get_logits()).reshape(-1, 512)[-1]


FAMILIES: dict[str, dict[str, Any]] = {
    "gemma3_text": {"sliding_window": 12, "query_pre_attn_scalar": 16, "layers": 6},
    "granite": {},
    "llama": {},
    "mistral": {"sliding_window": 12},
    "phi3": {"original_max_position_embeddings": 512},  # one matrix for q, k and v
    "qwen2": {},
    "qwen3": {},
    "smollm3": {},
}


@pytest.mark.parametrize("architecture", FAMILIES)
def test_two_adapters_are_switched_on_one_loaded_base(architecture: str, tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", architecture=architecture, **FAMILIES[architecture])
    small = adapter_for(base, tmp_path / "small", r=4, lora_alpha=16)
    large = adapter_for(base, tmp_path / "large", r=24, lora_alpha=8, use_rslora=True)
    build_base(base, small, tmp_path / "graph", "fp32")
    model: Any = genai.Model(str(tmp_path / "graph"))
    adapters: Any = genai.Adapters(model)
    expected = {None: torch_logits(base)}
    for adapter in (small, large):
        write_adapter(adapter, tmp_path / "graph", tmp_path / f"{adapter.name}.onnx_adapter")
        adapters.load(str(tmp_path / f"{adapter.name}.onnx_adapter"), adapter.name)
        merge_adapter(base, adapter, tmp_path / f"merged-{adapter.name}")
        expected[adapter.name] = torch_logits(tmp_path / f"merged-{adapter.name}")
    for name in ("small", "large", None, "small"):
        assert np.abs(genai_logits(model, adapters, name) - expected[name]).max() < 1e-5, name
    assert np.abs(expected["small"] - expected["large"]).max() > 1e-2


def test_all_architectures_that_are_offered_are_tried() -> None:
    # As transformers names the class of weights, of which the builder knows some.
    tried = {MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[architecture] for architecture in FAMILIES}
    assert tried == ARCHITECTURES


def test_the_graph_is_the_same_for_any_adapter_of_the_same_layers(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    hashes = []
    for rank in (2, 16):
        adapter = adapter_for(base, tmp_path / f"rank{rank}", r=rank)
        build_base(base, adapter, tmp_path / f"graph{rank}", "fp32")
        hashes.append({entry.path: entry.sha256 for entry in list_files(tmp_path / f"graph{rank}")})
    assert hashes[0] == hashes[1]
    fewer = adapter_for(base, tmp_path / "fewer", target_modules=["q_proj"])
    assert adapted_layers(fewer) == ["0.attn.q_proj", "1.attn.q_proj"]
    with pytest.raises(TrainerError, match="the base graph is for other layers, such as"):
        write_adapter(fewer, tmp_path / "graph2", tmp_path / "x.onnx_adapter")


def test_a_base_in_bf16_is_exported_in_fp32(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    before = file_sha256(base / "config.json")
    build_base(base, adapter_for(base, tmp_path / "adapter"), tmp_path / "graph", "fp32")
    model: Any = genai.Model(str(tmp_path / "graph"))
    with torch.no_grad():
        exact = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)(torch.tensor([IDS])).logits[0, -1]
    assert np.abs(genai_logits(model, None, None) - exact.numpy()).max() < 1e-5
    assert file_sha256(base / "config.json") == before


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_an_adapter_is_proven_on_its_base(precision: OnnxPrecision, tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    adapter = adapter_for(base, tmp_path / "adapter")
    merge_adapter(base, adapter, tmp_path / "merged")
    build_base(base, adapter, tmp_path / "graph", precision)
    (tmp_path / "onnx-adapter").mkdir()
    file = tmp_path / "onnx-adapter" / "adapter.onnx_adapter"
    write_adapter(adapter, tmp_path / "graph", file)
    adapted = Adapted(file, {precision: tmp_path / "graph"})
    (found,) = prove(tmp_path / "merged", {}, ROWS, ProofPlan(), 8, adapted=adapted)
    assert (found.artifact, found.precision, found.reasons) == ("onnx-adapter", precision, ())
    # Held to another adapter's merged model, it fails.
    merge_adapter(base, adapter_for(base, tmp_path / "other", lora_alpha=64), tmp_path / "wrong")
    (found,) = prove(tmp_path / "wrong", {}, ROWS, ProofPlan(fp32_logits_tolerance=1e-4), 8, adapted=adapted)
    assert precision != "fp32" or "largest logit difference" in found.reasons[0]


def test_a_layer_without_an_input_is_named(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", tie_word_embeddings=False)
    adapter = adapter_for(base, tmp_path / "adapter", target_modules=["q_proj", "lm_head"])
    with pytest.raises(TrainerError, match=r"found base_model\.model\.lm_head\.lora_A\.weight, an ONNX adapter"):
        build_base(base, adapter, tmp_path / "graph", "fp32")


def draft(files: Sequence[Any] = ()) -> BaseManifest:
    """Return the manifest of a base graph."""
    return BaseManifest(
        base_model="hf://owner/base",
        base_fingerprint=FINGERPRINT,
        layers=["0.attn.q_proj"],
        precision="fp32",
        builder=builder(),
        files=list(files),
    )


def test_a_base_is_published_once_and_found_again(tmp_path: Path) -> None:
    source = tmp_path / "work" / "base-fp32"
    source.mkdir(parents=True)
    (source / "model.onnx").write_text("graph")
    key = key_of(FINGERPRINT, ["0.attn.q_proj"], "fp32")
    assert find_base(tmp_path, key) is None
    first = registry.publish_base(tmp_path, "job-1", source, draft())
    again = registry.publish_base(tmp_path, "job-2", source, draft())
    folder = find_base(tmp_path, key)
    assert folder is not None
    assert registry.publish_base(tmp_path, "job-3", folder, draft()) == first == again
    assert [path.name for path in (tmp_path / "_bases").iterdir()] == [folder.name] == [first.name]
    assert registry.verify(folder) == []
    assert find_base(tmp_path, key_of(FINGERPRINT, ["0.attn.q_proj"], "int4")) is None
    # Another graph of the same origin gets a folder of its own.
    (source / "model.onnx").write_text("another graph")
    assert registry.publish_base(tmp_path, "job-4", source, draft()).name != first.name


def test_a_damaged_base_is_not_used_and_is_healed(tmp_path: Path) -> None:
    source = tmp_path / "work"
    source.mkdir()
    (source / "model.onnx").write_text("graph")
    first = registry.publish_base(tmp_path, "job-1", source, draft())
    published = tmp_path / "_bases" / first.name
    (published / "model.onnx").chmod(0o644)
    (published / "model.onnx").write_text("grape")
    assert "model.onnx: found sha256" in check_base(published)[0]
    assert find_base(tmp_path, first.name.partition("-")[0]) is None
    assert registry.publish_base(tmp_path, "job-2", source, draft()) == first
    assert check_base(published) == []


def test_two_jobs_share_a_base_graph_in_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    around = Surroundings(tmp_path)
    around.write_rows()
    base = tiny_llama(around.volumes / "models" / "tiny")
    outputs = []
    for number, (rank, form) in enumerate([(4, "both"), (8, "adapter")], 1):
        around.uid = f"00000000-0000-0000-0000-00000000000{number}"
        shutil.rmtree(around.work, ignore_errors=True)
        around.work.mkdir()
        ended = around.run(
            make_plan(method={"lora": LORA | {"rank": rank}}, artifact={"onnx": ["fp32", "int4"], "onnx_form": form})
        )
        assert ended.code == 0, ended.output + ended.errors
        outputs.append(ended.output)
    assert "base graph: fp32" in outputs[0]
    assert "built in" in outputs[0]
    assert outputs[1].count("found in the registry") == 2
    model = around.registry / "tuned"
    assert registry.verify(model) == []
    assert {path.name for path in (model / "1").iterdir() if path.is_dir()} == {
        "adapter", "onnx", "onnx-int4", "onnx-adapter"
    }  # fmt: skip
    assert {path.name for path in (model / "2").iterdir() if path.is_dir()} == {"adapter", "onnx-adapter"}
    documents = [json.loads((model / n / "onnx-adapter" / "base.json").read_text())["bases"] for n in ("1", "2")]
    assert documents[0] == documents[1]
    proofs = json.loads((model / "2" / "proof.json").read_text())
    assert [(entry["artifact"], entry["precision"], entry["passed"]) for entry in proofs["results"]] == [
        ("onnx-adapter", "fp32", True),
        ("onnx-adapter", "int4", True),
    ]
    assert proofs["adapter"]["passed"]
    assert proofs["adapter"]["logitDifference"] < 1e-5
    # Both on one loaded base, each as its merged model.
    graph: Any = genai.Model(str(around.registry / "_bases" / documents[0][0]["name"]))
    adapters: Any = genai.Adapters(graph)
    for version in ("1", "2"):
        adapters.load(str(model / version / "onnx-adapter" / "adapter.onnx_adapter"), version)
        merge_adapter(base, model / version / "adapter", tmp_path / f"merged{version}")
    for version in ("1", "2", "1"):
        expected = torch_logits(tmp_path / f"merged{version}")
        assert np.abs(genai_logits(graph, adapters, version) - expected).max() < 1e-4
    # The card's own code for it.
    code = re.findall(r"```python\n(.*?)```", (model / "2" / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(model / "2")
    exec(compile(code[-1], "README.md", "exec"), {})  # noqa: S102
    flavors = yaml.safe_load((model / "2" / "MLmodel").read_text())["flavors"]
    assert (flavors["peft"]["vllm"], flavors["peft"]["vllm_max_lora_rank"]) == (True, 8)
    assert (model / "2" / flavors["onnxruntime_genai_adapter"]["data"]).is_file()
    # The adapter's version is not whole without its base.
    shutil.move(around.registry / "_bases", tmp_path / "elsewhere")
    (problem, _) = registry.verify(model / "2")
    assert problem.endswith(f"the base graph _bases/{documents[0][0]['name']} is not in this registry")


def test_a_merged_export_is_as_it_was(tmp_path: Path) -> None:
    merged = tiny_llama(tmp_path / "merged")
    export_onnx(merged, tmp_path / "onnx", "fp32")
    config = json.loads((tmp_path / "onnx" / "genai_config.json").read_text())
    assert "log_severity_level" not in config["model"]["decoder"]["session_options"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method": {"type": "dora"}}, "for task chat and method dora, allowed: merged"),
        ({"method": {"lora": LORA | {"modules_to_save": ["norm"]}}}, "modules that are trained in full: merged"),
        ({"method": {"lora": LORA | {"target_modules": ["q_proj", "wte"]}}}, "for wte, allowed: merged"),
    ],
)
def test_what_no_base_graph_can_take_in_is_refused_before_anything_is_loaded(
    changes: dict[str, Any], expected: str
) -> None:
    plan = make_plan(artifact={"onnx": ["fp32"], "onnx_form": "both"}, **changes)
    with pytest.raises(TrainerError, match=f"artifact.onnxForm: found both.*{expected}") as caught:
        check_method(plan.training)
    assert caught.value.exit_code == ExitCode.BAD_CONFIGURATION


def test_a_difference_that_is_no_number_is_not_passed_over() -> None:
    assert largest([0.1, 0.3, 0.2]) == 0.3
    assert largest([]) == 0.0
    for values in ([math.nan, 0.1], [0.1, math.nan], [0.1, math.nan, 0.2]):
        assert math.isnan(largest(values))
