from collections.abc import Iterator

import pytest
import torch
from diffusers import AutoencoderKLWan

from contentv.models import vae as autoencoder
from contentv.models import vae_frames
from contentv.models.vae_frames import FrameDecoder
from contentv.models.zoo import tiny_autoencoder
from contentv.video.shapes import ScaleFactors


@pytest.fixture
def vae() -> AutoencoderKLWan:
    """Time matters in it: a fresh tiny autoencoder would treat a clip as stills."""
    torch.manual_seed(0)
    model = tiny_autoencoder().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def wide_vae() -> AutoencoderKLWan:
    """The published autoencoder's form, four levels and whole pixels, with fewer channels."""
    torch.manual_seed(0)
    return AutoencoderKLWan(base_dim=8, z_dim=16, num_res_blocks=1).eval()


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_scale(vae: AutoencoderKLWan) -> None:
    assert autoencoder.scale_factors(vae) == ScaleFactors(time=4, space=8)


def test_encode_gives_the_posterior_of_diffusers(vae: AutoencoderKLWan) -> None:
    video = torch.rand(2, 3, 9, 32, 16) * 2 - 1
    posterior = autoencoder.encode(vae, video)
    expected = vae.encode(video).latent_dist
    assert torch.equal(posterior.mean, expected.mean)
    torch.testing.assert_close(posterior.logvar.clamp(-30, 20), expected.logvar)
    assert posterior.mean.shape == (2, 16, 3, 4, 2)


