"""What is known of a model before it is fetched."""

from importlib.resources import files
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from strop.api.finetunejob import FineTuneJobSpec, ModelSpec
from strop.planning.chooser import Chooser
from strop.planning.inputs import PlanError
from strop.planning.presets import (
    ARCHITECTURES,
    PRESETS,
    REVISIONS,
    TEMPLATES,
    ModelFacts,
    Preset,
    PresetFile,
    model_facts,
    parse_parameters,
    refusal_of,
    typical_shape,
)
from strop.planning.resolve import resolve_training
from strop_trainer.encoder_decoders import CLASSES
from strop_trainer.export.exportable import ARCHITECTURES as EXPORTED
from strop_trainer.plan import canonical_json


def spec_of(source: str, **change: Any) -> FineTuneJobSpec:
    rows = {"train": [{"source": "configmap://rows/train.jsonl"}]}
    return FineTuneJobSpec.model_validate({"task": "chat", "model": {"source": source}, "dataset": rows, **change})


def facts(source: str, parameters: str | None = None) -> ModelFacts:
    sha256 = "0" * 64 if source.startswith("https://") else None
    return model_facts(ModelSpec(source=source, parameters=parameters, sha256=sha256))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_presets_shape_has_its_number_of_parameters(preset: Preset) -> None:
    # Norms and biases are left out of the shape's count: up to 1.5 % of a small model with attention biases.
    assert preset.shape.parameters == pytest.approx(preset.parameters, rel=0.015)


def test_no_name_or_repository_stands_for_two_presets() -> None:
    sources = [source.lower() for preset in PRESETS for source in preset.sources]
    folders = [source.rpartition("/")[2] for source in sources]
    assert len(set(sources)) == len(sources)
    assert len(set(folders)) == len(folders)
    assert len({preset.name for preset in PRESETS}) == len(PRESETS)


@pytest.mark.parametrize("family", ["Phi", "Llama", "Mistral", "Qwen2.5", "Qwen3", "gemma-3", "SmolLM2"])
def test_the_families_that_users_ask_for_have_presets(family: str) -> None:
    assert any(family in source for preset in PRESETS for source in preset.sources)


@pytest.mark.parametrize(
    "source",
    [
        "hf://HuggingFaceTB/SmolLM2-135M-Instruct",
        "hf://huggingfacetb/smollm2-135m-instruct",
        "pvc://models/smollm2-135m-instruct",
        "pvc://models/a/b/SmolLM2-135M-Instruct/",
        "https://models.example/SmolLM2-135M-Instruct.tar.gz",
    ],
)
def test_a_preset_is_found_by_repository_or_folder(source: str) -> None:
    assert facts(source).basis == "preset smollm2-135m"


def test_another_owners_model_of_the_same_name_is_not_the_preset() -> None:
    assert facts("hf://someone/SmolLM2-135M-Instruct").basis.startswith("a typical model of the size in the name")


def test_a_preset_wins_over_the_hint() -> None:
    assert facts("hf://Qwen/Qwen3-8B", "1B").parameters == 8_190_735_360


def test_the_hint_wins_over_a_size_in_the_name() -> None:
    found = facts("hf://someone/thing-7B", "3B")
    assert found.parameters == 3_000_000_000
    assert found.basis == "a typical model of model.parameters, 3B"


@pytest.mark.parametrize(
    ("name", "size"),
    [("thing-7b-chat", 7e9), ("thing_1.5B", 1.5e9), ("thing-135m", 135e6), ("thing.70B.v2", 70e9), ("8B", 8e9)],
)
def test_a_size_in_the_name_is_taken(name: str, size: float) -> None:
    assert facts(f"pvc://models/{name}").parameters == size


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("OLMoE-1B-7B-0924", 7e9),
        ("dolphin-2.5-mixtral-8x7b", 56e9),
        ("thing-4X1.5B-it", 6e9),
        ("thing-57B-A14B", 57e9),
        ("granite-3.0-1b-a400m-instruct", 1e9),
        ("deepseek-moe-16b-base", 16e9),
        ("Qwen2.5-7B-Instruct-1M", 7e9),
    ],
)
def test_of_several_sizes_in_a_name_the_largest_is_taken_and_experts_are_counted(name: str, size: float) -> None:
    assert facts(f"pvc://models/{name}").parameters == size


