"""Hard cuts: where the content jumps between two frames, and does not come back."""

import numpy as np
from numpy.typing import NDArray

from contentv.curation.scoring.vision import opencv
from contentv.curation.step import Picture

Numbers = NDArray[np.float64]


def content_values(thumbs: Picture) -> Numbers:
    """Give how much each frame of ``[n h w 3]`` differs from the one before: 0..255.

    0 for the first. The mean difference of hue, saturation and value: the content value of
    PySceneDetect.
    """
    cv2 = opencv()
    count, height, width = thumbs.shape[:3]
    tall = np.ascontiguousarray(thumbs).reshape(count * height, width, 3)
    colours = cv2.cvtColor(tall, cv2.COLOR_RGB2HSV).reshape(count, -1)
    values = np.zeros(count)
    if count > 1:
        change = cv2.absdiff(colours[1:], colours[:-1])
        values[1:] = change.sum(axis=1, dtype=np.int64) / colours.shape[1]
    return values


def prominence(values: Numbers) -> Numbers:
    """Divide each content value by the mean of its neighbours, four on each side.

    As PySceneDetect's adaptive ratio, but frames that only repeat the one before (drawings that
    move at every third frame) do not count as neighbours.
    """
    count = len(values)
    padded = np.pad(values, _NEIGHBOURS)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1)[:count]
    moves = windows > _REPEATED
    moves[:, _NEIGHBOURS] = False
    around = (windows * moves).sum(axis=1) / np.maximum(moves.sum(axis=1), 1)
    return np.asarray(values / np.maximum(around, _REPEATED))


_NEIGHBOURS = 4
_REPEATED = 0.25  # what compression alone does to a repeated frame stays below


def returns(distances: Numbers, reach: int) -> Numbers:
    """Say for each frame how far a jump there comes back within `reach` frames: 0 entirely, 1 not.

    `distances` are those of `frame_distances`. A flash changes everything and then nothing: the
    frame before it is like one soon after it. So is the frame before its end like one before it.
    """
    count = len(distances)
    result = np.ones(count)
    if count < 2:
        return result
    jump = np.maximum(distances[: count - 1, 1], 1.0)
    for later in range(1, reach + 1):
        if later + 1 >= count:
            break
        apart = distances[: count - 1 - later, later + 1]
        begin, end = slice(1, count - later), slice(later + 1, count)
        result[begin] = np.minimum(result[begin], apart / jump[: count - 1 - later])
        result[end] = np.minimum(result[end], apart / jump[later:])
    return result
