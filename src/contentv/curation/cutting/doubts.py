"""Shows TransNetV2 the frames on which arithmetic alone cannot decide."""

import numpy as np
from numpy.typing import NDArray

from contentv.curation.cutting.boundaries import (
    Chances,
    Flags,
    fades,
    flashes,
    hard_cuts,
    peaks,
    sudden_changes,
    wiped,
)
from contentv.curation.cutting.evidence import LAG, Evidence
from contentv.curation.cutting.transnet import KEPT, WINDOW, TransNet
from contentv.curation.settings import ShotSettings
from contentv.curation.step import Picture

STEP = 2
"""Of so many frames at 25 a second the network sees one: dissolves last longer."""
_MARGIN = 24  # frames at 25 a second around a doubt that are looked at
_LOCAL = 20  # doubts are this far apart
_FLASH = 8  # frames at 25 a second that a flash may last after a jump
_SLIGHT = 1e-6


class Doubts:
    """Finds doubtful frames piece by piece, and keeps what the network says of them."""

    def __init__(self, config: ShotSettings, network: TransNet, scale: int) -> None:
        self.config, self.network, self.scale = config, network, scale
        self._windows: list[tuple[int, NDArray[np.float32], NDArray[np.float32]]] = []
        self._looked_until = 0

    def settle(self, evidence: Evidence, thumbs: Picture, base: int, core: slice) -> None:
        """Look at the doubtful ones among the frames `core`; the others are their context.

        `base` is the number of the first of `thumbs`.
        """
        if self.config.transnet == "off":
            return
        doubtful = np.ones(len(evidence), np.bool_)
        if self.config.transnet == "gated":
            doubtful = doubts(evidence, self.scale, self.config)
        for place in np.flatnonzero(doubtful[core]) + core.start + base:
            self._look_around(int(place), thumbs, base)

    def chances(self, count: int) -> Chances:
        """Give what was said of each of `count` frames."""
        found = Chances(np.zeros(count, np.float32), np.zeros(count, np.float32))
        step = STEP * self.scale
        for start, middle, extent in self._windows:
            stop = min(count, start + step * len(middle))
            found.middle[start:stop] = np.repeat(middle, step)[: stop - start]
            found.extent[start:stop] = np.repeat(extent, step)[: stop - start]
        return found

    def _look_around(self, place: int, thumbs: Picture, base: int) -> None:
        if place + _MARGIN * self.scale <= self._looked_until:
            return
        start = max(0, place - _MARGIN * self.scale, self._looked_until)
        step = STEP * self.scale
        frames = start + step * (np.arange(WINDOW) - KEPT.start) - base
        middle, extent = self.network.look(thumbs[frames.clip(0, len(thumbs) - 1)])
        self._windows.append((start, middle, extent))
        self._looked_until = start + step * len(middle)


def doubts(evidence: Evidence, scale: int, config: ShotSettings) -> Flags:
    """Flag frames around which there may be a transition that is not yet known.

    That is where the colours are others than shortly before and no known boundary is the cause,
    where frames are a mix, and where there is a sudden change too small for a cut.
    """
    unexplained = np.where(_explained(evidence, scale, config), 0.0, evidence.colours)
    inside = _inside(evidence, scale, config)
    flags = sudden_changes(evidence, config) & ~inside
    flags[peaks(unexplained, config.colour_change, _LOCAL * scale)] = True
    mix = np.where(inside, 0.0, config.mix_residual - evidence.mix)
    flags[peaks(mix, _SLIGHT, _LOCAL * scale)] = True
    return flags


def _inside(evidence: Evidence, scale: int, config: ShotSettings) -> Flags:
    """Flag the frames of fades and wipes: arithmetic knows where they begin and end."""
    flags = np.zeros(len(evidence), np.bool_)
    for span in fades(evidence, scale, config) + wiped(evidence, scale, config):
        flags[max(0, span.first) : span.stop] = True
    return flags


def _explained(evidence: Evidence, scale: int, config: ShotSettings) -> Flags:
    """Flag frames whose colours are compared across, or with, something known."""
    lag = LAG * scale
    between = _inside(evidence, scale, config) | hard_cuts(evidence, config)
    spread = np.convolve(between, np.ones(2 * lag, np.int64))[lag : lag + len(evidence)] > 0
    flash = flashes(evidence, config).astype(np.int64)
    bright = np.convolve(flash, np.ones(_FLASH * scale, np.int64))[: len(flash)] > 0
    padded = np.pad(bright, lag)
    return spread | padded[: -2 * lag] | padded[2 * lag :]
