"""How a picture looks, in sums per tile, and a formula of them that stands in for a judgement."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from contentv.curation.scoring.vision import opencv
from contentv.curation.step import Box, Picture

_TILES = 16  # a side
_LARGE = 240  # pixels: from here on, half of them say the same in a quarter of the time
_DARK, _BRIGHT = 8, 247  # grey levels: darker and brighter is clipped
_SUMS = ("luma", "luma²", "rg", "rg²", "yb", "yb²", "saturation", "clipped", "edges")


@dataclass(frozen=True)
class Looks:
    """Sums over the tiles of a picture, `sums` ``[9 16 16]``, and how many pixels each has."""

    sums: NDArray[np.float32]
    pixels: NDArray[np.float32]


def looks_of(picture: Picture) -> Looks:
    """Sum up a picture ``[h w 3]`` RGB, tile by tile, at half its size where it is large."""
    if min(picture.shape[:2]) >= _LARGE:
        height, width = picture.shape[0] // 2, picture.shape[1] // 2
        cv2 = opencv()
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
    red, green, blue = np.moveaxis(picture.astype(np.float32), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    rg, yb = red - green, (red + green) / 2 - blue
    most, least = picture.max(-1), picture.min(-1)
    saturation = (most - least) / np.maximum(most, 1, dtype=np.float32)
    clipped = (luma <= _DARK) | (luma >= _BRIGHT)
    down, across = np.gradient(luma) if min(luma.shape) > 1 else (luma * 0, luma * 0)
    edges = np.hypot(down, across)
    layers = (luma, luma**2, rg, rg**2, yb, yb**2, saturation, clipped, edges)
    assert len(layers) == len(_SUMS)
    sums = np.stack([_tile_sums(layer) for layer in layers])
    return Looks(sums, _tile_sums(np.ones_like(luma)))


def proxy_score(looks: Looks, crop: Box) -> float:
    """Score what a crop keeps (the tiles whose middle lies in it): 0..10.

    10 (0.3 c + 0.25 k + 0.2 s + 0.15 e + 0.1 t), each of these 0..1:

    * c, colourfulness: Hasler and Süsstrunk's M over 82, their "highly colourful", at most 1; with
      rg = R - G and yb = (R + G) / 2 - B, M = hypot(std rg, std yb) + 0.3 hypot(mean rg, mean yb);
    * k, contrast: standard deviation of brightness over 64, at most 1;
    * s, saturation: 1 - |S - 0.4| / 0.6 of the mean S = (max - min) / max;
    * e, exposure: (1 - |mean brightness - 128| / 128) (1 - part of pixels below 9 or above 246);
    * t, thirds: part of the edges that lie near the four crossings of the thirds, over twice what
      it is where edges lie evenly, at most 1.
    """
    inside = _inside(crop)
    pixels = max(float(looks.pixels[inside].sum()), 1.0)
    mean = dict(zip(_SUMS, (looks.sums[:, inside].sum(1) / pixels).tolist(), strict=True))
    spread = {
        name: max(mean[f"{name}²"] - mean[name] ** 2, 0.0) ** 0.5 for name in ("luma", "rg", "yb")
    }
    colours = np.hypot(spread["rg"], spread["yb"]) + 0.3 * np.hypot(mean["rg"], mean["yb"])
    exposure = (1 - abs(mean["luma"] - 128) / 128) * (1 - mean["clipped"])
    parts = (
        (0.3, min(float(colours) / 82, 1.0)),
        (0.25, min(spread["luma"] / 64, 1.0)),
        (0.2, 1 - abs(mean["saturation"] - 0.4) / 0.6),
        (0.15, exposure),
        (0.1, _thirds(looks, crop, inside)),
    )
    return 10 * sum(weight * part for weight, part in parts)


def _thirds(looks: Looks, crop: Box, inside: NDArray[np.bool_]) -> float:
    """How much of the edges lies near the crossings of the crop's thirds, over an even spread."""
    y, x = np.nonzero(inside)
    across = ((x + 0.5) / _TILES - crop.x) / crop.width
    down = ((y + 0.5) / _TILES - crop.y) / crop.height
    away = np.hypot(
        np.abs(np.abs(across - 0.5) - 1 / 6),  # 0 on both lines of thirds
        np.abs(np.abs(down - 0.5) - 1 / 6),
    )
    near = np.exp(-((away / 0.12) ** 2))
    edges, pixels = looks.sums[-1][inside], looks.pixels[inside]
    even = float(np.sum(near * pixels)) / max(float(pixels.sum()), 1.0)
    total = float(edges.sum())
    part = float(np.sum(near * edges)) / total if total else 0.0
    return min(part / (2 * even), 1.0) if even else 0.0


def _inside(crop: Box) -> NDArray[np.bool_]:
    middles = (np.arange(_TILES) + 0.5) / _TILES
    across = (crop.x <= middles) & (middles <= crop.x + crop.width)
    down = (crop.y <= middles) & (middles <= crop.y + crop.height)
    found = down[:, None] & across[None, :]
    return found if found.any() else np.ones_like(found)


def _tile_sums(layer: NDArray[np.generic]) -> NDArray[np.float32]:
    """Sums ``[16 16]`` over the tiles of a layer ``[h w]``; small pictures leave some empty."""
    height, width = layer.shape
    rows = _edges(height) @ layer.astype(np.float32)
    return rows @ _edges(width).T


@cache
def _edges(length: int) -> NDArray[np.float32]:
    """Which tile each pixel of a side is in: ``[16 length]`` of 0 and 1."""
    tile = np.arange(length) * _TILES // length
    return (np.arange(_TILES)[:, None] == tile).astype(np.float32)
