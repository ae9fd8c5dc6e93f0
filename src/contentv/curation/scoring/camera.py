"""What the camera did between two pictures, and what kind of movement a clip's camera makes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from contentv.curation.scoring.vision import opencv

Points: TypeAlias = NDArray[np.float64]
"""``[n 2]``: x and y in pixels, or how far each point moves."""

Homography: TypeAlias = NDArray[np.float64]
"""``[3 3]``: takes (x, y, 1) of one picture to the next."""

Camera: TypeAlias = Literal["static", "pan", "tilt", "zoom", "roll", "complex"]

_FEWEST = 8  # points; a homography has 8 unknowns and is fitted to 4 points at least
_TRIES = 500
_CERTAINTY = 0.995
_PURE = 0.6  # a movement has a name when this part of it is of that one kind
_STEADY = 0.5  # ... and when it does not turn back on itself for more than half of the way


@dataclass(frozen=True)
class CameraSpeed:
    """How fast a camera moves.

    `pan` (to the right) and `tilt` (up) in picture diagonals per second; `zoom` (in) as the natural
    logarithm of the scale per second; `roll` in radians per second that the picture turns
    clockwise.
    """

    pan: float
    tilt: float
    zoom: float
    roll: float


def fit_homography(points: Points, flow: Points, tolerance: float) -> Homography:
    """Fit the homography that most points follow to `tolerance` pixels, by RANSAC.

    Where no sensible one is found (too few points, or one that folds the picture) it is the shift
    by the median of the flow.
    """
    if len(points) >= _FEWEST:
        cv2 = opencv()
        # Of OpenCV's variants the one that finds as many inliers as 500 plain tries and takes no
        # longer where few points agree. Its random numbers always begin alike.
        found, _ = cv2.findHomography(
            points, points + flow, cv2.USAC_FAST, tolerance, maxIters=_TRIES, confidence=_CERTAINTY
        )
        if found is not None and _is_sensible(found, points):
            return np.asarray(found, np.float64)
    shift = np.eye(3)
    shift[:2, 2] = np.median(flow, axis=0)
    return shift


def carried(points: Points, homography: Homography) -> Points:
    """How far a homography moves points, ``[n 2]`` pixels."""
    ahead = points @ homography[:, :2].T + homography[:, 2]
    return ahead[:, :2] / ahead[:, 2:] - points


def camera_speed(
    homography: Homography, center: tuple[float, float], diagonal: float, seconds: float
) -> CameraSpeed:
    """Read a camera's speed off the homography's first order at the picture's center.

    The picture moves against the camera: to the left when it pans right, down when it tilts up.
    """
    point = np.array([*center, 1.0])
    x, y, depth = homography @ point
    shift = np.array([x, y]) / depth - center
    # d(H p)/dp for p = (x, y): the quotient rule on the rows of H.
    slopes = (homography[:2, :2] - np.outer([x / depth, y / depth], homography[2, :2])) / depth
    (a, b), (c, d) = slopes
    return CameraSpeed(
        pan=float(-shift[0] / diagonal / seconds),
        tilt=float(shift[1] / diagonal / seconds),
        zoom=0.5 * math.log(max(a * d - b * c, 1e-6)) / seconds,
        roll=math.atan2(c - b, a + d) / seconds,
    )


def mean_speed(speeds: Sequence[CameraSpeed], seconds: Sequence[float]) -> CameraSpeed:
    """Average over time, with sign: a camera that goes and comes back has not moved."""
    table = np.array([(s.pan, s.tilt, s.zoom, s.roll) for s in speeds])
    pan, tilt, zoom, roll = map(float, np.average(table, axis=0, weights=seconds))
    return CameraSpeed(pan, tilt, zoom, roll)


def classify(speed: CameraSpeed, background: float, radius: float, still: float) -> Camera:
    """Name a clip's camera movement.

    All in diagonals per second: `background` is the mean speed without sign; below `still` the
    camera is static. Zoom and roll count by how far they move a point at the mean distance from the
    center, `radius` diagonals. What is none of them alone, or shakes, is complex.
    """
    if background < still:
        return "static"
    parts: dict[Camera, float] = {
        "pan": abs(speed.pan),
        "tilt": abs(speed.tilt),
        "zoom": abs(speed.zoom) * radius,
        "roll": abs(speed.roll) * radius,
    }
    name = max(parts, key=lambda part: parts[part])
    steady = parts[name] >= _STEADY * background
    return name if steady and parts[name] >= _PURE * sum(parts.values()) else "complex"


def _is_sensible(homography: Homography, points: Points) -> bool:
    """Whether it neither folds the picture over nor throws a point farther than the picture is."""
    depth = points @ homography[2, :2] + homography[2, 2]
    if not np.isfinite(homography).all() or depth.min() <= 0:
        return False
    if np.linalg.det(homography[:2, :2]) <= 0:
        return False
    farthest = np.linalg.norm(np.ptp(points, axis=0))
    return bool(np.linalg.norm(carried(points, homography), axis=1).max() <= farthest)
