"""Pixels → facts, without learning: what a clip of the toy world shows.

Per pixel the nearest colour of the palette; per colour its connected core; per object a fit of every
shape, style and angle to the pixels of that colour; over time straight lines through what was found.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from contentv.toyworld.render import (
    HOLE,
    OUTLINE,
    RIPPLE_AMPLITUDE,
    RIPPLE_PERIOD,
    border_tone,
    coverage,
    shape_distance,
)
from contentv.toyworld.scene import BACKGROUNDS, COLOURS, DIRECTIONS, GROWTH, PAN_TRAVEL, RADII, SHAPES, STYLES, TRAVEL

SIDE = 64
SCORED_FRAMES = 9
NOTHING = "nothing"
_MIN_AREA = 40
_MIN_CORE = 12
_BORDER = len(COLOURS)
_BACKGROUND = _BORDER + 1
_COLOURS = tuple(COLOURS)

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Track:
    """One object over time: its facts, and per scored frame centre and radius as fractions of the side."""

    shape: str
    colour: str
    style: str
    size: str
    motion: str
    speed: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    radius: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a clip shows: objects by visible area, at most two; the background; the camera's turn."""

    bodies: tuple[Track, ...]
    background: str
    camera: str

    def facts(self) -> dict[str, str]:
        """Facts under the names and values of `Scene.facts`; of two objects the left or upper one is first."""
        if not self.bodies:
            return {"shape": NOTHING, "colour": NOTHING, "background": self.background, "camera": self.camera}
        first, *others = sorted(self.bodies, key=lambda b: b.x[0] + b.y[0])
        facts = {
            "shape": first.shape, "colour": first.colour, "style": first.style, "motion": first.motion,
            "background": self.background, "camera": self.camera,
        }  # fmt: skip
        if others:
            second = others[0]
            relation = relate(first, second)
            return {**facts, "shape2": second.shape, "colour2": second.colour, "relation": relation}
        if first.motion in DIRECTIONS:
            facts["speed"] = first.speed
        if first.motion not in ("grows", "shrinks") and self.camera == "still":
            facts["size"] = first.size
        return facts


def read(frames: NDArray[np.uint8]) -> Reading:
    """Read uint8 [t h w 3], square, at 64 pixels or a whole multiple; one frame is a still clip."""
    frames = _scored(frames)
    background = _nearest_background(frames)
    labels = _label(frames, background)
    colours = _present_colours(labels)
    pan = _pan(frames, labels, background)
    camera = "still" if abs(pan) < PAN_TRAVEL / 2 else ("left" if pan > 0 else "right")
    bodies = tuple(_track(labels, colour, pan if camera != "still" else 0.0) for colour in colours)
    return Reading(tuple(b for b in bodies if b is not None), background, camera)


def check(prompted: dict[str, str], reading: Reading) -> dict[str, bool]:
    """Which prompted facts are true of a reading; with two objects, under the better of both orders."""
    if "relation" not in prompted and "shape2" not in prompted:
        return _check_single(prompted, reading)
    if len(reading.bodies) != 2:
        return dict.fromkeys(prompted, False)
    a, b = reading.bodies
    checked = [_check_pair(prompted, reading, first, second) for first, second in ((a, b), (b, a))]
    return max(checked, key=lambda facts: sum(facts.values()))


def relate(first: Track, second: Track) -> str:
    """Where the first object is, seen from the second."""
    dx, dy = first.x[0] - second.x[0], first.y[0] - second.y[0]
    if abs(dx) >= abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def _check_single(prompted: dict[str, str], reading: Reading) -> dict[str, bool]:
    seen = reading.facts() if len(reading.bodies) == 1 else {"background": reading.background, "camera": reading.camera}
    return {name: seen.get(name) == value for name, value in prompted.items()}


def _check_pair(prompted: dict[str, str], reading: Reading, first: Track, second: Track) -> dict[str, bool]:
    seen = {
        "shape": first.shape, "colour": first.colour, "shape2": second.shape, "colour2": second.colour,
        "relation": relate(first, second), "background": reading.background, "camera": reading.camera,
        "style": first.style if first.style == second.style else "mixed",
        "motion": "still" if first.motion == second.motion == "still" else "moving",
    }  # fmt: skip
    return {name: seen.get(name) == value for name, value in prompted.items()}


# ---- pixels to labels


def _scored(frames: NDArray[np.uint8]) -> Floats:
    t, height, width, _ = frames.shape
    if height != width or height % SIDE:
        raise ValueError(f"{height}x{width} pixels: the oracle reads squares of {SIDE} pixels or a multiple")
    picked = frames[np.unique(np.linspace(0, t - 1, SCORED_FRAMES).round().astype(int))].astype(np.float32)
    factor = height // SIDE
    return picked.reshape(len(picked), SIDE, factor, SIDE, factor, 3).mean((2, 4), dtype=np.float32)


