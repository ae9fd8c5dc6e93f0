import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from contentv.models.vae_clip import decode_clip, encode_clip

Z_DIM = 4


def autoencoder(kind: str) -> AutoencoderKLWan:
    """Every weight random: a fresh tiny autoencoder looks at one frame and would hide mistakes."""
    torch.manual_seed(0)
    layout = {
        "tiny": {"dim_mult": [1, 2, 3], "patch_size": 2, "in_channels": 12, "out_channels": 12},
        "published": {"dim_mult": [1, 1, 2, 2]},
    }[kind]
    time = [True, True] if kind == "tiny" else [False, True, True]
    vae = AutoencoderKLWan(
        base_dim=8, z_dim=Z_DIM, num_res_blocks=1, temperal_downsample=time, **layout
    )
    with torch.no_grad():
        vae.decoder.conv_out.weight /= 2  # inside -1..1, where diffusers does not clamp
    return vae


def clip(frames: int) -> Tensor:
    return torch.rand(2, 3, frames, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def latents(frames: int) -> Tensor:
    shape = (2, Z_DIM, (frames - 1) // 4 + 1, 4, 4)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def gradients(vae: AutoencoderKLWan, output: Tensor) -> dict[str, Tensor | None]:
    vae.zero_grad()
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    (output * weights).sum().backward()
    return {name: parameter.grad for name, parameter in vae.named_parameters()}


def same_gradients(ours: dict[str, Tensor | None], theirs: dict[str, Tensor | None]) -> bool:
    reached = {name for name, gradient in theirs.items() if gradient is not None}
    assert reached == {name for name, gradient in ours.items() if gradient is not None}
    for name in reached:
        scale = theirs[name].abs().max() + 1e-3
        assert (ours[name] - theirs[name]).abs().max() < 1e-4 * scale, name
    return bool(reached)


@pytest.mark.parametrize("kind", ["tiny", "published"])
@pytest.mark.parametrize("frames", [1, 5, 9, 17])
def test_encoding_a_whole_clip_is_diffusers_chunked_encoding(kind: str, frames: int) -> None:
    vae, video = autoencoder(kind), clip(frames)
    ours = encode_clip(vae, video)
    theirs = vae.encode(video).latent_dist.parameters
    assert ours.shape == theirs.shape == (2, 2 * Z_DIM, (frames - 1) // 4 + 1, 4, 4)
    assert (ours - theirs).abs().max() < 1e-5
    assert same_gradients(gradients(vae, ours), gradients(vae, theirs))


@pytest.mark.parametrize("kind", ["tiny", "published"])
@pytest.mark.parametrize("frames", [1, 5, 9, 17])
def test_decoding_a_whole_clip_is_diffusers_chunked_decoding(kind: str, frames: int) -> None:
    vae, z = autoencoder(kind), latents(frames)
    ours = decode_clip(vae, z)
    theirs = vae.decode(z).sample
    assert ours.shape == theirs.shape == (2, 3, frames, 32, 32)
    assert (ours - theirs).abs().max() < 1e-5
    assert ours.abs().max() < 1
    assert same_gradients(gradients(vae, ours), gradients(vae, theirs))


def test_gradients_reach_every_weight_and_the_picture() -> None:
    vae = autoencoder("tiny")
    video = clip(17).requires_grad_()
    moments = encode_clip(vae, video)
    found = gradients(vae, decode_clip(vae, moments[:, :Z_DIM] + moments[:, Z_DIM:]))
    assert all(gradient is not None and gradient.any() for gradient in found.values())
    assert video.grad is not None
    assert all(frame.any() for frame in video.grad.unbind(2))


def test_values_out_of_range_are_not_cut() -> None:
    vae = autoencoder("tiny")
    with torch.no_grad():
        vae.decoder.conv_out.bias += 3
        assert decode_clip(vae, latents(5)).min() > 1
