from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKLWan

from contentv.models.vaecost import (
    AutoencoderSize,
    autoencoder_parameters,
    decode_memory,
    decoder_parameters,
    tile_of,
)
from contentv.models.zoo import tiny_autoencoder
from contentv.video.shapes import LatentShape

SHAPE = LatentShape(32, 54, 96)


def published() -> AutoencoderKLWan:
    with torch.device("meta"):
        return AutoencoderKLWan()


@pytest.mark.parametrize("build", [published, tiny_autoencoder])
def test_an_autoencoder_has_the_counted_parameters(build: type[AutoencoderKLWan]) -> None:
    vae = build()
    size = AutoencoderSize.of(vae.config)
    assert autoencoder_parameters(size) == sum(p.numel() for p in vae.parameters())
    parts = (vae.decoder, vae.post_quant_conv)
    assert decoder_parameters(size) == sum(p.numel() for part in parts for p in part.parameters())


def test_what_a_config_leaves_out_is_as_published() -> None:
    assert AutoencoderSize.of({}) == AutoencoderSize.of(published().config) == AutoencoderSize()


def test_decoding_takes_memory_by_area_not_by_length() -> None:
    memory = decode(SHAPE)
    assert decode(replace(SHAPE, frames=3)) == memory
    assert decode(replace(SHAPE, height=108)) == pytest.approx(2 * memory)
    assert decode_memory(AutoencoderSize(), SHAPE, samples=2, itemsize=4) == 2 * memory
    assert decode_memory(AutoencoderSize(), SHAPE, samples=1, itemsize=2) == memory / 2


def test_an_image_remembers_nothing_of_frames_before() -> None:
    assert decode(replace(SHAPE, frames=1)) < decode(SHAPE) / 2


def test_a_tile_is_never_larger_than_the_video() -> None:
    assert tile_of(SHAPE) == LatentShape(32, 32, 32)
    assert tile_of(LatentShape(5, 8, 40)) == LatentShape(5, 8, 32)


def decode(latent: LatentShape) -> float:
    return decode_memory(AutoencoderSize(), latent, samples=1, itemsize=4)