@pytest.mark.parametrize("name", ["Qwen1.5-MoE-A2.7B", "thing-A3B", "Llama-4-Scout-17B-16E-Instruct", "thing-2.7.5B"])
def test_of_active_parameters_alone_the_size_is_not_known(name: str) -> None:
    assert facts(f"pvc://models/{name}").parameters is None


@pytest.mark.parametrize("name", ["thing", "gpt2", "b7", "model-v2", "a100bx"])
def test_without_a_hint_the_size_is_not_known_and_the_basis_says_so(name: str) -> None:
    found = facts(f"pvc://models/{name}")
    assert found.parameters is None
    assert found.shape is None
    assert name in found.basis


@given(st.integers(min_value=100_000_000, max_value=500_000_000_000))
def test_a_typical_shape_has_about_the_size_and_never_less(parameters: int) -> None:
    shape = typical_shape(parameters)
    assert parameters <= shape.parameters <= parameters * 1.5
    assert shape.kv_heads <= shape.heads


def test_an_ungated_mlp_has_two_layers() -> None:
    shape = typical_shape(10**9)
    two = shape.model_copy(update={"gated": False})
    assert len(shape.linear_layers) == len(two.linear_layers) + 1


def test_a_size_of_another_form_is_refused() -> None:
    assert parse_parameters("1.5B") == 1_500_000_000
    with pytest.raises(ValueError, match="parameters: found '8', allowed"):
        parse_parameters("8")


def test_each_preset_is_of_a_known_architecture_and_template() -> None:
    assert {preset.architecture for preset in PRESETS} == set(ARCHITECTURES)
    assert {preset.template for preset in PRESETS} - {None} == set(TEMPLATES)


def test_onnx_is_offered_for_what_the_trainer_exports() -> None:
    decoders = {name: kind for name, kind in ARCHITECTURES.items() if not kind.encoder_decoder}
    assert {name for name, kind in decoders.items() if kind.onnx} == set(decoders) & EXPORTED
    others = {name: kind for name, kind in ARCHITECTURES.items() if kind.encoder_decoder}
    assert all(kind.onnx for kind in others.values())
    assert set(others) <= {name for name, _ in CLASSES.values()}


