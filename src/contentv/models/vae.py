"""Wan's causal video autoencoder: pixels in -1..1 to latents and back, a few frames at a time.

Two spaces of latents: *raw* is what the autoencoder speaks, *normalised* (mean 0, deviation 1 per
channel) is what the transformer speaks. Everything outside this file holds normalised latents.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, unpatchify
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from contentv.models.vae_frames import FrameDecoder
from contentv.models.vae_tiles import Tiling, decode_tiles
from contentv.models.vaecost import PIXELS_PER_CALL
from contentv.video.shapes import ScaleFactors

_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


class Posterior(NamedTuple):
    """Gaussian over raw latents: mean and log-variance, both [b c t h w]."""

    mean: Tensor
    logvar: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of raw latents; `generator` on the latents' device."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return torch.addcmul(self.mean, (0.5 * self.logvar).exp(), noise)


def scale_factors(vae: AutoencoderKLWan) -> ScaleFactors:
    """Pixels per latent position in time and space."""
    return ScaleFactors(vae.config.scale_factor_temporal, vae.config.scale_factor_spatial)


def encode(vae: AutoencoderKLWan, video: Tensor) -> Posterior:
    """Video [b 3 4k+1 h w] in -1..1 to a posterior over raw latents [b c k+1 h/8 w/8]."""
    return Posterior(*vae.encode(video).latent_dist.parameters.chunk(2, dim=1))


def decode(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Normalised latents [b c t h w] to a video [b 3 4t-3 8h 8w] in -1..1."""
    return torch.cat(list(iter_decode(vae, latents)), dim=2).to(latents.device)


def iter_decode(vae: AutoencoderKLWan, latents: Tensor) -> Iterator[Tensor]:
    """The frames of `decode` in order, in pieces [b 3 n h w]: the first frame, then the rest.

    Each layer remembers the last frames it saw, so the pieces join without a seam. With tiling on,
    tiles come to the host one by one, and the pieces after the last of them, on the host. Slicing
    without tiling is left to diffusers, which gives one piece.
    """
    # Scaled before rounding, should the autoencoder compute in few bits.
    exact = latents.to(torch.promote_types(vae.dtype, torch.float32))
    latents = denormalize(vae, exact).to(vae.dtype)
    tiling = Tiling.of(vae)
    if tiling is not None and tiling.splits(latents):
        each = latents.split(1 if vae.use_slicing else len(latents))
        videos = [decode_tiles(some, partial(_stream, vae), tiling) for some in each]
        yield from _frames_of(torch.cat(videos), scale_factors(vae).time)
    elif vae.use_slicing and len(latents) > 1:
        yield vae.decode(latents, return_dict=False)[0]
    else:
        yield from _stream(vae, latents)


def _stream(vae: AutoencoderKLWan, latents: Tensor) -> Iterator[Tensor]:
    """Raw latents [b c t h w] to pieces of a video [b 3 n h w], in order."""
    latents = _post_quant(vae, latents)
    fast = FrameDecoder.fits(vae, latents)
    decoder = FrameDecoder(vae, len(latents)) if fast else _CachedDecoder(vae)
    for piece in _pieces(vae, latents):
        frames = decoder(piece)
        yield unpatchify(frames, vae.config.patch_size or 1).clamp(-1.0, 1.0)


class _CachedDecoder:
    """diffusers' decoder with its memory of past frames."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        self._decoder = vae.decoder
        num_convs = sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())
        self._memory: list[Any] = [None] * num_convs

    def __call__(self, latents: Tensor) -> Tensor:
        first = self._memory[0] is None
        return self._decoder(latents, feat_cache=self._memory, feat_idx=[0], first_chunk=first)


def to_bfloat16(vae: nn.Module) -> None:
    """From now on computes in bfloat16, channels last, as accelerators convolve fastest.

    Half the memory of float32, and another picture (PSNR: docs/memory-and-speed.md).
    """
    for parameter in vae.parameters():
        layout = _LAYOUTS.get(parameter.ndim, torch.contiguous_format)
        parameter.data = parameter.data.to(torch.bfloat16, memory_format=layout)


def normalize(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Raw to normalised latents, any [b c ...]."""
    mean, std = _statistics(vae, latents)
    return (latents - mean) / std


def denormalize(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Normalised to raw latents, any [b c ...]."""
    mean, std = _statistics(vae, latents)
    return torch.addcmul(mean, latents, std)


def _statistics(vae: AutoencoderKLWan, like: Tensor) -> tuple[Tensor, Tensor]:
    shape = (1, -1) + (1,) * (like.ndim - 2)
    mean = like.new_tensor(vae.config.latents_mean).view(shape)
    return mean, like.new_tensor(vae.config.latents_std).view(shape)


@apply_forward_hook  # model offload brings the autoencoder in here, as it would in `vae.decode`
def _post_quant(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    return vae.post_quant_conv(latents)


def _frames_of(video: Tensor, count: int) -> Iterator[Tensor]:
    yield video[:, :, :1]
    if video.shape[2] > 1:
        yield from video[:, :, 1:].split(count, dim=2)


def _pieces(vae: AutoencoderKLWan, latents: Tensor) -> Iterator[Tensor]:
    """The first latent frame stands for one frame of video, each later one for four."""
    factors = scale_factors(vae)
    pixels_per_latent = factors.time * latents.shape[-2] * latents.shape[-1] * factors.space**2
    frames = max(1, PIXELS_PER_CALL // (len(latents) * pixels_per_latent))
    yield latents[:, :, :1]
    if latents.shape[2] > 1:
        yield from latents[:, :, 1:].split(frames, dim=2)