def _nearest_background(frames: Floats) -> str:
    tones = np.array(list(BACKGROUNDS.values()), np.float32)
    seen = np.median(frames.reshape(-1, 3), axis=0)
    return list(BACKGROUNDS)[int(np.argmin(((tones - seen) ** 2).sum(1)))]


def _label(frames: Floats, background: str) -> Labels:
    """Nearest of the object colours, the border's tone, and the background with its ripple."""
    smooth = _smooth(frames)
    solid = np.array([*COLOURS.values(), border_tone(background)], np.float32)
    distance = ((smooth[..., None, :] - solid) ** 2).sum(-1)
    offset = smooth - np.array(BACKGROUNDS[background], np.float32)
    ripple = np.clip(offset.mean(-1, keepdims=True), -RIPPLE_AMPLITUDE, RIPPLE_AMPLITUDE)
    plain = ((offset - ripple) ** 2).sum(-1)
    return np.argmin(np.concatenate([distance, plain[..., None]], -1), -1).astype(np.uint8)


def _smooth(frames: Floats) -> Floats:
    """A light blur, [1 4 1]/6 each way: against noise, keeping thin lines."""
    for axis in (1, 2):
        before, after = np.roll(frames, 1, axis), np.roll(frames, -1, axis)
        edge = [slice(None)] * 4
        edge[axis] = slice(0, 1)
        before[tuple(edge)] = frames[tuple(edge)]
        edge[axis] = slice(-1, None)
        after[tuple(edge)] = frames[tuple(edge)]
        frames = (before + 4 * frames + after) / 6
    return frames


def _present_colours(labels: Labels) -> list[int]:
    """Colours with a solid core in the typical frame, largest first, at most two."""
    core = np.ones_like(labels[:, 1:-1, 1:-1], bool)
    middle = labels[:, 1:-1, 1:-1]
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        core &= labels[:, dy : dy + SIDE - 2, dx : dx + SIDE - 2] == middle
    areas = {c: float(np.median((core & (middle == c)).sum((1, 2)))) for c in range(len(_COLOURS))}
    found = sorted((c for c in areas if areas[c] >= _MIN_CORE), key=lambda c: -areas[c])
    if len(found) > 1 and areas[found[1]] < 0.25 * areas[found[0]]:
        return found[:1]
    return found[:2]


# ---- the camera


def _pan(frames: Floats, labels: Labels, background: str) -> float:
    """How far the ripple slid to the right over the clip, as a fraction of the side."""
    plain = labels == _BACKGROUND
    counts = np.maximum(plain.sum(1), 1)
    light = (frames.mean(-1) * plain).sum(1) / counts - np.mean(BACKGROUNDS[background])
    light[plain.sum(1) < SIDE // 4] = 0
    wave = np.exp(-2j * np.pi * (np.arange(SIDE) + 0.5) / SIDE / RIPPLE_PERIOD)
    phase = np.unwrap(np.angle((light * wave).sum(1)))
    return float(-(phase[-1] - phase[0]) / (2 * np.pi) * RIPPLE_PERIOD)


# ---- one object


def _track(labels: Labels, colour: int, pan: float) -> Track | None:
    visible = [_blob(frame, colour) for frame in labels]
    fits = [_fit(frame, mask) for frame, mask in zip(labels, visible, strict=True) if mask.sum() >= _MIN_AREA]
    if len(fits) < (len(labels) + 1) // 2:
        return None
    # Each frame votes for shape and style together; the angle is then read under the winner.
    scores = np.stack([fit.scores for fit in fits])
    votes = scores.max(axis=3).sum(axis=0)
    shape, style = np.unravel_index(int(np.argmax(votes)), votes.shape)
    angles = scores[:, shape, style].argmax(-1)
    x, y = (np.array([getattr(f, axis) for f in fits]) for axis in ("x", "y"))
    radius = np.array([f.radii[shape, style] for f in fits], np.float64)
    radius = np.where(np.isnan(radius), np.nanmedian(radius), radius)
    times = np.linspace(0, 1, len(fits))
    motion, speed = _motion(times, x - pan * times, y, radius, SHAPES[shape], angles)
    size = "small" if np.median(radius) < (RADII["small"] * RADII["large"]) ** 0.5 else "large"
    return Track(
        SHAPES[shape], _COLOURS[colour], STYLES[style], size, motion, speed,
        tuple(map(float, x)), tuple(map(float, y)), tuple(map(float, radius)),
    )  # fmt: skip


def _motion(
    times: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64],
    radius: NDArray[np.float64], shape: str, angles: NDArray[np.intp],
) -> tuple[str, str]:  # fmt: skip
    if len(times) < 3:
        return "still", "none"
    dx, dy = _travel(times, x), _travel(times, y)
    growth = _travel(times, np.log(radius))
    far = max(abs(dx), abs(dy))
    if far >= TRAVEL["slow"] / 2:
        motion = min(DIRECTIONS, key=lambda d: -(DIRECTIONS[d][0] * dx + DIRECTIONS[d][1] * dy))
        return motion, "slow" if far < (TRAVEL["slow"] + TRAVEL["fast"]) / 2 else "fast"
    if abs(growth) >= np.log(GROWTH) / 2:
        return ("grows" if growth > 0 else "shrinks"), "none"
    turned = shape != "circle" and (angles != 0).mean() >= 0.4
    return ("spins" if turned else "still"), "none"


