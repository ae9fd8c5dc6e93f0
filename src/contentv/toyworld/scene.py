"""The toy world's vocabulary and scenes: what can be in a clip, and how one is drawn at random.

A scene is complete and exact: rendering it needs nothing else. Lengths are fractions of the frame's
side, so the same scene renders at any size; times run from 0 (first frame) to 1 (last frame).
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Shape = Literal["circle", "square", "triangle", "cross"]
Colour = Literal["red", "green", "blue", "yellow", "pink", "cyan"]
Background = Literal["black", "white", "grey", "brown"]
Style = Literal["flat", "outlined", "hollow"]
Size = Literal["small", "large"]
Motion = Literal["left", "right", "up", "down", "still", "grows", "shrinks", "spins"]
Speed = Literal["slow", "fast"]
Camera = Literal["still", "left", "right"]
Relation = Literal["left", "right", "above", "below"]
Split = Literal["train", "seen", "held_out"]

SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle", "cross")
# Any two tones that can meet in a clip are at least 88 apart in RGB (tested): a pixel's nearest
# entry is then safe under noise.
COLOURS: dict[Colour, tuple[int, int, int]] = {
    "red": (215, 35, 45),
    "green": (35, 165, 60),
    "blue": (45, 80, 225),
    "yellow": (245, 215, 45),
    "pink": (240, 110, 205),
    "cyan": (70, 215, 225),
}
BACKGROUNDS: dict[Background, tuple[int, int, int]] = {
    "black": (28, 28, 34),
    "white": (226, 226, 222),
    "grey": (128, 128, 132),
    "brown": (120, 75, 40),
}
STYLES: tuple[Style, ...] = ("flat", "outlined", "hollow")
# Every fact there is, and the values it can have.
VALUES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "style": STYLES,
    "background": tuple(BACKGROUNDS),
    "size": get_args(Size),
    "motion": get_args(Motion),
    "speed": get_args(Speed),
    "camera": get_args(Camera),
    "relation": get_args(Relation),
    "shape2": SHAPES,
    "colour2": tuple(COLOURS),
}
DIRECTIONS: dict[str, tuple[float, float]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
TRAVEL: dict[Speed, float] = {"slow": 0.18, "fast": 0.46}
RADII: dict[Size, float] = {"small": 0.15, "large": 0.23}
MEDIUM_RADIUS = 0.19
PAIR_RADIUS = 0.17
GROWTH = 1.75
SPIN_TURN = np.pi / 2
PAN_TRAVEL = 0.40
# Kept from text encoders and transformer: they measure whether colour and shape compose.
HELD_OUT: frozenset[tuple[Colour, Shape]] = frozenset(
    {("red", "triangle"), ("green", "cross"), ("blue", "circle"), ("yellow", "square")}
)
EDGE = 0.03
# What no caption states varies little: a small model learns what is said, not where things happen
# to be. Places vary by this share of the side each way, the ripple by this many radians.
JITTER = 0.06
PHASE_JITTER = 0.5


@dataclass(frozen=True, slots=True)
class Body:
    """One object and its path: every attribute goes linearly from its first to its second value.

    `radius`, `x`, `y` are (start, end) as fractions of the side; `angle` likewise in radians.
    """

    shape: Shape
    colour: Colour
    style: Style
    radius: tuple[float, float]
    x: tuple[float, float]
    y: tuple[float, float]
    angle: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Scene:
    """One clip's contents with the facts that are true of it.

    `facts` maps a fact's name to its value: shape, colour, motion, background, style, camera
    always; speed, size, relation, shape2, colour2 where they apply.
    """

    bodies: tuple[Body, ...]
    background: Background
    ripple_phase: float
    pan: float
    facts: dict[str, str]


def sample_scene(rng: np.random.Generator, *, split: Split = "train") -> Scene:
    """Draw a scene. `held_out` scenes hold one pair of HELD_OUT; the other splits never do."""
    kind = rng.choice(
        ["move", "still", "zoom", "spin", "two", "pan"], p=[0.42, 0.08, 0.14, 0.10, 0.16, 0.10]
    )
    if kind == "two":
        return _two_bodies(rng, split)
    colour, shape = _pair(rng, split, spins=kind == "spin")
    style: Style = STYLES[rng.choice(3, p=[0.6, 0.2, 0.2])]
    background = _background(rng)
    facts = {
        "shape": shape,
        "colour": colour,
        "style": style,
        "background": background,
        "camera": "still",
    }
    path: dict[str, tuple[float, float]]
    pan = 0.0
    if kind == "move":
        path = _move(rng, facts)
    elif kind == "zoom":
        path = _zoom(rng, facts)
    elif kind == "pan":
        path, pan = _pan(rng, facts)
    else:
        path = _stay(rng, facts, spins=kind == "spin")
    return Scene((Body(shape, colour, style, **path),), background, _phase(rng), pan, facts)


def _pair(rng: np.random.Generator, split: Split, *, spins: bool = False) -> tuple[Colour, Shape]:
    # A circle's spin cannot be seen.
    shapes = [s for s in SHAPES if not (spins and s == "circle")]
    pairs = [
        (c, s) for c in COLOURS for s in shapes if ((c, s) in HELD_OUT) == (split == "held_out")
    ]
    return pairs[rng.integers(len(pairs))]


def _background(rng: np.random.Generator) -> Background:
    names = list(BACKGROUNDS)
    return names[rng.integers(len(names))]


def _phase(rng: np.random.Generator) -> float:
    return float(rng.uniform(-PHASE_JITTER, PHASE_JITTER))


def _size(rng: np.random.Generator, facts: dict[str, str]) -> float:
    size: Size = "small" if rng.random() < 0.5 else "large"
    facts["size"] = size
    return RADII[size]


def _inside(rng: np.random.Generator, reach: float, travel: float = 0.0) -> tuple[float, float]:
    """A start and end on one axis, `travel` apart about the middle, `reach` from both borders."""
    room = max(0.0, 0.5 - reach - EDGE - abs(travel) / 2)
    middle = 0.5 + min(JITTER, room) * float(rng.uniform(-1, 1))
    return middle - travel / 2, middle + travel / 2


def _move(rng: np.random.Generator, facts: dict[str, str]) -> dict[str, tuple[float, float]]:
    motion = list(DIRECTIONS)[rng.integers(4)]
    speed: Speed = "slow" if rng.random() < 0.5 else "fast"
    radius = _size(rng, facts)
    facts |= {"motion": motion, "speed": speed}
    dx, dy = DIRECTIONS[motion]
    x, y = (_inside(rng, radius, d * TRAVEL[speed]) for d in (dx, dy))
    return {"radius": (radius, radius), "x": x, "y": y}


def _stay(
    rng: np.random.Generator, facts: dict[str, str], *, spins: bool
) -> dict[str, tuple[float, float]]:
    radius = _size(rng, facts)
    facts["motion"] = "spins" if spins else "still"
    turn = (0.0, float(SPIN_TURN) if spins else 0.0)
    return {
        "radius": (radius, radius),
        "x": _inside(rng, radius),
        "y": _inside(rng, radius),
        "angle": turn,
    }


def _zoom(rng: np.random.Generator, facts: dict[str, str]) -> dict[str, tuple[float, float]]:
    small, large = RADII["small"], RADII["small"] * GROWTH
    grows = rng.random() < 0.5
    facts["motion"] = "grows" if grows else "shrinks"
    return {
        "radius": (small, large) if grows else (large, small),
        "x": _inside(rng, large),
        "y": _inside(rng, large),
    }


def _pan(
    rng: np.random.Generator, facts: dict[str, str]
) -> tuple[dict[str, tuple[float, float]], float]:
    """The camera turns left: the world, object included, slides right across the frame."""
    camera: Camera = "left" if rng.random() < 0.5 else "right"
    shift = PAN_TRAVEL if camera == "left" else -PAN_TRAVEL
    facts |= {"camera": camera, "motion": "still"}
    radius = MEDIUM_RADIUS
    path = {"radius": (radius, radius), "x": _inside(rng, radius, shift), "y": _inside(rng, radius)}
    return path, shift


def _two_bodies(rng: np.random.Generator, split: Split) -> Scene:
    """Two still, flat objects of different colours with a clear gap along one axis."""
    colour, shape = _pair(rng, split)
    while True:
        colour2, shape2 = _pair(rng, "train" if split == "train" else "seen")
        if colour2 != colour:
            break
    relation: Relation = ("left", "right", "above", "below")[rng.integers(4)]
    near, far = (place + JITTER / 2 * float(rng.uniform(-1, 1)) for place in (0.24, 0.76))
    across, across2 = (0.5 + JITTER * float(rng.uniform(-1, 1)) for _ in range(2))
    if relation in ("right", "below"):
        near, far = far, near
    places = ((near, across), (far, across2))
    if relation in ("above", "below"):
        places = ((across, near), (across2, far))
    radius = (PAIR_RADIUS, PAIR_RADIUS)
    bodies = tuple(
        Body(s, c, "flat", radius, (x, x), (y, y))
        for (c, s), (x, y) in zip(((colour, shape), (colour2, shape2)), places, strict=True)
    )
    background = _background(rng)
    facts = {
        "shape": shape, "colour": colour, "shape2": shape2, "colour2": colour2,
        "relation": relation,
        "motion": "still", "style": "flat", "background": background, "camera": "still",
    }  # fmt: skip
    return Scene(bodies, background, _phase(rng), 0.0, facts)
