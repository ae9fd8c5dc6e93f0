"""What a whole picture is like: its colours and its contrast, compared over time."""

import numpy as np
from numpy.typing import NDArray

from contentv.curation.scoring.vision import opencv
from contentv.curation.step import Picture

Numbers = NDArray[np.float64]

Histograms = NDArray[np.int64]

_BINS = 208  # 16 greys, and 12 hues x 4 saturations x 4 values
_COLOURED = 16  # saturation: below it a hue is noise
_BLOCK = 256


def histograms(thumbs: Picture) -> Histograms:
    """Count the pixels of each colour in each frame of ``[n h w 3]``: ``[n colours]``.

    Motion moves colours about; another shot has others.
    """
    parts = [_counted(thumbs[start : start + _BLOCK]) for start in range(0, len(thumbs), _BLOCK)]
    return np.concatenate(parts)


def colour_change(
    colours: Histograms, before: NDArray[np.int64], lag: NDArray[np.int64]
) -> Numbers:
    """Say which part of the picture has other colours `lag` frames after frame `before`: 0..1.

    Half the sum of differences of their histograms. 0 where one of the two frames is missing.
    """
    after = before + lag
    there = (before >= 0) & (after < len(colours))
    change = np.zeros(len(before))
    apart = np.abs(colours[after[there]] - colours[before[there]]).sum(axis=1)
    change[there] = apart / (2 * colours[0].sum())
    return change


def _counted(thumbs: Picture) -> Histograms:
    cv2 = opencv()
    count, height, width = thumbs.shape[:3]
    tall = np.ascontiguousarray(thumbs).reshape(count * height, width, 3)
    pixels = cv2.cvtColor(tall, cv2.COLOR_RGB2HSV).reshape(count, height * width, 3)
    hue, saturation, value = (pixels[..., channel].astype(np.int64) for channel in range(3))
    colour = 16 + hue * 12 // 180 * 16 + saturation // 64 * 4 + value // 64
    which = np.where(saturation >= _COLOURED, colour, value // 16)
    which += _BINS * np.arange(count)[:, None]
    return np.bincount(which.ravel(), minlength=count * _BINS).reshape(count, _BINS)


def contrast(pixels: Picture) -> Numbers:
    """Give the standard deviation of the grey values of each frame of ``[n p]``: 0..127."""
    size = pixels.shape[1]
    total = pixels.sum(axis=1, dtype=np.int64)
    squares = (pixels.astype(np.int64) ** 2).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(squares * size - total * total, 0)) / size)
