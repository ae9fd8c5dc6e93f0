"""Linear layers of few bits by torchao and bitsandbytes: which layers, how near, how large."""

import copy
import importlib.util
import re

import pytest
import torch
from torch import Tensor, nn

from builders import random_transformer
from contentv.base.errors import UserError
from contentv.lowbit.libraries import (
    Layers,
    check_installed,
    kind_of,
    kind_of_config,
    predicted_bytes,
    quantize_layers,
    stored_bytes,
)
from contentv.models.transformer import ContentVTransformer3DModel

pytest.importorskip("torchao")

CPU = torch.device("cpu")
LAYERS = Layers(
    tokens=r"transformer_blocks\.\d+\.(attn|ff|ff_context)\..+",
    vectors=r"transformer_blocks\.\d+\.norm1(_context)?\.linear",
    kept=("pos_embed", "time_text_embed", "context_embedder", "norm_out", "proj_out"),
)
INT8_KINDS = ("int8", "int8-dynamic")


@pytest.fixture(scope="module")
def float_model() -> ContentVTransformer3DModel:
    return random_transformer()


def quantized(model: ContentVTransformer3DModel, kind: str) -> ContentVTransformer3DModel:
    rounded = copy.deepcopy(model)
    quantize_layers(rounded, kind, LAYERS, rounded.dtype, CPU)
    return rounded


@torch.no_grad()
def velocity(model: ContentVTransformer3DModel) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    latents, text, pooled = (
        torch.randn(*shape, generator=rng).to(model.dtype)
        for shape in [(2, 16, 3, 8, 8), (2, 40, 128), (2, 96)]
    )
    time = torch.tensor([300.0, 900.0])
    return model(latents, text, pooled, time, return_dict=False)[0].float()


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}


def is_rounded(layer: nn.Linear) -> bool:
    return type(layer.weight) not in (nn.Parameter, Tensor)


@pytest.mark.parametrize("kind", INT8_KINDS)
def test_velocity_stays_near_and_repeats(
    float_model: ContentVTransformer3DModel, kind: str
) -> None:
    exact, rounded = velocity(float_model), quantized(float_model, kind)
    found = velocity(rounded)
    error = ((found - exact).norm() / exact.norm()).item()
    assert 1e-6 < error < 2e-3
    assert torch.equal(found, velocity(rounded))


def test_rounding_inputs_costs_more_than_weights_alone(
    float_model: ContentVTransformer3DModel,
) -> None:
    exact = velocity(float_model)
    weights, inputs = (
        (velocity(quantized(float_model, kind)) - exact).norm() for kind in INT8_KINDS
    )
    assert weights < inputs


def test_each_weight_is_within_half_a_step(float_model: ContentVTransformer3DModel) -> None:
    """A row's step is its largest weight over 127 or 127.5, by the library's taste."""
    floats, rounded = linears(float_model), linears(quantized(float_model, "int8"))
    name = "transformer_blocks.0.attn.to_q"
    weight, found = floats[name].weight, rounded[name].weight.dequantize()
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((found - weight).abs() <= step * 0.501).all()


@pytest.mark.parametrize("kind", INT8_KINDS)
def test_block_layers_are_rounded_the_ends_are_not(
    float_model: ContentVTransformer3DModel, kind: str
) -> None:
    for name, layer in linears(quantized(float_model, kind)).items():
        assert is_rounded(layer) == name.startswith("transformer_blocks."), name
        if is_rounded(layer):
            rounds_inputs = layer.weight.act_quant_kwargs is not None
            is_modulation = re.search(r"norm1(_context)?\.linear", name) is not None
            assert rounds_inputs == (kind == "int8-dynamic" and not is_modulation), name


def test_query_and_key_norms_stay(float_model: ContentVTransformer3DModel) -> None:
    before, after = float_model.state_dict(), quantized(float_model, "int8").state_dict()
    norms = [name for name in before if re.search(r"norm_(added_)?[qk]\.", name)]
    assert len(norms) == 8
    for name in norms:
        assert torch.equal(before[name], after[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", INT8_KINDS)
def test_bytes_are_as_predicted(kind: str, dtype: torch.dtype) -> None:
    model = random_transformer().to(dtype)
    layers = [layer for _, layer in LAYERS.chosen(model)]
    floats = sum(layer.weight.nbytes for layer in layers)
    predicted = sum(predicted_bytes(kind, *layer.weight.shape) for layer in layers)
    before = stored_bytes(model)
    counts = quantize_layers(model, kind, LAYERS, dtype, CPU)
    assert counts == (len(layers), sum(layer.weight.numel() for layer in layers))
    assert stored_bytes(model) == before - floats + predicted


def test_nf4_layers_of_bitsandbytes() -> None:
    """Layers run on a CPU too; only diffusers' loader does not: the device table refuses there."""
    pytest.importorskip("bitsandbytes")
    model = random_transformer()
    exact = velocity(model)
    layers = [layer for _, layer in LAYERS.chosen(model)]
    before, floats = stored_bytes(model), sum(layer.weight.nbytes for layer in layers)
    predicted = sum(predicted_bytes("nf4", *layer.weight.shape) for layer in layers)
    quantize_layers(model, "nf4", LAYERS, torch.float32, CPU)
    error = (velocity(model) - exact).norm() / exact.norm()
    assert 1e-4 < error < 0.05
    assert kind_of(model) == "nf4"
    assert type(model.proj_out) is nn.Linear
    assert stored_bytes(model) == pytest.approx(before - floats + predicted, rel=0.01)


@pytest.mark.parametrize("kind", INT8_KINDS)
def test_the_kind_is_read_back(float_model: ContentVTransformer3DModel, kind: str) -> None:
    assert kind_of(float_model) is None
    rounded = quantized(float_model, kind)
    assert kind_of(rounded) == kind
    assert kind_of_config(rounded.hf_quantizer.quantization_config.to_dict()) == kind


def test_kinds_of_others_are_told_apart() -> None:
    assert kind_of_config(None) is None
    assert kind_of_config({"quant_method": "gguf"}) == "another kind"
    fp4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}
    assert kind_of_config(fp4) == "another kind"


@pytest.mark.parametrize(("kind", "library"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_a_missing_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, kind: str, library: str
) -> None:
    check_installed(kind)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=rf"needs {library}: pip install 'contentv\[quant\]'"):
        check_installed(kind)
