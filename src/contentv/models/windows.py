"""Sliding tiles: a video token attends to the tiles of tokens around its own, and to all text.

Tiles [t h w] cut the token grid; those at its far ends may be smaller. A window counts tiles along
each axis and is pushed inwards at the borders, so that every token sees as many tiles. Text attends
to everything. Tokens stand in an order in which what shares a window, and each tile, is one run.
Method: STA, arXiv 2502.04507.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from contentv.base.errors import UserError
from contentv.models.embeddings import MAX_CACHED_GRIDS, Grid

Sides = tuple[int, int, int]
Kernel = Literal["boxes", "flex"]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

_BLOCK = 128  # tokens that flex attention computes or skips together


@dataclass(frozen=True)
class Stretch:
    """Along one axis, positions `first` to `last` (excluded) that share the keys of a window."""

    first: int
    last: int
    key_first: int
    key_last: int


def stretches(length: int, tile: int, window: int) -> list[Stretch]:
    """The parts of an axis of `length` tokens, in order; `window` counts tiles."""
    count = -(-length // tile)
    window = min(window, count)
    starts = [min(max(0, index - window // 2), count - window) for index in range(count)]
    return [
        Stretch(
            first=starts.index(start) * tile,
            last=min((starts.index(start) + starts.count(start)) * tile, length),
            key_first=start * tile,
            key_last=min((start + window) * tile, length),
        )
        for start in dict.fromkeys(starts)
    ]


def attended_share(grid: Grid, text_tokens: int, *, window: Sides, tile: Sides) -> float:
    """Part of dense attention's operations that windows leave, 0..1."""
    video = prod(
        sum(
            (part.last - part.first) * (part.key_last - part.key_first) for part in stretches(*axis)
        )
        for axis in zip(grid, tile, window, strict=True)
    )
    tokens, all_tokens = prod(grid), prod(grid) + text_tokens
    return (video + tokens * text_tokens + text_tokens * all_tokens) / all_tokens**2


