"""Straight wipes: a line along which everything changes, going through the picture once."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from contentv.curation.cutting.mixes import Found
from contentv.curation.step import Picture

DURATIONS = (*range(6, 17), 18, 20, 22, 24, 26, 28, 30, 33, 36, 40)
"""Frames at 25 a second that a wipe may take."""
_AROUND = (-4, -3, 3, 4)  # frames beside a jump of two frames that it does not touch
_LEAST = 4.0  # difference of two grey values that shows in spite of compression
_NOISE = 0.5
_JUMP = 1.5

Lines = NDArray[np.float32]


def wipes(thumbs: Picture, scale: int) -> Found:
    """Say how much more changes on a line that crosses the picture than beside it in time.

    For ``[n h w 3]`` and every wipe in the four directions: the change of each column (or row) at
    the moment when the line passes it, over its change shortly before and after, times the part
    of columns that jump. Above `wipe_score` is a wipe; other footage has about 1. Motion that also
    crosses the picture and changes it all is an object that passes: see `colours.py`.
    """
    count = len(thumbs)
    found = Found(np.zeros(count), np.zeros(count, np.int64))
    if count <= 2 * scale:
        return found
    later = thumbs[2 * scale :].astype(np.int16)
    moved = np.abs(later - thumbs[: -2 * scale].astype(np.int16))
    for axis in (1, 2):
        change = np.zeros((count, thumbs.shape[3 - axis]), np.float32)
        sums = moved.sum(axis=(axis, 3), dtype=np.int64)
        change[scale:-scale] = sums / (3 * thumbs.shape[axis])
        for offsets in _passes(change.shape[1], scale):
            _keep(found, change, offsets, scale)
    return found


def _passes(side: int, scale: int) -> Iterator[NDArray[np.int64]]:
    """Yield when a line reaches each column, in frames after the wipe's first, both ways."""
    column = (np.arange(side) + 0.5) / side
    for duration in (scale * each for each in DURATIONS):
        moment = np.rint(column * (duration + 1) - 1).astype(np.int64)
        yield moment
        yield moment[::-1]


def _keep(found: Found, change: Lines, offsets: NDArray[np.int64], scale: int) -> None:
    duration = int(offsets.max()) + 1
    margin = max(_AROUND) * scale
    starts = np.arange(margin + 1, len(change) - duration - margin)
    if not len(starts):
        return
    frame, column = starts[:, None] + offsets, np.arange(len(offsets))
    on = change[frame, column]
    off = sum(change[frame + scale * beside, column] for beside in _AROUND) / len(_AROUND)
    jumps = ((on > _JUMP * off) & (on > _LEAST)).mean(axis=1)
    score = jumps * on.sum(axis=1) / (off.sum(axis=1) + 2 * _NOISE * len(offsets))
    centre = starts + duration // 2
    better = score > found.value[centre]
    found.value[centre[better]] = score[better]
    found.length[centre[better]] = duration
