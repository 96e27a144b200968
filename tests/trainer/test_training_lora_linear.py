from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from strop_trainer.lora_linear import LEVELS, PassCounter, keep_mask, masked, replace_forward
from strop_trainer.methods import quantized
from tests.support.models import tiny_llama

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny")


def adapted(
    folder: Path, *, dropout: float = 0.0, dtype: Any = torch.float32, quantize: bool = False, **options: Any
) -> Any:
    """Return a model whose adapters do something, in training mode."""
    torch.manual_seed(0)
    precision = "bf16" if dtype is torch.bfloat16 else "fp32"
    more = {"quantization_config": quantized.quantization_config(precision)} if quantize else {}
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **more)
    if quantize:
        base = quantized.prepare(base)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear", **options
    )
    model = get_peft_model(base, config)
    chance = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=chance) * 0.3)
    return model.train()


IDS = torch.randint(0, 250, (2, 19), generator=torch.Generator().manual_seed(1))


def loss_and_gradients(model: Any) -> tuple[Any, dict[str, Any]]:
    loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(("rslora", "quantize"), [(False, False), (True, False), (False, True)])
def test_loss_and_gradients_are_those_of_peft(folder: Path, rslora: bool, quantize: bool) -> None:
    loss, gradients = loss_and_gradients(adapted(folder, use_rslora=rslora, quantize=quantize))
    model = adapted(folder, use_rslora=rslora, quantize=quantize)
    assert replace_forward(model, 0)[1] == 14
    ours, our_gradients = loss_and_gradients(model)
    assert torch.allclose(ours, loss, rtol=1e-5)
    assert len(gradients) == 28
    for name, gradient in gradients.items():
        assert our_gradients[name].dtype is torch.float32
        assert torch.allclose(our_gradients[name], gradient, rtol=1e-3, atol=1e-6), name


@pytest.mark.parametrize("quantize", [False, True])
def test_in_bf16_gradients_are_near_those_in_fp32(folder: Path, quantize: bool) -> None:
    _, exact = loss_and_gradients(adapted(folder, quantize=quantize))
    model = adapted(folder, dtype=torch.bfloat16, quantize=quantize)
    assert replace_forward(model, 0)[1] == 14
    _, found = loss_and_gradients(model)
    for name, gradient in exact.items():
        assert found[name].dtype is torch.float32
        cosine = torch.nn.functional.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0)
        assert cosine > 0.99, name


def test_gradients_with_dropout_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(24, 10))
    model = get_peft_model(base, LoraConfig(r=3, lora_alpha=6, lora_dropout=0.25, target_modules=["0"])).train()
    counter, replaced = replace_forward(model, 9)
    assert replaced == 1
    counter.step, counter.micro = 5, 2
    layer = model.base_model.model[0]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        b.normal_()
    x = torch.randn(7, 24, requires_grad=True)
    keep = (keep_mask(x.shape, 64, counter.key(0), x.dtype) != 0).float() * LEVELS / (LEVELS - 64)
    assert 0.6 < float((keep > 0).float().mean()) < 0.9
    weights = torch.randn(7, 10)
    formula = torch.nn.functional.linear(x, base[0].weight, base[0].bias) + ((x * keep) @ a.t() @ b.t()) * 2
    found = model(x)
    assert torch.allclose(found, formula, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad((formula * weights).sum(), (x, a, b)),
        torch.autograd.grad((found * weights).sum(), (x, a, b)),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-5)


def test_of_a_quantized_layer_only_the_rounded_input_is_kept(folder: Path) -> None:
    """PEFT's own way keeps the adapter's input in its fp32, dropped, and the mask."""
    kept: list[Any] = []

    def keep(tensor: Any) -> Any:
        kept.append(tensor)
        return tensor

    model = adapted(folder, dropout=0.1, dtype=torch.bfloat16, quantize=True)
    replace_forward(model, 0)
    layer = model.get_base_model().model.layers[0].mlp.gate_proj
    x = torch.randn(32, layer.in_features, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    of_rows = [tensor for tensor in kept if tensor.shape[0] == len(x)]
    assert {(tuple(tensor.shape), tensor.dtype) for tensor in of_rows} == {
        ((32, layer.in_features), torch.bfloat16),
        ((32, 4), torch.bfloat16),
    }


def test_evaluation_drops_nothing_and_a_disabled_adapter_is_the_base_model(folder: Path) -> None:
    plain, model = adapted(folder, dropout=0.5).eval(), adapted(folder, dropout=0.5).eval()
    replace_forward(model, 0)
    with torch.no_grad():
        expected = plain(input_ids=IDS).logits
        assert torch.allclose(model(input_ids=IDS).logits, expected, atol=1e-5)
        with model.disable_adapter(), plain.disable_adapter():
            assert torch.equal(model(input_ids=IDS).logits, plain(input_ids=IDS).logits)
        assert torch.allclose(model(input_ids=IDS).logits, expected, atol=1e-5)


def test_recomputing_in_the_backward_pass_gives_the_same_gradients(folder: Path) -> None:
    straight, recomputing = adapted(folder, dropout=0.3), adapted(folder, dropout=0.3)
    replace_forward(straight, 0)
    replace_forward(recomputing, 0)
    recomputing.get_base_model().activation_checkpointing_enable()
    recomputing.enable_input_require_grads()
    loss, gradients = loss_and_gradients(straight)
    again, found = loss_and_gradients(recomputing)
    assert torch.equal(loss, again)
    for name, gradient in gradients.items():
        assert torch.allclose(found[name], gradient, rtol=1e-5, atol=1e-8), name


def test_other_kinds_of_adapters_keep_their_own_way(folder: Path) -> None:
    assert replace_forward(adapted(folder, use_dora=True), 0)[1] == 0
    base = torch.nn.Sequential(torch.nn.Linear(4, 4))
    assert replace_forward(get_peft_model(base, LoraConfig(target_modules=["0"], lora_bias=True)), 0)[1] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_share_is_dropped_and_the_rest_is_untouched(dtype: Any) -> None:
    x = torch.randn(1000, 1001).to(dtype)
    y = masked(x, keep_mask(x.shape, 77, (1, 2, 3, 4), dtype))
    zero = y == 0
    assert abs(float(zero.float().mean()) - 77 / 256) < 2e-3
    assert torch.equal(y[~zero], x[~zero])


def test_neighbours_and_layers_are_independent() -> None:
    def kept(layer: int) -> Any:
        return keep_mask(torch.Size([400_000]), 128, (0, 0, 0, layer), torch.float32) != 0

    for apart in (1, 2, 3, 4, 8):
        both = float((kept(0)[apart:] & kept(0)[:-apart]).float().mean())
        assert abs(both - 0.25) < 5e-3
    assert abs(float((kept(0) & kept(1)).float().mean()) - 0.25) < 5e-3


def test_a_mask_is_a_function_of_seed_step_pass_and_layer() -> None:
    shape, counter = torch.Size([64, 63]), PassCounter(1)
    first = keep_mask(shape, 99, counter.key(0), torch.float32)
    torch.manual_seed(5)
    assert torch.equal(keep_mask(shape, 99, counter.key(0), torch.float32), first)
    keys = [(2, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 1)]
    assert not any(torch.equal(keep_mask(shape, 99, key, torch.float32), first) for key in keys)