def _travel(times: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Change from first to last instant along the least-squares line."""
    return float(np.polyfit(times, values, 1)[0])


@dataclass(frozen=True, slots=True)
class _Fit:
    x: float
    y: float
    scores: Floats
    radii: Floats


def _blob(frame: Labels, colour: int) -> NDArray[np.bool_]:
    """The colour's pixels in and beside a solid core: one-pixel seams where two other colours mix are not it."""
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


def _fit(frame: Labels, mask: NDArray[np.bool_]) -> _Fit:
    """Overlap of the object's pixels with every shape x style x angle, at the size its area implies."""
    solid = mask | (_enclosed(mask) & (frame != _BORDER))
    ys, xs = np.nonzero(solid)
    y, x, area = ys.mean() + 0.5, xs.mean() + 0.5, float(solid.sum())
    half = int(1.2 * area**0.5) + 3
    window = np.s_[max(0, int(y) - half) : int(y) + half, max(0, int(x) - half) : int(x) + half]
    grid = np.arange(SIDE, dtype=np.float32) + np.float32(0.5)
    u, v = grid[None, window[1]] - np.float32(x), grid[window[0], None] - np.float32(y)
    seen = mask[window].astype(np.float32)
    styles = ("outlined",) if _is_bordered(frame, x, y, area) else ("flat", "hollow")
    scores = np.zeros((len(SHAPES), len(STYLES), 4), np.float32)
    radii = np.full((len(SHAPES), len(STYLES)), np.nan, np.float32)
    for i, shape in enumerate(SHAPES):
        radius = np.float32((area / _unit_area(shape, styles[0])) ** 0.5)
        for k, angle in enumerate(_angles(shape)):
            distance = _turned_distance(shape, u, v, radius, angle)
            for style in styles:
                scores[i, STYLES.index(style), k] = _overlap(seen, _coloured_part(style, distance, u, v, radius))
        radii[i, [STYLES.index(style) for style in styles]] = radius / SIDE
    return _Fit(x / SIDE, y / SIDE, scores, radii)


def _angles(shape: str) -> tuple[float, ...]:
    """Angles that look different: none for a circle, a quarter turn's or a third's worth otherwise."""
    if shape == "circle":
        return (0.0,)
    turn = 2 * np.pi / (3 if shape == "triangle" else 4)
    return tuple(turn * k / 4 for k in range(4))


def _turned_distance(shape: str, u: Floats, v: Floats, radius: np.float32, angle: float) -> Floats:
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return shape_distance(shape, u * cos + v * sin, v * cos - u * sin, radius)


def _coloured_part(style: str, distance: Floats, u: Floats, v: Floats, radius: np.float32) -> Floats:
    if style == "outlined":
        distance = distance + radius * np.float32(OUTLINE)
    elif style == "hollow":
        distance = np.maximum(distance, radius * np.float32(HOLE) - np.sqrt(u * u + v * v))
    return coverage(distance)


def _overlap(seen: Floats, template: Floats) -> float:
    return float(np.minimum(seen, template).sum() / np.maximum(seen, template).sum())


@cache
def _unit_area(shape: str, style: str) -> float:
    """Area of the coloured part, a hole filled in, at radius 1."""
    grid = np.linspace(-1.5, 1.5, 601, dtype=np.float32)
    distance = shape_distance(shape, grid[None, :], grid[:, None], np.float32(1))
    inside = distance < (-OUTLINE if style == "outlined" else 0)
    return float(inside.mean() * 9)


def _enclosed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels with the object's colour on all four sides: the hole of a hollow object."""
    left = np.maximum.accumulate(mask, 1)
    right = np.maximum.accumulate(mask[:, ::-1], 1)[:, ::-1]
    above = np.maximum.accumulate(mask, 0)
    below = np.maximum.accumulate(mask[::-1], 0)[::-1]
    return left & right & above & below


def _is_bordered(frame: Labels, x: float, y: float, area: float) -> bool:
    """Whether the pixels around the object have the border's tone: an outline's area is near the inside's."""
    reach = 1.9 * (area / np.pi) ** 0.5 + 3
    yy, xx = np.ogrid[:SIDE, :SIDE]
    near = np.maximum(abs(yy + 0.5 - y), abs(xx + 0.5 - x)) <= reach
    return bool((near & (frame == _BORDER)).sum() > 0.25 * area)
