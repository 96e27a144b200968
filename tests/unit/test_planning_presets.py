"""What is known of a model before it is fetched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.api.finetunejob import ModelSpec
from strop.planning.presets import PRESETS, ModelFacts, Preset, model_facts, parse_parameters, typical_shape


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
