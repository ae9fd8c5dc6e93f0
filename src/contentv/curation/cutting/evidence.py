"""What is known of each frame when shots are told apart. Says of each frame the same however the
video was cut into pieces to measure it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from contentv.curation.cutting.colours import colour_change, contrast, histograms
from contentv.curation.cutting.cuts import content_values, returns
from contentv.curation.cutting.mixes import LENGTHS, frame_distances, grey, mixes, products
from contentv.curation.cutting.wipes import wipes
from contentv.curation.settings import ShotSettings
from contentv.curation.step import Picture

REACH = 48
"""Frames at 25 a second, before and after one, that decide what is said of it."""
LAG = 20
"""Half the time over which colours are compared, in such frames: more than half a transition."""
_USUAL_RATE = 25
_MOST = 5  # a header may say anything


def scale_of(fps: float) -> int:
    """Say how many frames make a 25th of a second, at least 1."""
    return max(1, min(_MOST, round(fps / _USUAL_RATE)))


@dataclass(frozen=True)
class Evidence:
    """One number a frame: see the modules that measure them. Lengths are in frames."""

    content: NDArray[np.float64]
    back: NDArray[np.float64]
    contrast: NDArray[np.float64]
    colours: NDArray[np.float64]
    mix: NDArray[np.float64]
    mix_length: NDArray[np.int64]
    mix_colours: NDArray[np.float64]
    wipe: NDArray[np.float64]
    wipe_length: NDArray[np.int64]
    wipe_colours: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, part: slice) -> Self:
        """Take some of the frames."""
        return type(self)(*(getattr(self, field.name)[part] for field in fields(self)))


def joined(pieces: Sequence[Evidence]) -> Evidence:
    """Put the frames of pieces one after the other."""
    columns = ([getattr(piece, f.name) for piece in pieces] for f in fields(Evidence))
    return Evidence(*(np.concatenate(column) for column in columns))


def measure(thumbs: Picture, fps: float, config: ShotSettings) -> Evidence:
    """Measure successive thumbs ``[n 27 48 3]``.

    What is said of a frame is final if `REACH` frames (of a 25th of a second) on both sides of it
    are there, or the video has no more.
    """
    scale = scale_of(fps)
    pixels = grey(thumbs)
    size = pixels.shape[1]
    band = products(pixels, max(LENGTHS) * scale)
    flash = max(1, min(round(config.flash_seconds * fps), max(LENGTHS) * scale - 1))
    mix = mixes(band, size, scale, config.mix_difference)
    wipe = wipes(thumbs, scale)
    colours, frames = histograms(thumbs), np.arange(len(thumbs))
    wipe_begins = frames - wipe.length // 2
    return Evidence(
        content=content_values(thumbs),
        back=returns(frame_distances(band[:, : flash + 2], size), flash),
        contrast=contrast(pixels),
        colours=colour_change(colours, frames - LAG * scale, np.full_like(frames, 2 * LAG * scale)),
        mix=mix.value,
        mix_length=mix.length,
        mix_colours=colour_change(colours, frames - mix.length // 2, mix.length),
        wipe=wipe.value,
        wipe_length=wipe.length,
        wipe_colours=colour_change(colours, wipe_begins - 2 * scale, wipe.length + 4 * scale),
    )
