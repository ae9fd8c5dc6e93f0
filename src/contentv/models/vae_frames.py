"""Wan's decoder on a CPU: frames as channels-last images, which CPUs convolve fastest.

The same weights and results as diffusers' decoder (tested to 1e-5). A causal convolution over three
frames becomes three 2-D convolutions; those over frames before the first, all zeros, are left out,
which is two thirds of the work of a first frame or an image. Only for inference: it works in place.

Shapes: frames are [n*b c h w], channels last in memory, time running slower than the batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanAttentionBlock,
    WanResample,
    WanResidualBlock,
    WanRMS_norm,
)
from torch import Tensor, nn

Layer = Callable[[Tensor], Tensor]

# Bytes of frames that still go through a layer together. More would neither stay in a CPU's cache
# nor be memory that the process keeps: the system hands out blocks beyond 32 MiB anew, zeroed.
_LARGE = 2**23

_LAYOUT = torch.channels_last


class FrameDecoder:
    """Decodes one batch of videos, some latent frames a call; remembers what causality needs."""

    def __init__(self, vae: AutoencoderKLWan, batch_size: int) -> None:
        decoder = vae.decoder
        layers: list[Layer] = [_CausalConv(decoder.conv_in, batch_size)]
        middle = decoder.mid_block
        layers.append(_Residual(middle.resnets[0], batch_size))
        for attention, resnet in zip(middle.attentions, middle.resnets[1:], strict=True):
            layers += [_Attention(attention), _Residual(resnet, batch_size)]
        for block in decoder.up_blocks:
            layers += [_Residual(resnet, batch_size) for resnet in block.resnets]
            layers += [_Upsample(upsampler, batch_size) for upsampler in block.upsamplers or ()]
        layers += [_Norm(decoder.norm_out), _CausalConv(decoder.conv_out, batch_size)]
        self._layers = layers
        self._batch_size = batch_size

    @staticmethod
    def fits(vae: AutoencoderKLWan, latents: Tensor) -> bool:
        """Whether these latents are on a CPU, together with weights as they were trained.

        Offloading and casting hooks keep weights elsewhere, or in another dtype, until a layer is
        called; Wan 2.2's decoder has layers that this one does not know.
        """
        weight = vae.decoder.conv_in.weight
        return (
            latents.device.type == "cpu"
            and (weight.device, weight.dtype) == (latents.device, latents.dtype)
            and not vae.config.is_residual
            and not torch.is_grad_enabled()
        )

    def __call__(self, latents: Tensor) -> Tensor:
        """The next latent frames [b c n h w] to their pictures [b c m 8h 8w]."""
        frames = latents.transpose(1, 2).transpose(0, 1).flatten(0, 1)
        frames = self._run(frames.contiguous(memory_format=_LAYOUT), self._layers)
        return frames.unflatten(0, (-1, self._batch_size)).permute(1, 2, 0, 3, 4)

    def _run(self, frames: Tensor, layers: list[Layer]) -> Tensor:
        """Through all layers together, or, once they have grown large, two frames at a time."""
        pair = 2 * self._batch_size
        for index, layer in enumerate(layers):
            if len(frames) > pair and frames.nbytes > _LARGE:
                pairs = frames.split(pair)
                return torch.cat([self._run(frames, layers[index:]) for frames in pairs])
            frames = layer(frames)
        return frames


class _CausalConv:
    """A convolution that sees a frame and the two before it."""

    def __init__(self, conv: nn.Conv3d, batch_size: int) -> None:
        # Newest tap first, so that a tap's place is how many frames back it looks.
        taps = reversed(conv.weight.unbind(2))
        self._taps = [tap.contiguous(memory_format=_LAYOUT) for tap in taps]
        # Along 1x1 kernels the products saved are not worth the additions.
        self._mixed = _mixed_taps(*self._taps) if min(conv.kernel_size) == 3 else None
        self._bias = conv.bias
        self._padding = conv.kernel_size[1] // 2
        self._batch_size = batch_size
        self._past: list[Tensor] = []  # single frames, the newest last

    def __call__(self, frames: Tensor) -> Tensor:
        if self._mixed is not None and len(self._past) == 2:
            count, rest = divmod(len(frames), 2 * self._batch_size)
            if count > 0 and rest == 0:
                return self._in_pairs(frames, *self._mixed)
        newest, *older = self._taps
        result = F.conv2d(frames, newest, self._bias, padding=self._padding)
        if not older:
            return result
        if len(frames) == self._batch_size:
            for tap, earlier in zip(older, reversed(self._past), strict=False):
                result += F.conv2d(earlier, tap, padding=self._padding)
            self._past = [*self._past, frames][-len(older) :]
            return result
        seen = torch.cat([*self._past, frames])
        for lag, tap in enumerate(older, 1):
            end = len(seen) - lag * self._batch_size
            count = min(end, len(frames))
            if count > 0:
                earlier = seen[end - count : end]
                result[-count:] += F.conv2d(earlier, tap, padding=self._padding)
        self._past = list(seen[-len(older) * self._batch_size :].clone().split(self._batch_size))
        return result

    def _in_pairs(self, frames: Tensor, even: Tensor, odd: Tensor) -> Tensor:
        """Two frames by four convolutions, not six: Winograd's F(2, 3) (1980), along time."""
        newest, _, oldest = self._taps
        seen = [*self._past, *frames.split(self._batch_size)]
        results: list[Tensor] = []
        for start in range(0, len(seen) - 2, 2):
            a, b, c, d = seen[start : start + 4]
            later = F.conv2d(b + c, even, self._bias, padding=self._padding)
            mixed = F.conv2d(c - b, odd, padding=self._padding)
            earlier = F.conv2d(a - c, oldest, padding=self._padding)
            earlier.add_(later).add_(mixed)
            later.sub_(mixed).sub_(F.conv2d(b - d, newest, padding=self._padding))
            results += [earlier, later]
        self._past = seen[-2:] if len(seen) == 4 else [frame.clone() for frame in seen[-2:]]
        return torch.cat(results)


