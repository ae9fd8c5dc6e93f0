import math

import pytest
import torch

from contentv.data.batch import VideoBatch
from contentv.models.zoo import tiny_autoencoder
from contentv.training.objectives.autoencoder import AutoencoderObjective, edges


def batch(video: torch.Tensor) -> VideoBatch:
    b, _, t, h, w = video.shape
    noise = torch.randn(b, 16, (t - 1) // 4 + 1, h // 8, w // 8)
    return VideoBatch(video, noise, tuple(str(i) for i in range(b)))


def grey_objective() -> AutoencoderObjective:
    """An autoencoder that answers everything with mid-grey, so that losses can be told by hand."""
    torch.manual_seed(0)
    vae = tiny_autoencoder()
    torch.nn.init.zeros_(vae.decoder.conv_out.weight)
    torch.nn.init.zeros_(vae.decoder.conv_out.bias)
    objective = AutoencoderObjective(vae, edge_weight=3.0, kl_weight=0.5)
    vae.requires_grad_(False)
    return objective


def test_edges_are_the_pixels_near_a_jump() -> None:
    video = torch.zeros(1, 3, 2, 9, 9)
    video[:, 1, 1, :, 5:] = 0.5  # one channel, second frame, a vertical border
    found = edges(video, threshold=0.25, reach=2)
    assert found.shape == (1, 1, 2, 9, 9)
    assert not found[:, :, 0].any()
    assert torch.equal(found[0, 0, 1, 4], torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 0.0]))
    assert torch.equal(edges(video.mT, reach=2), found.mT)
    assert not edges(video, threshold=0.6).any()


def test_edges_weigh_more_than_planes() -> None:
    video = torch.zeros(2, 3, 1, 16, 16)
    video[0] = 0.5  # a plane: |x| + 2 x² = 1 everywhere
    video[1, :, :, :, 8:] = 0.5
    losses = grey_objective().losses(batch(video))
    assert losses["picture"][0] == pytest.approx(1.0, abs=1e-6)
    # 5 columns of 16 near the border weigh 4; of the bright half 3 are near and 5 are far.
    assert losses["picture"][1] == pytest.approx((3 * 4 + 5) / (5 * 4 + 11), abs=1e-5)


def test_psnr_and_divergence_have_their_closed_forms() -> None:
    objective = grey_objective()
    video = torch.full((1, 3, 5, 16, 16), 0.5)
    losses = objective.losses(batch(video))
    assert losses["psnr"][0] == pytest.approx(10 * math.log10(4 / 0.25), abs=1e-4)
    # A fresh posterior has log-variance -6 everywhere, and a mean of the network's choice.
    moments = objective._encode(objective.networks, video)
    mean = moments.chunk(2, dim=1)[0]
    expected = 0.5 * (mean.square().mean() + math.exp(-6) - 1 + 6)
    assert losses["kl"][0] == pytest.approx(float(expected), abs=1e-4)
    total = losses["picture"] + 0.5 * losses["kl"]
    assert torch.allclose(losses["loss"], total)


def test_losses_are_per_sample() -> None:
    objective = grey_objective()
    videos = torch.rand(3, 3, 5, 16, 16) * 2 - 1
    together = objective.losses(batch(videos))["picture"]
    alone = torch.cat([objective.losses(batch(video[None]))["picture"] for video in videos])
    assert together.shape == (3,)
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_first_clips_latents_are_clean_and_later_ones_ever_noisier() -> None:
    torch.manual_seed(0)
    vae = tiny_autoencoder().requires_grad_(False)
    clips = batch((torch.rand(1, 3, 1, 64, 64) * 2 - 1).repeat(4, 1, 1, 1, 1))
    clips.noise.copy_(clips.noise[:1].expand_as(clips.noise).clone())
    clean, noisy = (
        AutoencoderObjective(vae, latent_noise=level).losses(clips)["picture"] for level in (0, 3.0)
    )
    change = (noisy - clean).abs()
    assert change[0] < 1e-6
    assert 1e-5 < change[1] < change[2] < change[3]
