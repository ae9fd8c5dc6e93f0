from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from contentv.models.text import TextTowers, embed, tokenize
from contentv.models.vae_clip import decode_clip, encode_clip
from contentv.models.zoo import (
    TEXT_LENGTHS,
    tiny_autoencoder,
    tiny_text_towers,
    tiny_transformer,
)
from contentv.toyworld.captions import vocabulary

SHIPPED_BYTES = 20_000_000


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLWan:
    torch.manual_seed(0)
    return tiny_autoencoder().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def towers() -> TextTowers:
    torch.manual_seed(0)
    return tiny_text_towers(vocabulary())


def moving_clip() -> Tensor:
    """17 frames, each unlike the others."""
    return torch.rand(1, 3, 17, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_all_of_the_tiny_model_fits_the_package_in_bf16(
    vae: AutoencoderKLWan, towers: TextTowers, tmp_path: Path
) -> None:
    encoders = [towers.text_encoder, towers.text_encoder_2, towers.text_encoder_3]
    networks = [vae, tiny_transformer(), *encoders]
    weights = 2 * sum(p.numel() for network in networks for p in network.parameters())
    for index, tokenizer in enumerate([towers.tokenizer, towers.tokenizer_2, towers.tokenizer_3]):
        tokenizer.save_pretrained(tmp_path / str(index))
    words = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert weights + words + 20_000 < SHIPPED_BYTES  # 20 kB: safetensors headers, config files


def test_a_fresh_autoencoder_decodes_a_still_clip_to_identical_frames(
    vae: AutoencoderKLWan,
) -> None:
    still = moving_clip()[:, :, :1].expand(-1, -1, 17, -1, -1)
    latents = encode_clip(vae, still).chunk(2, dim=1)[0]
    assert latents.std() > 0.01
    assert (latents - latents[:, :, :1]).abs().max() < 1e-5
    frames = decode_clip(vae, latents)
    assert frames.std() > 0.01
    assert (frames - frames[:, :, :1]).abs().max() < 1e-5


def test_a_fresh_autoencoder_encodes_every_fourth_frame_as_a_picture(
    vae: AutoencoderKLWan,
) -> None:
    video = moving_clip()
    moments = encode_clip(vae, video)
    for index in range(5):
        picture = encode_clip(vae, video[:, :, 4 * index : 4 * index + 1])
        assert (moments[:, :, index] - picture[:, :, 0]).abs().max() < 1e-4


def test_a_fresh_autoencoder_decodes_every_latent_frame_as_a_picture(
    vae: AutoencoderKLWan,
) -> None:
    latents = torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    frames = decode_clip(vae, latents)
    for index, frame in enumerate(frames.unbind(2)):
        picture = decode_clip(vae, latents[:, :, (index + 3) // 4 :][:, :, :1])
        assert (frame - picture[:, :, 0]).abs().max() < 1e-4


def test_a_fresh_posterior_is_narrow(vae: AutoencoderKLWan) -> None:
    _, log_variance = encode_clip(vae, moving_clip()).chunk(2, dim=1)
    assert torch.equal(log_variance, torch.full_like(log_variance, -6.0))


def test_clips_pooled_text_is_read_at_the_end_of_text_not_in_the_padding(
    towers: TextTowers,
) -> None:
    text = "a red circle moves right"
    for tokenizer, encoder in (
        (towers.tokenizer, towers.text_encoder),
        (towers.tokenizer_2, towers.text_encoder_2),
    ):
        bare = tokenizer(text, return_tensors="pt").input_ids
        padded = tokenizer(text, padding="max_length", max_length=16, return_tensors="pt").input_ids
        assert len(bare[0]) < len(padded[0]) == 16
        pooled = encoder(padded).text_embeds
        assert torch.allclose(pooled, encoder(bare).text_embeds, atol=1e-5)


def test_the_transformer_reads_what_the_towers_write(towers: TextTowers) -> None:
    transformer = tiny_transformer()
    latents = torch.randn(2, 16, 5, 8, 8)
    for length in TEXT_LENGTHS:
        tokens = tokenize(towers, ["a red circle", ""], max_length_3=length)
        text = embed(towers, tokens)
        assert text.sequence.shape == (2, 16 + length, 128)
        velocity = transformer(
            latents,
            encoder_hidden_states=text.sequence,
            pooled_projections=text.pooled,
            timestep=torch.tensor([0.0, 1000.0]),
            return_dict=False,
        )[0]
        assert velocity.shape == latents.shape


def test_a_fresh_transformers_empty_tokens_differ_by_place_about_nearly_nothing() -> None:
    transformer = tiny_transformer()
    assert transformer.sincos is not None
    table = transformer.sincos.add(torch.zeros(1, 5, 4, 4, 192))
    tokens = transformer.sincos.add(transformer.pos_embed(torch.zeros(1, 16, 5, 8, 8)))
    shared = [each.mean((0, 1, 2, 3)).abs().max() for each in (table, tokens)]
    assert shared[0] > 0.9
    assert shared[1] < 0.2
    assert torch.allclose(tokens.diff(dim=1), table.diff(dim=1), atol=1e-6)
