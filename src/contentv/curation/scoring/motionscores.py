"""From the flow of a clip's pairs of pictures to its motion scores."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contentv.curation.scoring.camera import (
    CameraSpeed,
    Points,
    camera_speed,
    carried,
    classify,
    fit_homography,
    mean_speed,
)
from contentv.curation.settings import MotionSettings
from contentv.curation.step import Row

_REFERENCE = 256  # pixels: the long side for which the tolerance is meant
_FINEST = 0.25  # pixels: no flow is more exact
_FEWEST = 24  # points with a clear flow; with fewer all points say how the camera moves
_STILL_RUN = 0.5  # seconds
_JUMP = 0.25  # seconds: a movement between two stills that takes longer is none


@dataclass(frozen=True)
class Pair:
    """The flow between two pictures `seconds` apart, inside a crop.

    `points` and `flow` are ``[n 2]`` pixels, counted from the crop's corner; `clear` says whose
    flow is certain; `size` is the crop's width and height in pixels, `side` the long side of the
    whole picture.
    """

    points: Points
    flow: Points
    clear: NDArray[np.bool_]
    size: tuple[float, float]
    seconds: float
    side: int


@dataclass(frozen=True)
class Motion:
    """What one pair shows: speeds in diagonals per second; `inliers` are a part of the points."""

    background: float
    foreground: float
    inliers: float
    camera: CameraSpeed


def motion_row(pairs: Sequence[Pair], config: MotionSettings) -> Row:
    """Give a clip's row from its pairs, in the order of time; at least one."""
    motions = [pair_motion(pair, config) for pair in pairs]
    seconds = np.array([pair.seconds for pair in pairs])
    background = np.array([motion.background for motion in motions])
    foreground = np.array([motion.foreground for motion in motions])
    inliers = np.array([motion.inliers for motion in motions])
    still = (background + foreground) / 2 < config.still
    speed = mean_speed([motion.camera for motion in motions], seconds.tolist())
    behind, before = _mean(background, seconds), _mean(foreground, seconds)
    weight = config.foreground_weight
    return {
        "motion": (before + behind) / 2,
        "motion_weighted": weight * before + (1 - weight) * behind,
        "motion_background": behind,
        "motion_foreground": before,
        "motion_inliers": _mean(inliers, seconds),
        "motion_static": _mean(still.astype(np.float64), seconds),
        "motion_slideshow": slideshow(still, seconds),
        "motion_jitter": jitter([motion.camera for motion in motions]),
        "camera": classify(speed, behind, _radius(pairs[0]), config.still),
        "camera_pan": speed.pan,
        "camera_tilt": speed.tilt,
        "camera_zoom": speed.zoom,
        "camera_roll": speed.roll,
    }


def pair_motion(pair: Pair, config: MotionSettings) -> Motion:
    """Part a pair's flow into background and foreground.

    Points that leave the picture have no place in the second one, so their flow says nothing.
    """
    if not pair.flow.any():
        return Motion(0.0, 0.0, 1.0, CameraSpeed(0.0, 0.0, 0.0, 0.0))
    ahead = pair.points + pair.flow
    seen = ((ahead >= 0) & (ahead <= pair.size)).all(axis=1)
    seen = seen if seen.any() else np.ones_like(seen)
    tolerance = max(config.tolerance * pair.side / _REFERENCE, _FINEST)
    clear = pair.clear & seen
    sure = clear if np.count_nonzero(clear) >= _FEWEST else seen
    homography = fit_homography(pair.points[sure], pair.flow[sure], tolerance)
    background = carried(pair.points, homography)
    beside = np.sort(np.linalg.norm(pair.flow - background, axis=1)[seen])
    top = max(1, round(config.top_share * len(beside)))
    inliers = float(np.mean(beside <= tolerance))
    width, height = pair.size
    diagonal = math.hypot(width, height)
    return Motion(
        background=float(np.linalg.norm(background, axis=1).mean()) / diagonal / pair.seconds,
        foreground=float(beside[-top:].mean()) / diagonal / pair.seconds,
        inliers=inliers,
        camera=camera_speed(homography, (width / 2, height / 2), diagonal, pair.seconds),
    )


def jitter(speeds: Sequence[CameraSpeed]) -> float:
    """Root mean square of the second differences of pan and tilt, over 4; diagonals per second.

    A camera shaken to and fro between pairs at speed v has jitter v; one that moves evenly, or
    faster and faster, has none. 0 for fewer than three pairs.
    """
    path = np.array([(speed.pan, speed.tilt) for speed in speeds])
    swings = np.diff(path, n=2, axis=0) / 4
    return math.sqrt(np.mean(np.sum(swings**2, axis=1))) if len(swings) else 0.0


def slideshow(still: NDArray[np.bool_], seconds: NDArray[np.float64]) -> float:
    """Part of the time in stills that follow each other with no more than a jump between them."""
    edges = np.flatnonzero(np.diff(still)) + 1
    starts = [0, *edges.tolist()]
    runs = list(zip(starts, [*starts[1:], len(still)], strict=True))
    lengths = [float(seconds[slice(*run)].sum()) for run in runs]
    shown: set[int] = set()
    for place in range(1, len(runs) - 1):
        between = not still[runs[place][0]] and lengths[place] <= _JUMP
        if between and min(lengths[place - 1], lengths[place + 1]) >= _STILL_RUN:
            shown |= {place - 1, place + 1}
    return sum(lengths[place] for place in shown) / sum(lengths)


def _mean(values: NDArray[np.float64], seconds: NDArray[np.float64]) -> float:
    return float(np.average(values, weights=seconds))


def _radius(pair: Pair) -> float:
    """Mean distance of the points from the crop's center, in diagonals."""
    width, height = pair.size
    away = np.linalg.norm(pair.points - (width / 2, height / 2), axis=1)
    return float(away.mean()) / math.hypot(width, height)
