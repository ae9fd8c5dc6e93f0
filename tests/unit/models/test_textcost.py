import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from contentv.models.textcost import CLIP_G, ClipSize, T5Size
from contentv.pipelines.locate import built_in_models

CLIP_L_CONFIG = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
CLIP_G_CONFIG = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
}
T5_XXL_CONFIG = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def tiny_config(part: str) -> dict[str, object]:
    file: Path = built_in_models()["tiny"] / part / "config.json"
    config: dict[str, object] = json.loads(file.read_text())
    return config


@pytest.mark.parametrize("config", [CLIP_L_CONFIG, CLIP_G_CONFIG, tiny_config("text_encoder")])
def test_a_clip_encoder_has_the_counted_parameters(config: dict[str, int]) -> None:
    with torch.device("meta"):
        encoder = CLIPTextModelWithProjection(CLIPTextConfig(**config))
    assert ClipSize.of(config).parameters == count(encoder)


@pytest.mark.parametrize(
    "config",
    [
        T5_XXL_CONFIG,
        tiny_config("text_encoder_3"),
        {**T5_XXL_CONFIG, "num_layers": 2, "feed_forward_proj": "relu"},
    ],
)
def test_a_t5_encoder_has_the_counted_parameters_and_linears(config: dict[str, int]) -> None:
    with torch.device("meta"):
        encoder = T5EncoderModel(T5Config(**config))
    size = T5Size.of(config)
    assert size.parameters == count(encoder)
    linears = [tuple(m.weight.shape) for m in encoder.modules() if isinstance(m, nn.Linear)]
    assert sorted(size.linears()) == sorted(linears)


def test_what_a_config_leaves_out_is_as_published() -> None:
    assert ClipSize.of({}) == ClipSize.of(CLIP_L_CONFIG) == ClipSize()
    assert ClipSize.of(CLIP_G_CONFIG) == CLIP_G
    assert T5Size.of({}) == T5Size.of(T5_XXL_CONFIG) == T5Size()
