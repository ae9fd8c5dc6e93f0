"""Which shape, style and angle explains the pixels of one colour best."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from contentv.toyworld.render import HOLE, OUTLINE, coverage, shape_distance
from contentv.toyworld.scene import COLOURS, SHAPES, STYLES

SIDE = 64
BORDER = len(COLOURS)
BACKGROUND = BORDER + 1
MIN_AREA = 40

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Fit:
    """An object in one frame: centre, overlap [shape, style, angle], radius [shape, style].

    Lengths are fractions of the side; the radius of a style that was not tried is NaN.
    """

    x: float
    y: float
    scores: Floats
    radii: Floats


def blob(frame: Labels, colour: int) -> Mask:
    """The colour's pixels in and beside a solid core.

    One-pixel seams of it, where two other colours mix, are not the object.
    """
    mask = frame == colour
    core = mask.copy()
    core[1:] &= mask[:-1]
    core[:-1] &= mask[1:]
    core[:, 1:] &= mask[:, :-1]
    core[:, :-1] &= mask[:, 1:]
    near = core.copy()
    near[1:] |= core[:-1]
    near[:-1] |= core[1:]
    near[:, 1:] |= near[:, :-1].copy()
    near[:, :-1] |= near[:, 1:].copy()
    return mask & near


def fit(frame: Labels, mask: Mask) -> Fit:
    """Overlap of an object's pixels with every shape, style and angle of the same area."""
    solid = mask | (_enclosed(mask) & (frame != BORDER))
    ys, xs = np.nonzero(solid)
    y, x, area = float(ys.mean()) + 0.5, float(xs.mean()) + 0.5, float(solid.sum())
    half = int(1.2 * area**0.5) + 3
    rows = slice(max(0, int(y) - half), int(y) + half)
    columns = slice(max(0, int(x) - half), int(x) + half)
    grid = np.arange(SIDE, dtype=np.float32) + np.float32(0.5)
    u, v = grid[None, columns] - np.float32(x), grid[rows, None] - np.float32(y)
    seen = mask[rows, columns].astype(np.float32)
    styles = ("outlined",) if _is_bordered(frame, x, y, area) else ("flat", "hollow")
    scores = np.zeros((len(SHAPES), len(STYLES), 4), np.float32)
    radii = np.full((len(SHAPES), len(STYLES)), np.nan, np.float32)
    for i, shape in enumerate(SHAPES):
        radius = np.asarray((area / _unit_area(shape, styles[0])) ** 0.5, np.float32)
        for k, angle in enumerate(_angles(shape)):
            distance = _turned_distance(shape, u, v, radius, angle)
            for style in styles:
                part = _coloured_part(style, distance, u, v, radius)
                scores[i, STYLES.index(style), k] = _overlap(seen, part)
        radii[i, [STYLES.index(style) for style in styles]] = radius / SIDE
    return Fit(x / SIDE, y / SIDE, scores, radii)


def _angles(shape: str) -> tuple[float, ...]:
    """Angles that look different: none for a circle, else steps of a quarter of its symmetry."""
    if shape == "circle":
        return (0.0,)
    turn = 2 * np.pi / (3 if shape == "triangle" else 4)
    return tuple(turn * k / 4 for k in range(4))


def _turned_distance(shape: str, u: Floats, v: Floats, radius: Floats, angle: float) -> Floats:
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return shape_distance(shape, u * cos + v * sin, v * cos - u * sin, radius)


def _coloured_part(style: str, distance: Floats, u: Floats, v: Floats, radius: Floats) -> Floats:
    if style == "outlined":
        distance = distance + radius * np.float32(OUTLINE)
    elif style == "hollow":
        distance = np.maximum(distance, radius * np.float32(HOLE) - np.sqrt(u * u + v * v))
    return coverage(distance)


def _overlap(seen: Floats, part: Floats) -> float:
    return float(np.minimum(seen, part).sum() / np.maximum(seen, part).sum())


@cache
def _unit_area(shape: str, style: str) -> float:
    """Area of the coloured part, a hole filled in, at radius 1."""
    grid = np.linspace(-1.5, 1.5, 601, dtype=np.float32)
    distance = shape_distance(shape, grid[None, :], grid[:, None], np.ones(1, np.float32))
    inside = distance < (-OUTLINE if style == "outlined" else 0)
    return float(inside.mean() * 9)


def _enclosed(mask: Mask) -> Mask:
    """Pixels with the object's colour on all four sides: the hole of a hollow object."""
    left = np.maximum.accumulate(mask, 1)
    right = np.maximum.accumulate(mask[:, ::-1], 1)[:, ::-1]
    above = np.maximum.accumulate(mask, 0)
    below = np.maximum.accumulate(mask[::-1], 0)[::-1]
    return left & right & above & below


def _is_bordered(frame: Labels, x: float, y: float, area: float) -> bool:
    """Whether the surroundings have the border's tone; an outline's area is near its inside's."""
    reach = 1.9 * (area / np.pi) ** 0.5 + 3
    yy, xx = np.ogrid[:SIDE, :SIDE]
    near = np.maximum(abs(yy + 0.5 - y), abs(xx + 0.5 - x)) <= reach
    return bool((near & (frame == BORDER)).sum() > 0.25 * area)