def _mixed_taps(newest: Tensor, middle: Tensor, oldest: Tensor) -> tuple[Tensor, Tensor]:
    """The two kernels of `_in_pairs` that are no taps themselves."""
    outer = oldest + newest
    return (outer + middle) / 2, (outer - middle) / 2


class _Norm:
    """Root-mean-square norm over channels, then SiLU."""

    def __init__(self, norm: WanRMS_norm) -> None:
        self._gamma = norm.gamma.flatten()

    def __call__(self, frames: Tensor) -> Tensor:
        # The floor only keeps a black pixel from becoming 0/0, as diffusers' norm does.
        pixels = frames.permute(0, 2, 3, 1)
        normed = F.rms_norm(pixels, self._gamma.shape, self._gamma, eps=1e-24)
        return F.silu(normed, inplace=True).permute(0, 3, 1, 2)


class _Residual:
    """Two normed convolutions beside a shortcut."""

    def __init__(self, block: WanResidualBlock, batch_size: int) -> None:
        self._layers = (
            _Norm(block.norm1),
            _CausalConv(block.conv1, batch_size),
            _Norm(block.norm2),
            _CausalConv(block.conv2, batch_size),
        )
        shortcut = block.conv_shortcut
        has_weights = isinstance(shortcut, nn.Conv3d)
        self._shortcut = _CausalConv(shortcut, batch_size) if has_weights else None

    def __call__(self, frames: Tensor) -> Tensor:
        result = frames
        for layer in self._layers:
            result = layer(result)
        result += frames if self._shortcut is None else self._shortcut(frames)
        return result


class _Attention:
    """Attention within each frame."""

    def __init__(self, block: WanAttentionBlock) -> None:
        self._block = block

    def __call__(self, frames: Tensor) -> Tensor:
        attended: Tensor = self._block(frames.unsqueeze(2)).squeeze(2)
        return attended.contiguous(memory_format=_LAYOUT)


class _Upsample:
    """Doubles the sides and, where the network does, the frames: all but the very first."""

    def __init__(self, block: WanResample, batch_size: int) -> None:
        self._resample = block.resample
        doubles_time = block.mode == "upsample3d"
        self._time_conv = _CausalConv(block.time_conv, batch_size) if doubles_time else None
        self._batch_size = batch_size
        self._is_first = True

    def __call__(self, frames: Tensor) -> Tensor:
        if self._time_conv is not None and not self._is_first:
            frames = self._double_frames(self._time_conv(frames))
        self._is_first = False
        result: Tensor = self._resample(frames)
        return result

    def _double_frames(self, pairs: Tensor) -> Tensor:
        """[n*b 2c h w] to [2n*b c h w]: the first half of the channels is the earlier frame."""
        split = pairs.unflatten(1, (2, -1)).unflatten(0, (-1, self._batch_size))
        frames = split.transpose(1, 2).flatten(0, 2)
        return frames.contiguous(memory_format=_LAYOUT)
