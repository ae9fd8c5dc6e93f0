"""Reconstruct clips through a small Gaussian latent."""

from typing import Protocol

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from torch import Tensor

from contentv.data.batch import VideoBatch
from contentv.models.vae_clip import decode_clip, encode_clip


class AutoencoderObjective:
    """Edge-weighted L1 + L2 on pixels, and a light pull of the posterior to the standard normal.

    Edges carry what tells shapes apart but are few pixels, so they weigh `1 + edge_weight`. The
    decoder sees latents with noise, of a standard deviation from 0 (first clip of a batch) to
    `latent_noise` (last): what a diffusion model samples is never exact, and a decoder that has
    seen such latents draws clean edges from them (arXiv 2510.11690, section 4.3).
    """

    def __init__(
        self,
        vae: AutoencoderKLWan,
        *,
        edge_weight: float = 6.0,
        kl_weight: float = 1e-4,
        latent_noise: float = 0.3,
        decoder_only: bool = False,
        compiled: bool = False,
    ) -> None:
        self.networks = vae
        self._edge_weight, self._kl_weight = edge_weight, kl_weight
        self._latent_noise = latent_noise
        # A frozen encoder keeps latents as they are: others may train on them meanwhile.
        vae.encoder.requires_grad_(not decoder_only)
        vae.quant_conv.requires_grad_(not decoder_only)
        self._encode: _Pass = encode_clip
        self._decode: _Pass = decode_clip
        if compiled:
            self._encode = torch.compile(encode_clip, dynamic=False)
            self._decode = torch.compile(decode_clip, dynamic=False)

    def losses(self, batch: VideoBatch) -> dict[str, Tensor]:
        """Values [b] for video [b 3 t h w] in -1..1 and posterior noise [b z t' h' w']."""
        mean, log_variance = self._encode(self.networks, batch.video).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-20, 10)
        level = torch.linspace(0, self._latent_noise, len(mean), device=mean.device)
        spread = (log_variance.exp() + level.view(-1, 1, 1, 1, 1).square()).sqrt()
        latents = mean + spread * batch.noise
        difference = self._decode(self.networks, latents).float() - batch.video
        weight = 1 + self._edge_weight * edges(batch.video)
        pixel = difference.abs() + 2 * difference.square()
        picture = (weight * pixel).flatten(1).sum(1) / weight.expand_as(pixel).flatten(1).sum(1)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).mean(1)
        mse = difference.clamp(-2, 2).square().flatten(1).mean(1)
        psnr = 10 * torch.log10(4 / mse)
        return {"loss": picture + self._kl_weight * kl, "picture": picture, "kl": kl, "psnr": psnr}


class _Pass(Protocol):
    def __call__(self, vae: AutoencoderKLWan, x: Tensor, /) -> Tensor: ...


def edges(video: Tensor, *, threshold: float = 0.25, reach: int = 2) -> Tensor:
    """1 within `reach` pixels of a jump above `threshold`, else 0: [b c t h w] → [b 1 t h w]."""
    jump = torch.zeros_like(video[:, 0])
    across = (video[..., 1:] - video[..., :-1]).abs().amax(1)
    down = (video[..., 1:, :] - video[..., :-1, :]).abs().amax(1)
    jump[..., 1:] = across
    jump[..., 1:, :] = torch.maximum(jump[..., 1:, :], down)
    near = F.max_pool2d((jump > threshold).to(video.dtype), 2 * reach + 1, stride=1, padding=reach)
    return near[:, None]