def test_samples_follow_their_generator(vae: AutoencoderKLWan) -> None:
    posterior = autoencoder.encode(vae, torch.zeros(1, 3, 5, 16, 16))
    draws = [posterior.sample(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_normalize_and_denormalize_are_inverse(vae: AutoencoderKLWan) -> None:
    vae.register_to_config(latents_mean=list(range(16)), latents_std=[2.0] * 16)
    raw = torch.randn(2, 16, 3, 4, 4)
    normalised = autoencoder.normalize(vae, raw)
    torch.testing.assert_close(normalised[:, 4], (raw[:, 4] - 4) / 2)
    torch.testing.assert_close(autoencoder.denormalize(vae, normalised), raw)


@pytest.mark.parametrize("pixels_per_call", [1, 2**14, 2**30])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_pieces_join_to_what_diffusers_decodes(
    vae: AutoencoderKLWan, monkeypatch: pytest.MonkeyPatch, pixels_per_call: int, frames: int
) -> None:
    monkeypatch.setattr(autoencoder, "PIXELS_PER_CALL", pixels_per_call)
    latents = torch.randn(1, 16, frames, 4, 4)
    expected = vae.decode(autoencoder.denormalize(vae, latents)).sample
    pieces = list(autoencoder.iter_decode(vae, latents))
    assert pieces[0].shape[2] == 1
    torch.testing.assert_close(torch.cat(pieces, dim=2), expected, atol=1e-5, rtol=1e-4)
    assert autoencoder.decode(vae, latents).shape == (1, 3, 4 * frames - 3, 32, 32)


def test_large_videos_are_decoded_a_latent_frame_at_a_time(vae: AutoencoderKLWan) -> None:
    pieces = autoencoder.iter_decode(vae, torch.randn(1, 16, 3, 32, 32))
    assert [piece.shape[2] for piece in pieces] == [1, 4, 4]


def test_decode_is_differentiable(vae: AutoencoderKLWan) -> None:
    latents = torch.randn(1, 16, 2, 2, 2, requires_grad=True)
    with torch.enable_grad():
        autoencoder.decode(vae, latents).mean().backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0


def test_slicing_is_left_to_diffusers(vae: AutoencoderKLWan) -> None:
    latents = torch.randn(2, 16, 2, 4, 4)
    expected = autoencoder.decode(vae, latents)
    vae.enable_slicing()
    torch.testing.assert_close(autoencoder.decode(vae, latents), expected, atol=1e-5, rtol=1e-4)


def test_latents_of_one_tile_are_not_tiled(vae: AutoencoderKLWan) -> None:
    latents = torch.randn(1, 16, 2, 4, 4)
    expected = list(autoencoder.iter_decode(vae, latents))
    vae.enable_tiling()
    for piece, same in zip(autoencoder.iter_decode(vae, latents), expected, strict=True):
        assert torch.equal(piece, same)


@pytest.mark.parametrize("sliced", [False, True])
def test_tiles_are_put_together_as_diffusers_does(wide_vae: AutoencoderKLWan, sliced: bool) -> None:
    """Three rows of tiles and two columns, the last of them narrow; nothing to clamp."""
    wide_vae.decoder.conv_out.weight.mul_(0.2)
    wide_vae.enable_tiling(32, 48, 24, 32)
    wide_vae.use_slicing = sliced
    latents = torch.randn(2, 16, 2, 7, 8)
    raw = autoencoder.denormalize(wide_vae, latents)
    expected = wide_vae.decode(raw).sample
    assert expected.abs().max() < 1
    pieces = list(autoencoder.iter_decode(wide_vae, latents))
    assert [piece.shape[2] for piece in pieces] == [1, 4]
    torch.testing.assert_close(torch.cat(pieces, dim=2), expected, atol=1e-5, rtol=1e-4)
    wide_vae.disable_tiling()
    assert not torch.allclose(autoencoder.decode(wide_vae, latents), expected, atol=1e-3)


def test_bfloat16_changes_the_picture_little_and_only_once(wide_vae: AutoencoderKLWan) -> None:
    latents = torch.randn(1, 16, 2, 4, 4)
    exact = autoencoder.decode(wide_vae, latents)
    autoencoder.to_bfloat16(wide_vae)
    rounded = autoencoder.decode(wide_vae, latents)
    assert rounded.dtype == wide_vae.dtype == torch.bfloat16
    error = (rounded.float() - exact).square().mean()
    assert 0 < error < 4e-4  # 40 dB
    autoencoder.to_bfloat16(wide_vae)
    assert torch.equal(autoencoder.decode(wide_vae, latents), rounded)
    convs = [p for p in wide_vae.parameters() if p.ndim in (4, 5)]
    assert all(p.stride(1) == 1 for p in convs)


def test_a_tiled_image_has_one_frame(wide_vae: AutoencoderKLWan) -> None:
    wide_vae.enable_tiling(16, 16, 8, 8)
    pieces = list(autoencoder.iter_decode(wide_vae, torch.randn(1, 16, 1, 4, 4)))
    assert [piece.shape for piece in pieces] == [(1, 3, 1, 32, 32)]


def test_latents_are_scaled_before_they_are_rounded(vae: AutoencoderKLWan) -> None:
    """A mean much larger than the deviation leaves nothing of latents scaled in few bits."""
    vae.register_to_config(latents_mean=[256.0] * 16, latents_std=[1.0] * 16)
    seen: list[torch.Tensor] = []
    vae.post_quant_conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    vae.to(torch.bfloat16)
    autoencoder.decode(vae, torch.full((1, 16, 1, 2, 2), 0.75))
    assert (seen[0] == torch.tensor(256.75).bfloat16()).all()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_decoder_for_cpus_gives_what_diffusers_gives(
    wide_vae: AutoencoderKLWan, batch: int, frames: int
) -> None:
    latents = torch.randn(batch, 16, frames, 4, 6)
    assert FrameDecoder.fits(wide_vae, latents)
    expected = wide_vae.decode(autoencoder.denormalize(wide_vae, latents)).sample
    for pixels_per_call in (1, 2**30):
        autoencoder_pieces = autoencoder.iter_decode(wide_vae, latents)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(autoencoder, "PIXELS_PER_CALL", pixels_per_call)
            got = torch.cat(list(autoencoder_pieces), dim=2)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_other_devices_dtypes_and_training_use_diffusers_decoder(
    wide_vae: AutoencoderKLWan,
) -> None:
    latents = torch.randn(1, 16, 1, 2, 2)
    assert not FrameDecoder.fits(wide_vae, latents.to("meta"))
    assert not FrameDecoder.fits(wide_vae, latents.bfloat16())
    with torch.enable_grad():
        assert not FrameDecoder.fits(wide_vae, latents)


@pytest.mark.parametrize("large", [0, 2**12, 2**40])
def test_frames_may_part_at_any_layer(
    wide_vae: AutoencoderKLWan, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    latents = torch.randn(2, 16, 3, 4, 4)
    expected = wide_vae.decode(autoencoder.denormalize(wide_vae, latents)).sample
    monkeypatch.setattr(vae_frames, "_LARGE", large)
    got = autoencoder.decode(wide_vae, latents)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
