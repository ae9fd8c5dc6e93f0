"""Packed linear layers: the same products, as long as the weights stay what they were or change."""

import copy

import pytest
import torch
from torch import Tensor, nn

from builders import random_transformer
from contentv.models.packing import PackedGELU, PackedLinear, can_pack, pack, unpack
from contentv.models.transformer import ContentVTransformer3DModel

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)


@torch.no_grad()
def velocity(model: ContentVTransformer3DModel) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return model(
        hidden_states=torch.randn(1, 16, 3, 8, 6, generator=generator),
        encoder_hidden_states=torch.randn(1, 7, 128, generator=generator),
        pooled_projections=torch.randn(1, 96, generator=generator),
        timestep=torch.tensor([500.0]),
    ).sample


def packed_layers(model: nn.Module) -> list[str]:
    kinds = (PackedLinear, PackedGELU)
    return [name for name, m in model.named_modules() if isinstance(m, kinds)]


def test_packed_layers_give_the_same_and_keep_their_names() -> None:
    model = random_transformer()
    expected, weights = velocity(model), copy.deepcopy(model.state_dict())
    assert can_pack(model)
    pack(model)
    layers = packed_layers(model)
    assert "transformer_blocks.0.attn.to_q" in layers
    assert "transformer_blocks.0.ff_context.net.0" in layers
    assert "transformer_blocks.0.ff_context.net.2" in layers
    assert not any("norm" in name for name in layers)
    torch.testing.assert_close(velocity(model), expected, atol=1e-5, rtol=1e-5)
    assert model.state_dict().keys() == weights.keys()
    unpack(model)
    assert packed_layers(model) == []
    assert torch.equal(velocity(model), expected)


def test_a_weight_that_was_written_to_is_packed_again() -> None:
    model = random_transformer()
    pack(model)
    before = velocity(model)
    with torch.no_grad():
        model.get_submodule("transformer_blocks.0.ff.net.0.proj").weight.mul_(3.0)
    model.get_submodule("transformer_blocks.0.attn.to_v").weight.data = torch.randn(64, 64)
    model.get_submodule("transformer_blocks.0.attn.to_k").weight = nn.Parameter(torch.randn(64, 64))
    changed = velocity(model)
    unpack(model)
    assert (changed - before).norm() > 1e-2 * before.norm()
    torch.testing.assert_close(changed, velocity(model), atol=1e-5, rtol=1e-5)


def test_training_and_other_dtypes_take_the_plain_weight() -> None:
    layer = nn.Linear(16, 8)
    layer.__class__ = PackedLinear
    x = torch.randn(4, 16)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    model = random_transformer().bfloat16()
    assert not can_pack(model)
    pack(model)
    assert packed_layers(model) == []
