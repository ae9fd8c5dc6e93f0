"""Decoding in tiles: a part of the picture at a time through all frames, blended where they meet.

The tiles and their blending are diffusers'; they come to the host one by one as they are finished,
so that a device holds the activations of one tile whatever the size of the video. Not exact: a tile
does not see what is around it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

Decode = Callable[[Tensor], Iterator[Tensor]]
"""Latents [b c t h w] to pieces of a video [b 3 n h w] in order."""


@dataclass(frozen=True)
class Tiling:
    """Height and width of tiles and the distances between their starts, in latents.

    `scale` pixels stand for one latent on each side.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    scale: int

    @classmethod
    def of(cls, vae: AutoencoderKLWan) -> Self | None:
        """What `vae.enable_tiling` has set; None when it is off."""
        if not vae.use_tiling:
            return None
        scale = vae.config.scale_factor_spatial
        size = (vae.tile_sample_min_height // scale, vae.tile_sample_min_width // scale)
        stride = (vae.tile_sample_stride_height // scale, vae.tile_sample_stride_width // scale)
        return cls(size, stride, scale)

    def splits(self, latents: Tensor) -> bool:
        """Whether latents [b c t h w] are more than one tile."""
        return latents.shape[-2] > self.size[0] or latents.shape[-1] > self.size[1]


def decode_tiles(latents: Tensor, decode: Decode, tiling: Tiling) -> Tensor:
    """The video [b 3 t h w] of latents [b c t h w], on the host."""
    height, width = tiling.size
    overlap = [
        tiling.scale * (size - stride)
        for size, stride in zip(tiling.size, tiling.stride, strict=True)
    ]
    strips: list[Tensor] = []
    above: list[Tensor] = []
    for top in range(0, latents.shape[-2], tiling.stride[0]):
        row: list[Tensor] = []
        for column, left in enumerate(range(0, latents.shape[-1], tiling.stride[1])):
            tile = _on_host(decode(latents[..., top : top + height, left : left + width]))
            if above:
                _blend(above[column], tile, overlap[0], dim=-2)
            if row:
                _blend(row[-1], tile, overlap[1], dim=-1)
            row.append(tile)
        strips.append(_joined(row, tiling))
        above = row
    sides = [tiling.scale * side for side in latents.shape[-2:]]
    return torch.cat(strips, dim=-2)[..., : sides[0], : sides[1]]


def _on_host(pieces: Iterator[Tensor]) -> Tensor:
    return torch.cat([piece.cpu() for piece in pieces], dim=2)


def _blend(before: Tensor, after: Tensor, overlap: int, *, dim: int) -> None:
    """Lets the end of one tile fade, in place, into the beginning of the next along `dim`."""
    count = min(overlap, before.shape[dim], after.shape[dim])
    weight = torch.arange(count, dtype=after.dtype) / count
    weight = weight.unsqueeze(-1) if dim == -2 else weight
    start = after.narrow(dim, 0, count)
    end = before.narrow(dim, before.shape[dim] - count, count)
    start.copy_(end * (1 - weight) + start * weight)


def _joined(row: list[Tensor], tiling: Tiling) -> Tensor:
    """Tiles of a row side by side, each as far as the next begins."""
    height, width = (tiling.scale * stride for stride in tiling.stride)
    return torch.cat([tile[..., :height, :width] for tile in row], dim=-1)
