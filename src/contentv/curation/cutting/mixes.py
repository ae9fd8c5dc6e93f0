"""Dissolves as arithmetic: frames that are a linear mix of one before them and one after."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contentv.curation.scoring.vision import opencv
from contentv.curation.step import Picture

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]

LENGTHS = (8, 12, 16, 24, 36)
"""Frames at 25 a second over which a mix is looked for."""
_STEPS = (0.08, 0.92)  # a mix goes on all the time: its quarters are apart, and inside it


@dataclass(frozen=True)
class Found:
    """What was looked for, centred at each frame: how good it is there and how long it takes."""

    value: Numbers
    length: Counts


def grey(thumbs: Picture) -> Picture:
    """Give ``[n h*w]`` grey values."""
    cv2 = opencv()
    count, height, width = thumbs.shape[:3]
    tall = np.ascontiguousarray(thumbs).reshape(count * height, width, 3)
    pixels: Picture = cv2.cvtColor(tall, cv2.COLOR_RGB2GRAY).reshape(count, height * width)
    return pixels


def products(pixels: Picture, reach: int) -> Numbers:
    """Give inner products of each frame of ``[n p]`` with itself and the next: ``[n 1+reach]``.

    They are exact: whole numbers in floating point. NaN where there is no such frame.
    """
    count = len(pixels)
    exact = pixels.astype(np.float64)
    band = np.full((count, reach + 1), np.nan)
    for start in range(0, count, _BLOCK):
        block = exact[start : start + _BLOCK] @ exact[start : start + _BLOCK + reach].T
        for row, line in enumerate(block):
            near = line[row : row + reach + 1]
            band[start + row, : len(near)] = near
    return band


_BLOCK = 64


def frame_distances(band: Numbers, size: int) -> Numbers:
    """Give the root mean square difference of each frame to the next ones, from their products."""
    count, width = band.shape
    own = np.pad(band[:, 0], (0, width), constant_values=np.nan)
    later = np.lib.stride_tricks.sliding_window_view(own, width)[:count]
    squares = band[:, :1] + later - 2 * band
    return np.asarray(np.sqrt(np.maximum(squares, 0) / size))


def mixes(band: Numbers, size: int, scale: int, difference: float) -> Found:
    """Say how well frames are linear mixes of a frame before and one after: the relative residual.

    Over each of `LENGTHS`, with d = last - first: a quarter, half and three quarters of the way the
    frame must be first + a d with a rising, the root mean square of d above `difference` of 255.
    The value is the root of the mean of what is left, over that of d: 0 for a perfect mix; 9 where
    there is none.
    """
    count = len(band)
    value, lengths = np.full(count, 9.0), np.zeros(count, np.int64)
    for length in (scale * each for each in LENGTHS):
        if count > length:
            residual = _residual(band, size, length, difference)
            centre = slice(length // 2, length // 2 + len(residual))
            better = residual < value[centre]
            value[centre][better] = residual[better]
            lengths[centre][better] = length
    return Found(value, lengths)


def _residual(band: Numbers, size: int, length: int, difference: float) -> Numbers:
    """Give the residual of the window that begins at each frame, 9 where it cannot be a mix."""
    start = np.arange(len(band) - length)
    own = band[:, 0]
    whole = own[start] + own[start + length] - 2 * band[start, length]
    safe = np.maximum(whole, 1.0)
    left = np.zeros(len(start))
    parts = []
    for step in (length // 4, length // 2, 3 * length // 4):
        here = start + step
        along = band[here, length - step] - band[start, step] - band[start, length] + own[start]
        moved = own[start] + own[here] - 2 * band[start, step]
        parts.append(along / safe)
        left += np.maximum(moved / safe - (along / safe) ** 2, 0) / 3
    part = np.stack(parts)
    goes_on = (np.diff(part, axis=0) > _STEPS[0]).all(axis=0)
    inside = (part.min(axis=0) > _STEPS[0]) & (part.max(axis=0) < _STEPS[1])
    is_far = whole / size > difference**2
    return np.where(goes_on & inside & is_far, np.sqrt(left), 9.0)
