"""Borders of a source: black bars, and bars filled with a blurred copy of the picture.

They are looked for in all of a source at once: a scene is dark for a while, a border always.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from contentv.curation.scoring.vision import opencv
from contentv.curation.settings import OverlaySettings
from contentv.curation.step import WHOLE, Box, Picture

_BESIDE = 2  # pixels beside an edge that resizing and compression have mixed
_MOST = 0.45  # part of a side: what takes more is no border
_SEAM = 2.0  # a seam is so much stronger than the steps within the picture,
_CALM = 0.5  # and a blurred fill has so much weaker ones
_COMPARED = 8  # samples whose bars are compared with their middles
_COMPARED_WIDTH = 160  # pixels they are scaled to,
_SOFT = 4.0  # and by which sigma they are blurred first
_NARROWEST = 64  # pixels without which bar, seam and middle cannot be told apart
_FLAT = 2.0  # standard deviation below which bars have nothing to compare


@dataclass(frozen=True)
class Borders:
    """How much of the picture each border takes, in parts of its width or height."""

    left: float = 0.0
    top: float = 0.0
    right: float = 0.0
    bottom: float = 0.0
    kind: Literal["none", "black", "blurred"] = "none"

    @property
    def inner(self) -> Box:
        """The picture without them."""
        return Box(self.left, self.top, 1 - self.left - self.right, 1 - self.top - self.bottom)


class BorderFinder:
    """Keeps one picture and two lines of sums, however long the video is."""

    def __init__(self, config: OverlaySettings) -> None:
        self._config = config
        self._brightest: NDArray[np.uint8] | None = None
        self._steps: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def see(self, luma: Picture) -> None:
        """Take the brightness of the next sample, ``[h w]``."""
        steps = _mean_steps(luma), _mean_steps(luma.T)
        if self._brightest is None or self._steps is None:
            self._brightest, self._steps = luma.copy(), steps
        else:
            np.maximum(self._brightest, luma, out=self._brightest)
            self._steps = self._steps[0] + steps[0], self._steps[1] + steps[1]

    def find(self, samples: Sequence[Picture]) -> Borders:
        """Say what all samples seen have in common; `samples` are some of them, of any size."""
        if self._brightest is None or self._steps is None:
            return Borders()
        black = _black(self._brightest, self._config)
        if black.kind != "none":
            return black
        chosen = [samples[i] for i in range(0, len(samples), -(-len(samples) // _COMPARED) or 1)]
        side = _filled(self._steps[0], chosen, self._config)
        if side:
            return Borders(left=side, right=side, kind="blurred")
        side = _filled(self._steps[1], [sample.T for sample in chosen], self._config)
        return Borders(top=side, bottom=side, kind="blurred") if side else Borders()


def _black(brightest: Picture, config: OverlaySettings) -> Borders:
    """Find lines that are never bright, up to a straight edge.

    A dark scene's silhouette gives lines that are dark too, but seldom an edge along all of it.
    """
    height, width = brightest.shape
    sides = (brightest.T, brightest, brightest.T[::-1], brightest[::-1])
    left, top, right, bottom = (_dark_lines(lines, config) for lines in sides)
    tall, wide = brightest[top : height - bottom], brightest[:, left : width - right]
    borders = Borders(
        left=left / width if _is_edge(tall.T, left, config) else 0.0,
        top=top / height if _is_edge(wide, top, config) else 0.0,
        right=right / width if _is_edge(tall.T[::-1], right, config) else 0.0,
        bottom=bottom / height if _is_edge(wide[::-1], bottom, config) else 0.0,
        kind="black",
    )
    return borders if borders.inner != WHOLE else Borders()


def _dark_lines(lines: Picture, config: OverlaySettings) -> int:
    """Count the dark lines from the first on; 0 if they are too few or too many for a border."""
    dark = (lines < config.dark).mean(1) >= config.dark_share
    count = int(np.argmin(dark))  # 0 as well where all are dark
    return count if config.least_border <= count / len(lines) <= _MOST else 0


def _is_edge(lines: Picture, count: int, config: OverlaySettings) -> bool:
    if not count or not lines.size:
        return False
    outside = lines[max(0, count - _BESIDE)].astype(np.int16)
    inside = lines[min(len(lines) - 1, count + _BESIDE - 1)]
    return float(np.median(inside - outside)) > config.edge_contrast


def _mean_steps(luma: Picture) -> NDArray[np.float64]:
    """Mean absolute step from each column to the next, ``[w - 1]``."""
    cv2 = opencv()
    if luma.shape[1] == 1:
        return np.zeros(0)
    return cv2.absdiff(luma[:, 1:], luma[:, :-1]).mean(0)


def _filled(
    steps: NDArray[np.float64], samples: Sequence[Picture], config: OverlaySettings
) -> float:
    """Find bars on both sides that show the middle, blurred; give their width, or 0.

    Between such a bar and the middle there is a seam, at the same place on both sides.
    """
    width = len(steps) + 1
    paired = np.minimum(steps, steps[::-1])
    first, last = int(np.ceil(config.least_border * width)), int(_MOST * width)
    if width < _NARROWEST:
        return 0.0
    seam = first - 1 + int(np.argmax(paired[first - 1 : last]))
    bar, middle = steps[: max(1, seam - _BESIDE)], paired[seam + _BESIDE + 1 : width // 2]
    is_seam = paired[seam] > _SEAM * middle.mean() and bar.mean() < _CALM * middle.mean()
    side = (seam + 1) / width
    return side if is_seam and _likeness(samples, side) > config.fill_correlation else 0.0


def _likeness(samples: Sequence[Picture], side: float) -> float:
    """Median correlation of the bars with where the middle would lie if it filled the picture."""
    values = [max(_correlation(s, side, whole=whole) for whole in (True, False)) for s in samples]
    return float(np.median(values)) if values else 0.0


def _correlation(sample: Picture, side: float, *, whole: bool) -> float:
    """Compare bars and fill; `whole`: the middle was stretched, else scaled until it covers."""
    cv2 = opencv()
    width = _COMPARED_WIDTH
    height = max(1, round(width * sample.shape[0] / sample.shape[1]))
    small = cv2.resize(sample, (width, height), interpolation=cv2.INTER_AREA)
    bar = max(1, round(side * width))
    middle = np.ascontiguousarray(small[:, bar : width - bar])
    scaled = height if whole else round(height * width / middle.shape[1])
    fill = cv2.resize(middle, (width, scaled))[(scaled - height) // 2 :][:height]
    shown = [
        # Each bar by itself: blurred together with the middle, it would take from there.
        np.concatenate([cv2.GaussianBlur(p, (0, 0), _SOFT) for p in (q[:, :bar], q[:, -bar:])], 1)
        for q in (fill, small)
    ]
    if min(float(bars.std()) for bars in shown) < _FLAT:
        return 0.0
    return float(np.corrcoef(shown[0].ravel(), shown[1].ravel())[0, 1])
