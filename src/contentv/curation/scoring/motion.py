"""Motion: how fast the background and what moves before it move, and what the camera does.

Speeds are in picture diagonals per second, so neither frame rate nor resolution changes them.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from contentv.curation.scoring.camera import Points
from contentv.curation.scoring.flowfield import SMALLEST, dis_flow, explained, texture
from contentv.curation.scoring.motionscores import Pair, motion_row
from contentv.curation.scoring.spool import Spool
from contentv.curation.settings import MotionSettings
from contentv.curation.step import Box, Footage, Picture, Row, Span, Stream

_ROWS = 18  # of grid points at least: what a step of 8 pixels gives in 256 x 144
_STEP = 8
_CLEAR = 1e-5  # texture of points that say how the camera moves; else the best quarter says it
_MOVING = 0.01  # part of the picture whose change must be explained by motion
_LONGEST = 0.5  # seconds between two pictures that still show one movement


class MotionStep:
    """Dense flow between neighbouring luma pictures, about 8 pairs a second (paper section 3).

    A pair's flow is taken on a grid of every 8 pixels, inside the clip's crop. A homography fitted
    by RANSAC to the points with texture gives the background's flow; what a point moves beside it
    is foreground. Columns, over the pairs of a clip whose pictures both belong to it, weighted by
    their time:

    * `motion_background`: mean length of the background's flow;
    * `motion_foreground`: mean length of the rest among the `top_share` of points that move most
      beside the background, whatever the size of what moves;
    * `motion` = (foreground + background) / 2, for pre-training; `motion_weighted` =
      w foreground + (1 - w) background, for post-training (w: `foreground_weight`);
    * `motion_inliers`: part of the points seen in both pictures that move with the background, the
      rest being the foreground's area. A low one says that depth or a large subject makes the
      background's speed uncertain;
    * `motion_static`: part of the time in which a pair's motion is below `still`;
    * `motion_slideshow`: part of the time spent in stills of half a second and more with nothing
      but a jump between them;
    * `motion_jitter`: how far the camera's speed swings from pair to pair;
    * `camera`: static, pan, tilt, zoom, roll or complex, with `camera_pan`, `camera_tilt`,
      `camera_zoom` and `camera_roll`: see `camera.CameraSpeed`.

    Speeds are in diagonals of the crop per second. All is None for pictures, and for clips without
    two luma pictures half a second apart at most.
    """

    name: ClassVar[str] = "motion"
    version: ClassVar[int] = 2
    stream: ClassVar[Stream] = "luma"
    columns: ClassVar[Mapping[str, type]] = {
        "motion": float,
        "motion_weighted": float,
        "motion_background": float,
        "motion_foreground": float,
        "motion_inliers": float,
        "motion_static": float,
        "motion_slideshow": float,
        "motion_jitter": float,
        "camera": str,
        "camera_pan": float,
        "camera_tilt": float,
        "camera_zoom": float,
        "camera_roll": float,
    }

    def __init__(self, config: MotionSettings) -> None:
        self.config = config

    def watch(self, footage: Footage) -> "MotionWatcher":  # noqa: ARG002 - none of it matters here
        """Begin with a video."""
        return MotionWatcher(self.config)


class MotionWatcher:
    """Keeps the flow on the grid: about 2 kB a pair, on disk when there are many."""

    def __init__(self, config: MotionSettings) -> None:
        self._config = config
        self._flow_between = dis_flow()
        self._flows = Spool()
        self._times: list[float] = []
        self._last: Picture | None = None

    def see(self, time: float, picture: Picture) -> None:
        """Take the next luma picture, ``[h w]``, all of one size."""
        if min(picture.shape) < SMALLEST:
            return
        if self._last is not None:
            near = time - self._times[-1] <= _LONGEST
            self._flows.add(self._compare(self._last, picture) if near else b"")
        self._times.append(time)
        self._last = picture

    def score(self, spans: Sequence[Span], crops: Sequence[Box]) -> list[Row]:
        """Give a row for each clip."""
        nothing: Row = dict.fromkeys(MotionStep.columns)
        rows = []
        for span, crop in zip(spans, crops, strict=True):
            pairs = self._pairs(span, crop) if span.kind == "video" else []
            rows.append(motion_row(pairs, self._config) if pairs else dict(nothing))
        return rows

    def _compare(self, first: Picture, second: Picture) -> bytes:
        """Give the flow on the grid, zero when it explains too little of what changed.

        After it a bit per point: has it enough texture to say how it moves?
        """
        flow = self._flow_between(first, second)
        x, y = _grid(*first.shape)
        kept = flow[np.ix_(y, x)].astype(np.float16)
        if explained(first, second, flow) < _MOVING:
            kept = np.zeros_like(kept)
        detail = texture(first)[np.ix_(y, x)]
        clear = detail >= min(_CLEAR, float(np.quantile(detail, 0.75)))
        return kept.tobytes() + np.packbits(clear).tobytes()

    def _pairs(self, span: Span, crop: Box) -> list[Pair]:
        if self._last is None:
            return []
        height, width = self._last.shape
        points, inside = _points_inside(height, width, crop)
        first, last = np.searchsorted(self._times, [span.start, span.end])
        pairs = []
        for number in range(int(first), int(last) - 1):
            content = self._flows.get(number)
            if not content or not inside.any():
                continue
            flow, clear = _read(content, len(inside))
            seconds = self._times[number + 1] - self._times[number]
            size = width * crop.width, height * crop.height
            corner = width * crop.x - 0.5, height * crop.y - 0.5
            pairs.append(
                Pair(
                    points - corner, flow[inside], clear[inside], size, seconds, max(height, width)
                )
            )
        return pairs


def _read(content: bytes, count: int) -> tuple[Points, NDArray[np.bool_]]:
    """What `MotionWatcher._compare` gave: the flow of `count` points, and which are clear."""
    flow = np.frombuffer(content, np.float16, 2 * count).reshape(-1, 2).astype(np.float64)
    bits = np.frombuffer(content, np.uint8, offset=4 * count)
    return flow, np.unpackbits(bits, count=count).astype(bool)


def _grid(height: int, width: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Columns and rows of the grid: every 8 pixels, closer in small pictures."""
    step = max(1, min(_STEP, min(height, width) // _ROWS))
    return np.arange(step // 2, width, step), np.arange(step // 2, height, step)


def _points_inside(height: int, width: int, crop: Box) -> tuple[Points, NDArray[np.bool_]]:
    """Those points of the grid that a crop keeps, and which of all these are."""
    x, y = (axis.ravel() for axis in np.meshgrid(*_grid(height, width)))
    across, down = (x + 0.5) / width, (y + 0.5) / height
    inside = (crop.x <= across) & (across <= crop.x + crop.width)
    inside &= (crop.y <= down) & (down <= crop.y + crop.height)
    return np.stack([x[inside], y[inside]], axis=1).astype(np.float64), inside
