"""Pixels to facts, without learning: what a clip of the toy world shows.

Per pixel the nearest colour of the palette; per colour its solid core; per object a fit of every
shape, style and angle; over time straight lines through what was found.
"""

import numpy as np
from numpy.typing import NDArray

from contentv.toyworld.fitting import BACKGROUND, MIN_AREA, SIDE, Fit, Floats, Labels, blob, fit
from contentv.toyworld.reading import Reading, Track
from contentv.toyworld.render import RIPPLE_AMPLITUDE, RIPPLE_PERIOD, border_tone
from contentv.toyworld.scene import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    GROWTH,
    PAN_TRAVEL,
    RADII,
    SHAPES,
    STYLES,
    TRAVEL,
    Background,
)

_SCORED_FRAMES = 9
_MIN_CORE = 12
_COLOURS = tuple(COLOURS)

Values = NDArray[np.float64]


def read(frames: NDArray[np.uint8]) -> Reading:
    """Read uint8 [t h w 3], square, of 64 pixels or a whole multiple; one frame is a still clip.

    ValueError for any other size.
    """
    scored = _scored(frames)
    background = _nearest_background(scored)
    labels = _label(scored, background)
    pan = _pan(scored, labels, background)
    if abs(pan) < PAN_TRAVEL / 2:
        pan, camera = 0.0, "still"
    else:
        camera = "left" if pan > 0 else "right"
    tracks = (_track(labels, colour, pan) for colour in _present_colours(labels))
    return Reading(tuple(track for track in tracks if track is not None), background, camera)


# ---- pixels to labels


def _scored(frames: NDArray[np.uint8]) -> Floats:
    t, height, width, _ = frames.shape
    if height != width or height % SIDE:
        rule = f"the oracle reads squares of {SIDE} pixels or a multiple"
        raise ValueError(f"{height}x{width} pixels: {rule}")
    times = np.unique(np.linspace(0, t - 1, _SCORED_FRAMES).round().astype(int))
    factor = height // SIDE
    blocks = frames[times].astype(np.float32).reshape(-1, SIDE, factor, SIDE, factor, 3)
    mean: Floats = blocks.mean((2, 4), dtype=np.float32)
    return mean


def _nearest_background(frames: Floats) -> Background:
    tones = np.array(list(BACKGROUNDS.values()), np.float32)
    seen = np.median(frames.reshape(-1, 3), axis=0)
    return list(BACKGROUNDS)[int(np.argmin(((tones - seen) ** 2).sum(1)))]


def _label(frames: Floats, background: Background) -> Labels:
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
        width = [(0, 0)] * 4
        width[axis] = (1, 1)
        padded = np.moveaxis(np.pad(frames, width, mode="edge"), axis, 0)
        blurred: Floats = (padded[:-2] + 4 * padded[1:-1] + padded[2:]) * np.float32(1 / 6)
        frames = np.moveaxis(blurred, 0, axis)
    return frames


def _present_colours(labels: Labels) -> list[int]:
    """Colours with a solid core in the typical frame, largest first, at most two."""
    middle = labels[:, 1:-1, 1:-1]
    core = np.ones_like(middle, bool)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        core &= labels[:, dy : dy + SIDE - 2, dx : dx + SIDE - 2] == middle
    areas = [
        float(np.median((core & (middle == colour)).sum((1, 2)))) for colour in range(len(_COLOURS))
    ]
    found = sorted(
        (c for c, area in enumerate(areas) if area >= _MIN_CORE), key=lambda c: -areas[c]
    )
    if len(found) > 1 and areas[found[1]] < 0.25 * areas[found[0]]:
        return found[:1]
    return found[:2]


# ---- the camera


def _pan(frames: Floats, labels: Labels, background: Background) -> float:
    """How far the ripple slid to the right over the clip, as a fraction of the side."""
    plain = labels == BACKGROUND
    counts = plain.sum(1)
    tone = float(np.mean(BACKGROUNDS[background]))
    light = (frames.mean(-1) * plain).sum(1) / np.maximum(counts, 1) - tone
    light[counts < SIDE // 4] = 0
    wave = np.exp(-2j * np.pi * (np.arange(SIDE) + 0.5) / SIDE / RIPPLE_PERIOD)
    phase = np.unwrap(np.angle((light * wave).sum(1)))
    return float(-(phase[-1] - phase[0]) / (2 * np.pi) * RIPPLE_PERIOD)


# ---- one object over time


def _track(labels: Labels, colour: int, pan: float) -> Track | None:
    visible = [(frame, blob(frame, colour)) for frame in labels]
    fits = [fit(frame, mask) for frame, mask in visible if mask.sum() >= MIN_AREA]
    if len(fits) < (len(labels) + 1) // 2:
        return None
    # All frames vote for shape and style together; angles are then read under the winner.
    scores = np.stack([f.scores for f in fits])
    votes = scores.max(axis=3).sum(axis=0)
    shape, style = (int(index) for index in np.unravel_index(int(np.argmax(votes)), votes.shape))
    x, y = np.array([f.x for f in fits]), np.array([f.y for f in fits])
    radius = _radii(fits, shape, style)
    times = np.linspace(0, 1, len(fits))
    turned = SHAPES[shape] != "circle" and bool(
        (scores[:, shape, style].argmax(-1) != 0).mean() >= 0.4
    )
    motion, speed = _motion(times, x - pan * times, y, radius)
    if motion == "still" and turned and len(fits) > 2:
        motion = "spins"
    limit = (RADII["small"] * RADII["large"]) ** 0.5
    size = "small" if np.median(radius) < limit else "large"
    path = (tuple(values.tolist()) for values in (x, y, radius))
    return Track(SHAPES[shape], _COLOURS[colour], STYLES[style], size, motion, speed, *path)


def _radii(fits: list[Fit], shape: int, style: int) -> Values:
    radius = np.array([f.radii[shape, style] for f in fits], np.float64)
    return np.where(np.isnan(radius), np.nanmedian(radius), radius)


def _motion(times: Values, x: Values, y: Values, radius: Values) -> tuple[str, str]:
    if len(times) < 3:
        return "still", "none"
    dx, dy = _travel(times, x), _travel(times, y)
    growth = _travel(times, np.log(radius))
    far = max(abs(dx), abs(dy))
    if far >= TRAVEL["slow"] / 2:
        ways = {name: way[0] * dx + way[1] * dy for name, way in DIRECTIONS.items()}
        speed = "slow" if far < (TRAVEL["slow"] + TRAVEL["fast"]) / 2 else "fast"
        return max(ways, key=lambda name: ways[name]), speed
    if abs(growth) >= np.log(GROWTH) / 2:
        return ("grows" if growth > 0 else "shrinks"), "none"
    return "still", "none"


def _travel(times: Values, values: Values) -> float:
    """Change from the first to the last instant along the least-squares line."""
    return float(np.polyfit(times, values, 1)[0])