class TileLayout:
    """Order and windows of the tokens of one grid, with `text_tokens` after them.

    `order[i]` is the raster place of the i-th token, `places` undoes it.
    """

    def __init__(
        self, grid: Grid, text_tokens: int, *, window: Sides, tile: Sides, device: torch.device
    ) -> None:
        self._axes = list(zip(grid, tile, window, strict=True))
        self._num_video, self._num_text = prod(grid), text_tokens
        boxes = list(product(*(stretches(*axis) for axis in self._axes)))
        self._tile_of = _per_token(grid, [torch.arange(n) // size for n, size, _ in self._axes])
        box_of = _per_token(grid, [_stretch_of(*axis) for axis in self._axes])
        # Stable: within a tile the raster order stays.
        by_tile = self._tile_of.argsort(stable=True)
        order = by_tile[box_of[by_tile].argsort(stable=True)]
        places = order.argsort()
        self.order, self.places = order.to(device), places.to(device)
        self.boxes = list(self._boxes(grid, boxes, places, device))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, dense: Attend) -> Tensor:
        """Attention within windows of ordered video and text tokens, [b n h d] each.

        `dense` computes each box of queries with the keys of its window. Without gradients the
        result takes the place of `query`: no more memory than dense attention.
        """
        parts = []
        for first, last, keys in self._all_boxes():
            seen = (t if keys is None else t.index_select(1, keys) for t in (key, value))
            part = dense(query[:, first:last], *seen)
            if torch.is_grad_enabled():
                parts.append(part)
            else:
                query[:, first:last] = part
        return torch.cat(parts, dim=1) if parts else query

    def flex_attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The same by flex attention, compiled for the device."""
        heads = [tensor.transpose(1, 2) for tensor in (query, key, value)]
        mixed: Tensor = _compiled_flex()(*heads, block_mask=self.block_mask)
        return mixed.transpose(1, 2)

    @cached_property
    def block_mask(self) -> BlockMask:
        """What flex attention computes, skips, and looks up token by token at borders."""
        device = self.order.device
        tile_of, allowed = self._tile_of_ordered().to(device), self._allowed().to(device)

        def mask(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return allowed[tile_of[query], tile_of[key]]

        some, full = (blocks.to(device) for blocks in self._blocks())
        return BlockMask.from_kv_blocks(
            *_listed(some & ~full),
            *_listed(full),
            BLOCK_SIZE=_BLOCK,
            mask_mod=mask,
            seq_lengths=(len(tile_of), len(tile_of)),
        )

    def _boxes(
        self,
        grid: Grid,
        boxes: list[tuple[Stretch, ...]],
        places: Tensor,
        device: torch.device,
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Each box's run of queries, and where its keys are."""
        raster = places.unflatten(0, grid)
        text = torch.arange(self._num_text) + self._num_video
        first = 0
        for t, h, w in boxes:
            last = first + prod(part.last - part.first for part in (t, h, w))
            seen = raster[
                t.key_first : t.key_last, h.key_first : h.key_last, w.key_first : w.key_last
            ]
            keys = torch.cat([seen.flatten().sort().values, text])
            yield first, last, keys.to(device)
            first = last

    def _all_boxes(self) -> Iterator[tuple[int, int, Tensor | None]]:
        yield from self.boxes
        if self._num_text:
            yield self._num_video, self._num_video + self._num_text, None

    def _tile_of_ordered(self) -> Tensor:
        """Tile of each joint token; text is one more tile."""
        video = self._tile_of[self.order.cpu()]
        return torch.cat([video, video.new_full((self._num_text,), int(video.max()) + 1)])

    def _allowed(self) -> Tensor:
        """Which tile sees which, [tiles + 1 tiles + 1]."""
        seen = torch.ones(1, 1)
        for length, tile, window in self._axes:
            parts = stretches(length, tile, window)
            which = _stretch_of(length, tile, window)[::tile]
            keys = torch.arange(len(which)) * tile
            first = torch.tensor([part.key_first for part in parts])[which, None]
            last = torch.tensor([part.key_last for part in parts])[which, None]
            seen = torch.kron(seen, ((keys >= first) & (keys < last)).float())
        return F.pad(seen, (0, 1, 0, 1), value=1.0) > 0

    def _blocks(self) -> tuple[Tensor, Tensor]:
        """Which pairs of flex attention's blocks have something allowed, and which everything."""
        tile_of, allowed = self._tile_of_ordered(), self._allowed()
        block_of = torch.arange(len(tile_of)) // _BLOCK
        holds = torch.zeros(int(block_of[-1]) + 1, len(allowed))
        holds[block_of, tile_of] = 1.0
        some = holds @ allowed.float() @ holds.T > 0
        full = holds @ (~allowed).float() @ holds.T == 0
        if len(tile_of) % _BLOCK:
            full[-1] = full[:, -1] = False  # the last block has room for tokens that are not there
        return some, full


class WindowAttention:
    """Settings of window attention and the layout of the forward under way."""

    def __init__(self, *, window: Sides, tile: Sides, kernel: Kernel, dense_steps: int) -> None:
        given: dict[str, tuple[int, ...]] = {"window": window, "tile": tile}
        for name, sides in given.items():
            if len(sides) != 3 or min(sides) < 1:
                raise UserError(f"{name}={sides}: must be three positive numbers, (t, h, w)")
        if kernel not in ("boxes", "flex"):
            raise UserError(f"kernel={kernel!r}: must be 'boxes' or 'flex'")
        if dense_steps < 0:
            raise UserError(f"dense_steps={dense_steps}: must be 0 or more")
        self.window, self.tile, self.kernel = window, tile, kernel
        self.dense_steps, self.step = dense_steps, 0
        self._layouts: dict[tuple[Grid, int, torch.device], TileLayout] = {}

    def start(self, grid: Grid, text_tokens: int, device: torch.device) -> TileLayout:
        """Begin a forward over this grid; gives its layout, kept for the next one."""
        key = (grid, text_tokens, device)
        if key not in self._layouts:
            if len(self._layouts) >= MAX_CACHED_GRIDS:
                del self._layouts[next(iter(self._layouts))]
            with torch.inference_mode(mode=False):
                self._layouts[key] = TileLayout(
                    grid, text_tokens, window=self.window, tile=self.tile, device=device
                )
        self._layout = self._layouts[key]
        return self._layout

    def restore(self, tokens: Tensor) -> Tensor:
        """Video tokens [b n d] of the forward under way, back in raster order."""
        return tokens.index_select(1, self._layout.places)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, dense: Attend) -> Tensor:
        """Attention of the layout under way, or `dense` where steps are to be dense."""
        if self.step < self.dense_steps:
            return dense(query, key, value)
        if self.kernel == "flex":
            return self._layout.flex_attend(query, key, value)
        return self._layout.attend(query, key, value, dense)


def _per_token(grid: Grid, axes: list[Tensor]) -> Tensor:
    """One number per token in raster order from numbers per axis, as if they were digits."""
    sizes = [int(axis[-1]) + 1 for axis in axes]
    time, height, width = axes
    digits = time[:, None, None] * sizes[1] + height[:, None]
    return (digits * sizes[2] + width).expand(*grid).flatten()


def _stretch_of(length: int, tile: int, window: int) -> Tensor:
    """Number of the stretch in which each position of an axis is."""
    parts = stretches(length, tile, window)
    sizes = torch.tensor([part.last - part.first for part in parts])
    return torch.arange(len(parts)).repeat_interleave(sizes)


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Flex attention's form of a table of blocks: how many each row has, and which, first."""
    counts = blocks.sum(dim=1, dtype=torch.int32)
    which = blocks.int().argsort(dim=1, descending=True, stable=True).int()
    return counts[None, None], which[None, None]


@cache
def _compiled_flex() -> Any:  # noqa: ANN401 - torch.compile's own
    return torch.compile(flex_attention, dynamic=False)
