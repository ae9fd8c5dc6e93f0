"""Wan's causal autoencoder over a whole clip at once, for training.

diffusers walks a clip in chunks of four frames and carries caches between them, which bounds memory
at inference. Training holds every activation anyway, so here the same modules see all frames in one
call: the same numbers (tested to 1e-5), larger convolutions, nothing that hinders `torch.compile`.
"""

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, patchify, unpatchify
from torch import Tensor


def encode_clip(vae: AutoencoderKLWan, video: Tensor) -> Tensor:
    """Clip [b 3 4k+1 h w] in -1..1 → posterior moments [b 2z k+1 h/s w/s]: mean, log-variance."""
    encoder = vae.encoder
    x = encoder.conv_in(patchify(video, vae.config.patch_size or 1))
    for layer in encoder.down_blocks:
        x = _downsample(layer, x) if isinstance(layer, WanResample) else layer(x)
    x = encoder.mid_block(x)
    x = encoder.conv_out(encoder.nonlinearity(encoder.norm_out(x)))
    return vae.quant_conv(x)


def decode_clip(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Raw latents [b z k+1 h w] → video [b 3 4k+1 h·s w·s].

    Not clamped: gradients reach values outside -1..1.
    """
    decoder = vae.decoder
    x = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(latents)))
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            x = resnet(x)
        for resample in block.upsamplers or ():
            x = _upsample(resample, x)
    x = decoder.conv_out(decoder.nonlinearity(decoder.norm_out(x)))
    return unpatchify(x, vae.config.patch_size or 1)


def _downsample(layer: WanResample, x: Tensor) -> Tensor:
    x = layer(x)
    if layer.mode == "downsample3d" and x.shape[2] > 1:
        # The first frame stands alone; windows of three frames with stride two start on it.
        x = torch.cat([x[:, :, :1], layer.time_conv(x)], dim=2)
    return x


def _upsample(layer: WanResample, x: Tensor) -> Tensor:
    if layer.mode == "upsample3d" and x.shape[2] > 1:
        # Every frame but the first becomes two; the convolution does not see the first frame.
        first, rest = x[:, :, :1], layer.time_conv(x[:, :, 1:])
        b, c, t, h, w = rest.shape
        rest = (
            rest.view(b, 2, c // 2, t, h, w)
            .permute(0, 2, 3, 1, 4, 5)
            .reshape(b, c // 2, 2 * t, h, w)
        )
        x = torch.cat([first, rest], dim=2)
    return layer(x)