@pytest.mark.parametrize(
    "repository",
    [
        "microsoft/Phi-3-mini-4k-instruct", "microsoft/Phi-3-mini-128k-instruct", "microsoft/Phi-3-medium-4k-instruct",
        "microsoft/Phi-3-medium-128k-instruct", "microsoft/Phi-3.5-mini-instruct", "microsoft/phi-4",
        "microsoft/Phi-4-mini-instruct", "meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.3-70B-Instruct", "mistralai/Mistral-7B-Instruct-v0.2",
        "mistralai/Mistral-7B-Instruct-v0.3", "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen3-4B", "google/gemma-3-1b-it",
        "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    ],
)  # fmt: skip
def test_the_models_that_are_promised_have_presets(repository: str) -> None:
    found = facts(f"hf://{repository}")
    assert found.basis.startswith("preset ")
    assert found.architecture is not None
    assert found.architecture.onnx


@pytest.mark.parametrize("source", ["hf://microsoft/Phi-3-small-8k-instruct", "pvc://models/phi-3-small-128k-instruct"])
def test_phi_3_small_is_refused_since_it_needs_remote_code(source: str) -> None:
    with pytest.raises(PlanError, match=f"spec.model.source: found {source}: it needs remote code"):
        resolve_training(spec_of(source), facts(source), Chooser())


@pytest.mark.parametrize(
    ("source", "architecture", "parameters"),
    [
        ("hf://google/gemma-3-4b-it", "Gemma3ForCausalLM", 3_880_263_168),
        ("hf://google/gemma-3-12b-pt", "Gemma3ForCausalLM", 11_766_034_176),
        ("pvc://models/gemma-3-27b-it", "Gemma3ForCausalLM", 27_009_346_304),
        ("hf://mistralai/Mistral-Small-3.1-24B-Instruct-2503", "MistralForCausalLM", 23_572_403_200),
        ("hf://mistralai/Mistral-Small-3.2-24B-Instruct-2506", "MistralForCausalLM", 23_572_403_200),
    ],
)
def test_a_model_that_reads_images_is_planned_by_its_text_part_and_the_plan_says_so(
    source: str, architecture: str, parameters: int
) -> None:
    found, chooser = facts(source), Chooser()
    assert found.architecture is not None
    assert (found.architecture.name, found.parameters, found.context_length) == (architecture, parameters, 131072)
    assert resolve_training(spec_of(source), found, chooser).artifact.onnx
    (line,) = [each for each in chooser.resolved if each.field == "images"]
    assert line.value == "not read"
    assert "the text part alone is trained" in line.reason
    with pytest.raises(PlanError, match=r"spec\.method\.type: found p-tuning, allowed for the text part"):
        resolve_training(spec_of(source, method={"type": "p-tuning"}), found, Chooser())


def test_a_model_of_text_alone_says_nothing_of_images() -> None:
    chooser, source = Chooser(), "hf://google/gemma-3-1b-it"
    resolve_training(spec_of(source), facts(source), chooser)
    assert "images" not in {each.field for each in chooser.resolved}


@pytest.mark.parametrize("source", ["hf://google/gemma-3n-E4B-it", "pvc://models/gemma-3n-E2B"])
def test_what_reads_sound_as_well_is_refused_before_it_is_fetched(source: str) -> None:
    expected = f"spec.model.source: found {source}: it reads images and sound beside text, allowed"
    with pytest.raises(PlanError, match=expected):
        resolve_training(spec_of(source), facts(source), Chooser())


@pytest.mark.parametrize("source", ["hf://mistralai/Mixtral-8x7B-Instruct-v0.1", "pvc://models/qwen3-30b-a3b"])
def test_qlora_of_known_experts_is_refused_and_lora_is_not(source: str) -> None:
    with pytest.raises(PlanError, match=f"spec.method.type: found qlora for {source}, a mixture of experts"):
        resolve_training(spec_of(source, method={"type": "qlora"}), facts(source), Chooser())
    assert resolve_training(spec_of(source), facts(source), Chooser()).method.lora


@pytest.mark.parametrize(
    ("source", "family"),
    [
        ("hf://Qwen/Qwen2.5-Coder-7B-Instruct", "qwen"),
        ("hf://Qwen/Qwen3-4B-Instruct-2507", "qwen"),
        ("hf://deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "qwen"),
        ("hf://deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "llama"),
        ("hf://mistralai/Ministral-8B-Instruct-2410", "mistral"),
        ("hf://microsoft/Phi-4-reasoning", "phi"),
        ("pvc://models/codegemma-7b", "gemma"),
        ("hf://someone/delphi-7b", "unknown"),
        ("hf://qwen/thing-7b", "unknown"),
    ],
)
def test_a_derivative_is_of_the_family_that_it_is_named_after(source: str, family: str) -> None:
    assert facts(source).family == family


def test_the_learning_rate_of_a_derivative_is_that_of_its_family() -> None:
    def rate(source: str) -> float:
        return resolve_training(spec_of(source), facts(source), Chooser()).hyperparameters.learning_rate

    assert rate("hf://Qwen/Qwen2.5-Coder-7B") == rate("hf://Qwen/Qwen2.5-7B") != rate("hf://someone/thing-7B")


def test_another_owners_folder_of_that_name_is_not_refused() -> None:
    assert refusal_of(ModelSpec(source="hf://someone/Phi-3-small-8k-instruct")) is None


OLMO = "hf://allenai/OLMo-2-1124-7B-Instruct"
UNTIED = "hf://Qwen/Qwen3-8B"


def test_a_model_without_onnx_export_publishes_its_adapter() -> None:
    chooser = Chooser()
    assert resolve_training(spec_of(OLMO), facts(OLMO), chooser).artifact.onnx == []
    (why,) = [each.reason for each in chooser.resolved if each.field == "output.onnx.enabled"]
    assert "no right export" in why
    assert "the adapter is published" in why


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"output": {"onnx": {}}}, "spec.output.onnx.enabled: found true, allowed for Olmo2ForCausalLM: false"),
        (
            {"method": {"type": "full"}, "output": {"merged": False}},
            "spec.output.merged: found false, allowed for method full of Olmo2ForCausalLM",
        ),
    ],
)
def test_what_a_model_without_onnx_export_cannot_publish_is_refused(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(PlanError, match=expected):
        resolve_training(spec_of(OLMO, **change), facts(OLMO), Chooser())


def test_all_weights_of_a_model_without_onnx_export_are_published_merged() -> None:
    chooser = Chooser()
    artifact = resolve_training(spec_of(OLMO, method={"type": "full"}), facts(OLMO), chooser).artifact
    assert (artifact.onnx, artifact.merged) == ([], True)
    (why,) = [each.reason for each in chooser.resolved if each.field == "output.merged"]
    assert "nothing else would be published" in why


@pytest.mark.parametrize(
    "repository",
    ["OLMo-2-0425-1B", "OLMo-2-0425-1B-Instruct", "OLMo-2-0325-32B", "OLMo-2-0325-32B-Instruct", "OLMo-2-1124-7B-DPO"],
)
def test_all_sizes_of_olmo_2_have_presets(repository: str) -> None:
    found = facts(f"hf://allenai/{repository}").architecture
    assert found
    assert not found.onnx


@pytest.mark.parametrize(
    ("output", "required"),
    [
        (None, None),
        ({"merged": True}, None),
        ({"onnx": {}}, True),
        ({"onnx": {"precisions": ["fp32"]}}, True),
        ({"onnx": {"enabled": False}}, None),
    ],
)
def test_the_plan_says_whether_onnx_was_asked_for(output: dict[str, Any] | None, required: bool | None) -> None:
    spec = spec_of("hf://owner/of-unknown-architecture", **({"output": output} if output else {}))
    artifact = resolve_training(spec, facts("hf://owner/of-unknown-architecture"), Chooser()).artifact
    assert artifact.onnx_required is required
    assert (b"onnxRequired" in canonical_json(artifact)) == bool(required), "a plan without keeps its digest"


def test_labels_are_exported_in_another_way() -> None:
    spec = spec_of(OLMO, task="text-classification")
    assert resolve_training(spec, facts(OLMO), Chooser()).artifact.onnx


def test_layers_that_the_model_has_not_are_refused_with_those_it_has() -> None:
    phi = "hf://microsoft/Phi-3-mini-4k-instruct"
    allowed = "qkv_proj, o_proj, gate_up_proj, down_proj, lm_head, embed_tokens"
    with pytest.raises(PlanError, match=f"found q_proj, allowed for Phi3ForCausalLM: {allowed}"):
        resolve_training(spec_of(phi, method={"lora": {"targetModules": ["q_proj", "o_proj"]}}), facts(phi), Chooser())
    fine = spec_of(phi, method={"lora": {"targetModules": ["self_attn.qkv_proj", "lm_head"]}})
    assert resolve_training(fine, facts(phi), Chooser()).method.lora


@pytest.mark.parametrize(
    ("method", "name", "allowed"),
    [
        ("lora", "lm_heads", "q_proj, k_proj, v_proj, o_proj, .*, norm, lm_head, embed_tokens"),
        ("lora", "model.head", "q_proj, .*"),
        ("qlora", "q_proj", "self_attn, mlp, q_norm, .*, norm, lm_head, embed_tokens"),
    ],
)
def test_modules_to_save_that_the_model_has_not_are_refused_with_those_it_has(
    method: str, name: str, allowed: str
) -> None:
    def spec(*names: str, task: str = "chat") -> Any:
        return spec_of(UNTIED, task=task, method={"type": method, "lora": {"modulesToSave": ["norm", *names]}})

    words = rf"^spec\.method\.lora\.modulesToSave: found {name}, allowed for Qwen3ForCausalLM: {allowed} \("
    with pytest.raises(PlanError, match=words):
        resolve_training(spec(name), facts(UNTIED), Chooser())
    assert resolve_training(spec("lm_head", "layers.35", "layers.35.mlp"), facts(UNTIED), Chooser()).method.lora
    assert resolve_training(spec("score", task="text-classification"), facts(UNTIED), Chooser()).method.lora


@pytest.mark.parametrize("name", ["lm_head", "model.embed_tokens"])
@pytest.mark.parametrize(
    ("field", "allowed"),
    [
        ("targetModules", "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"),
        (
            "modulesToSave",
            "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, "
            "self_attn, mlp, input_layernorm, post_attention_layernorm, norm",
        ),
    ],
)
def test_an_end_of_a_model_whose_ends_share_their_weights_is_refused(field: str, allowed: str, name: str) -> None:
    tied, untied = "hf://HuggingFaceTB/SmolLM2-135M-Instruct", "hf://Qwen/Qwen3-8B"
    with pytest.raises(PlanError) as refused:
        resolve_training(spec_of(tied, method={"lora": {field: [name]}}), facts(tied), Chooser())
    found = (
        f"spec.method.lora.{field}: found {name}, allowed for LlamaForCausalLM: {allowed}; {name} shares its weights"
    )
    assert str(refused.value).startswith(found)
    assert resolve_training(spec_of(untied, method={"lora": {field: [name]}}), facts(untied), Chooser()).method.lora


@pytest.mark.parametrize(("method", "start"), [("lora", "pissa"), ("lora", "olora"), ("qlora", "loftq")])
def test_an_embedding_is_not_adapted_from_another_start(method: str, start: str) -> None:
    untied, names = "hf://Qwen/Qwen3-8B", ["q_proj", "lm_head", "model.embed_tokens"]

    def spec(initialization: str) -> Any:
        lora = {"targetModules": names, "initialization": initialization}
        return spec_of(untied, method={"type": method, "lora": lora})

    with pytest.raises(PlanError) as refused:
        resolve_training(spec(start), facts(untied), Chooser())
    assert str(refused.value).startswith(
        f"spec.method.lora.targetModules: found model.embed_tokens, an embedding, with initialization {start}, "
        "allowed: linear layers, or initialization default"
    )
    assert resolve_training(spec("default"), facts(untied), Chooser()).method.lora


def test_an_embedding_under_a_head_for_labels_shares_no_weights() -> None:
    tied = "hf://HuggingFaceTB/SmolLM2-135M-Instruct"
    spec = spec_of(tied, task="text-classification", method={"lora": {"targetModules": ["q_proj", "embed_tokens"]}})
    assert resolve_training(spec, facts(tied), Chooser()).method.lora


def test_each_pin_is_of_a_source_of_a_preset() -> None:
    assert set(REVISIONS) <= {source for preset in PRESETS for source in preset.sources}


@pytest.mark.parametrize("pin", ["c1899de", "C1899DE289A04D12100DB370D81485CDF75E47CA", "main", 12])
def test_a_pin_that_is_no_whole_commit_is_refused(pin: Any) -> None:
    written = yaml.safe_load(files("strop.planning").joinpath("presets.yaml").read_text(encoding="utf-8"))
    assert PresetFile.model_validate(written).revisions == REVISIONS
    with pytest.raises(ValidationError, match=r"revisions\.`Qwen/Qwen3-0\.6B`"):
        PresetFile.model_validate(written | {"revisions": {"Qwen/Qwen3-0.6B": pin}})
