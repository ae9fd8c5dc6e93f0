"""What stays in place while shots change: logos, watermarks, and other things laid over a video.

An edge of a scene points anywhere in the next shot; an edge of a logo points the same way in all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contentv.curation.scoring.vision import opencv
from contentv.curation.settings import OverlaySettings
from contentv.curation.step import Box, Picture

_CELLS = 4  # a side: shots are compared cell by cell
_ROWS = 90  # of points that are compared
_FEWEST = 30  # points with an edge that a cell needs to be compared
_ROUNDING = 1e-6  # 0.8 of 15 may be a little more than 12


@dataclass(frozen=True)
class Edges:
    """Directions of a picture's edges: ``[h w]`` unit vectors, 0 where there is none.

    `telling` is 0 where there is no edge and the picture so bright that a logo would not show.
    """

    across: NDArray[np.float32]
    down: NDArray[np.float32]
    telling: NDArray[np.bool_]

    def thinned(self) -> NDArray[np.float32]:
        """Some of the directions, enough to tell scenes apart: ``[2 h w]``."""
        step = max(1, len(self.across) // _ROWS)
        return np.stack([self.across[::step, ::step], self.down[::step, ::step]])


def edges_of(luma: Picture, config: OverlaySettings) -> Edges:
    """Find the edges of a picture's brightness, ``[h w]``: Sobel's gradient, not scaled down."""
    cv2 = opencv()
    across, down = cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1)
    squares = across**2 + down**2  # whole numbers, so that the comparison is exact
    strong = squares > config.gradient**2
    scale = np.where(strong, 1 / np.sqrt(np.maximum(squares, 1)), 0).astype(np.float32)
    telling = strong | (cv2.blur(luma, (3, 3)) <= config.bright)
    return Edges(across * scale, down * scale, telling)


def distinct(shots: Iterable[Picture], config: OverlaySettings) -> list[Edges]:
    """Give the edges of those shots that show another scene than all kept before them.

    Two shots of one camera agree in many cells of the picture, two with one logo in few.
    """
    kept: list[Edges] = []
    scenes: list[NDArray[np.float32]] = []
    for shot in shots:
        edges = edges_of(shot, config)
        scene = edges.thinned()
        if not any(_alike(scene, other, config) for other in scenes):
            kept.append(edges)
            scenes.append(scene)
    return kept


def persistent(shots: Sequence[Edges], config: OverlaySettings) -> list[Box]:
    """Find what stays in place in shots of distinct scenes, as boxes from the top down.

    A point persists if in `agreement` of the shots that could tell its edge points along the mean
    direction; points that lie close together are one overlay.
    """
    total = np.zeros((2, *shots[0].telling.shape), np.float32)
    for edges in shots:
        total += (edges.across, edges.down)
    across, down = total / np.maximum(np.hypot(*total), 1e-6)
    agreeing, telling = np.zeros((2, *across.shape), np.int32)
    for edges in shots:
        agreeing += edges.across * across + edges.down * down > config.direction
        telling += edges.telling
    enough = config.agreement * np.maximum(telling, config.distinct_shots)
    return _boxes(agreeing + _ROUNDING >= enough, config)


def _boxes(points: NDArray[np.bool_], config: OverlaySettings) -> list[Box]:
    cv2 = opencv()
    near = np.ones((config.join, config.join), np.uint8)
    joined = cv2.dilate(points.astype(np.uint8), near)
    count, labels, found, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    sizes = np.bincount(labels[points], minlength=count)
    height, width = points.shape
    return [
        Box(x / width, y / height, w / width, h / height)
        for (x, y, w, h, _), size in zip(found.tolist(), sizes, strict=True)
        if size >= config.points
    ]


def _alike(one: NDArray[np.float32], other: NDArray[np.float32], config: OverlaySettings) -> bool:
    same = _cells((one * other).sum(0) > config.direction)
    either = _cells((np.abs(one) + np.abs(other)).sum(0) > 0)
    return int((same > config.alike * np.maximum(either, _FEWEST)).sum()) >= config.alike_cells


def _cells(points: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count points in cells, ``[4 4]``."""
    rows, columns = (np.arange(_CELLS) * side // _CELLS for side in points.shape)
    strips = np.add.reduceat(points, rows, axis=0, dtype=np.int64)
    return np.add.reduceat(strips, columns, axis=1)
