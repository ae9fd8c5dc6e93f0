import pytest
import torch

from builders import VOCABULARY
from contentv.base.errors import UserError
from contentv.encoding.encoder import FeatureEncoder
from contentv.models.text import TextTowers, embed, tokenize
from contentv.models.vae import encode
from contentv.models.zoo import TEXT_LENGTHS, tiny_autoencoder, tiny_text_towers
from contentv.toyworld.dataset import sample


@pytest.fixture(scope="module")
def encoder() -> FeatureEncoder:
    torch.manual_seed(0)
    towers = tiny_text_towers(VOCABULARY)
    for tower in towers.encoders.values():
        tower.eval()
    return FeatureEncoder(tiny_autoencoder().eval().requires_grad_(False), towers)


@pytest.mark.parametrize("frames", [1, 17])
def test_latents_are_those_of_the_pipelines_autoencoder(
    encoder: FeatureEncoder, frames: int
) -> None:
    clip = sample(0, 0).frames()[:frames]
    video = torch.from_numpy(clip[None]).permute(0, 4, 1, 2, 3) / 127.5 - 1
    theirs = encode(encoder.autoencoder, video)
    for part, whole in zip(encoder.clip(clip), theirs, strict=True):
        assert part.shape == (16, (frames - 1) // 4 + 1, 8, 8)
        assert torch.equal(part, whole[0].bfloat16())


def test_embeddings_are_those_of_the_pipelines_towers(encoder: FeatureEncoder) -> None:
    text, length = "a red circle", TEXT_LENGTHS[0]
    found = encoder.caption(text, length)
    with torch.no_grad():
        towers = encoder.text_towers
        whole = embed(towers, tokenize(towers, [text], max_length_3=length))
    assert torch.equal(found.t5, whole.sequence[0, -length:])
    assert torch.equal(found.clip, whole.sequence[0, :-length, : found.clip.shape[1]])
    assert torch.equal(torch.cat([found.clip_pooled, found.clip_2_pooled]), whole.pooled[0])


def test_a_caption_stands_in_batches_of_its_length_and_of_longer_ones(
    encoder: FeatureEncoder,
) -> None:
    assert encoder.lengths("a", TEXT_LENGTHS) == tuple(sorted(TEXT_LENGTHS))
    assert encoder.lengths("a big " * 20, TEXT_LENGTHS) == (max(TEXT_LENGTHS),)


def test_identity_is_of_the_encoder_alone() -> None:
    torch.manual_seed(0)
    vae = tiny_autoencoder()
    before = FeatureEncoder(vae).identity
    with torch.no_grad():
        vae.decoder.conv_out.weight += 1
        vae.post_quant_conv.weight += 1
    assert FeatureEncoder(vae).identity == before
    with torch.no_grad():
        vae.quant_conv.bias[0] += 1
    assert FeatureEncoder(vae).identity != before


@pytest.mark.parametrize("towers", [None, TextTowers(None, None, None, None, None, None)])
def test_without_text_encoders_captions_are_refused(towers: TextTowers | None) -> None:
    with pytest.raises(UserError, match="has no CLIP text encoder"):
        FeatureEncoder(towers=towers).caption("a", 16)
