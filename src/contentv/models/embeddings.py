"""From a latent video to tokens, and where each token sits in time, width and height.

Token order is t, h, w with w running fastest. Channels of a position are split `[t | x | y]` in the
shares 1/4, 3/8, 3/8, with x (width) before y (height), as in the published weights.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from contentv.base.errors import UserError

MAX_CACHED_GRIDS = 8
_BASE = 10000.0
# Space was trained at scale 0.5 of SD3.5's 2-D table: neighbours are two positions apart.
_SPATIAL_STEP = 2.0


class Grid(NamedTuple):
    """Size of a token grid."""

    frames: int
    height: int
    width: int


class PatchEmbed3D(nn.Module):
    """Cuts each latent frame into square patches and projects each to one token.

    Sides that are no multiple of `patch_size` lose their last row or column.
    """

    def __init__(self, *, in_channels: int, embed_dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)

    def grid(self, latents: Tensor) -> Grid:
        """Token grid of latents [b c t h w]."""
        frames, height, width = latents.shape[-3:]
        return Grid(frames, height // self.patch_size, width // self.patch_size)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents [b c t h w] to tokens [b t h w d]."""
        batch, _, frames = latents.shape[:3]
        images = latents.transpose(1, 2).flatten(0, 1)
        # Channels last in, channels last out: the tokens below are then a view, not a copy.
        patches = self.proj(images.contiguous(memory_format=torch.channels_last))
        tokens: Tensor = patches.permute(0, 2, 3, 1).unflatten(0, (batch, frames))
        return tokens


class SinCosPositions:
    """Absolute positions: adds a sine-cosine vector per axis to tokens.

    The three axis tables are all there is to remember (the full table, 0.2 GB at 125 frames of
    432x768, is their broadcast). They are computed in float64 once per grid, dtype and device.
    """

    def __init__(self, dim: int) -> None:
        if dim % 16 != 0:
            raise UserError(f"dim={dim}: sine-cosine positions need a multiple of 16")
        self.widths = (dim // 4, 3 * dim // 8, 3 * dim // 8)
        self._axes: dict[tuple[Grid, torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def add(self, tokens: Tensor) -> Tensor:
        """Tokens [b t h w d] plus their positions, same shape and dtype."""
        parts = tokens.split(self.widths, dim=-1)
        axes = self.axes(Grid(*tokens.shape[1:4]), tokens.dtype, tokens.device)
        return torch.cat([part + axis for part, axis in zip(parts, axes, strict=True)], dim=-1)

    def axes(self, grid: Grid, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
        """Tables of time [t 1 1 d/4], width [1 w 3d/8] and height [h 1 3d/8]."""
        key = (grid, dtype, device)
        if key not in self._axes:
            _drop_oldest(self._axes)
            self._axes[key] = self._tables(grid, dtype, device)
        return self._axes[key]

    def _tables(self, grid: Grid, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
        # An inference tensor in the cache could not be used by a later training step.
        with torch.inference_mode(mode=False):
            time = _sincos(torch.arange(grid.frames), self.widths[0])
            width = _sincos(torch.arange(grid.width) * _SPATIAL_STEP, self.widths[1])
            height = _sincos(torch.arange(grid.height) * _SPATIAL_STEP, self.widths[2])
            tables = (time[:, None, None], width[None], height[:, None])
            return tuple(table.to(device=device, dtype=dtype) for table in tables)


class RotaryPositions:
    """Relative positions: angles by which attention turns the queries and keys of video tokens."""

    def __init__(self, head_dim: int) -> None:
        if head_dim % 16 != 0:
            raise UserError(f"head_dim={head_dim}: rotary positions need a multiple of 16")
        self.widths = (head_dim // 4, 3 * head_dim // 8, 3 * head_dim // 8)
        self._rotations: dict[tuple[Grid, torch.device], Tensor] = {}

    def rotation(self, grid: Grid, device: torch.device) -> Tensor:
        """Cosine and sine of each token's angles, [2 n head_dim/2] float32."""
        key = (grid, device)
        if key not in self._rotations:
            _drop_oldest(self._rotations)
            with torch.inference_mode(mode=False):
                angles = self._angles(grid)
                self._rotations[key] = torch.stack([angles.cos(), angles.sin()]).float().to(device)
        return self._rotations[key]

    def _angles(self, grid: Grid) -> Tensor:
        lengths = (grid.frames, grid.width, grid.height)
        time, width, height = (
            torch.outer(torch.arange(length, dtype=torch.float64), _frequencies(dim))
            for length, dim in zip(lengths, self.widths, strict=True)
        )
        axes = (time[:, None, None], width[None, None], height[None, :, None])
        return torch.cat([axis.expand(*grid, -1) for axis in axes], dim=-1).flatten(0, 2)


def rotate(heads: Tensor, rotation: Tensor) -> Tensor:
    """Turns neighbouring channel pairs of heads [b n h d] by `rotation` [2 n d/2]."""
    cos, sin = rotation[:, :, None].unbind()
    even, odd = heads.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(heads.dtype)


def _frequencies(dim: int) -> Tensor:
    """`dim`/2 frequencies falling from 1 towards 1/10000, float64."""
    return _BASE ** -(torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))


def _sincos(positions: Tensor, dim: int) -> Tensor:
    """[n] positions to [n dim] `[sin | cos]`, float64."""
    angles = torch.outer(positions.double(), _frequencies(dim))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _drop_oldest(cache: dict[Any, Any]) -> None:
    if len(cache) >= MAX_CACHED_GRIDS:
        del cache[next(iter(cache))]
