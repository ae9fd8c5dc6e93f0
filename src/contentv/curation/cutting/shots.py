"""Finds the shots of a video from its thumbnails, in an amount of memory that does not grow."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from contentv.curation.cutting.boundaries import (
    Boundary,
    Kind,
    gradual,
    hard_cuts,
    merged,
    seen,
)
from contentv.curation.cutting.doubts import Doubts
from contentv.curation.cutting.evidence import Evidence, joined, measure, scale_of
from contentv.curation.cutting.transnet import TransNet
from contentv.curation.settings import ShotSettings
from contentv.curation.step import Footage, Picture

VERSION = 1
"""Goes up whenever equal input may give other shots."""
CONTEXT = 200
"""Frames at 25 a second before and after those in work on which what is said of them depends."""
_UNUSUAL = 4.0


@dataclass(frozen=True)
class Shot:
    """Frames that follow each other in [start, end), in seconds after the first frame and in pts.

    `begin` and `end_kind` say what is there: start, end, cut, dissolve (also fades and wipes) or
    gap. The probabilities are TransNetV2's where it decided, 1 where arithmetic did. `times` and
    `stamps` are those of each frame, and of the end.
    """

    index: int
    start: float
    end: float
    start_pts: int
    end_pts: int
    begin: Kind
    end_kind: Kind
    begin_probability: float
    end_probability: float
    times: NDArray[np.float64] = field(repr=False, compare=False)
    stamps: NDArray[np.int64] = field(repr=False, compare=False)


class ShotFinder:
    """Finds shots with one set of settings; TransNetV2 is loaded once, when first needed.

    `chunk` is how many frames are worked on together; it changes nothing but memory and speed.
    """

    def __init__(self, config: ShotSettings, *, chunk: int = 1000) -> None:
        self.config, self.chunk = config, chunk
        self.network = TransNet()

    def watch(self, footage: Footage) -> "ShotWatcher":
        """Begin with a video."""
        return ShotWatcher(self, footage)


class ShotWatcher:
    """Takes each frame of one video."""

    def __init__(self, finder: ShotFinder, footage: Footage) -> None:
        self.finder, self.footage = finder, footage
        self.scale = scale_of(footage.fps)
        self._context = CONTEXT * self.scale
        self._times: list[float] = []
        self._stamps: list[int] = []
        self._held: list[Picture] = []  # from frame `_base` on
        self._base = self._done = 0
        self._pieces: list[Evidence] = []
        self._doubts = Doubts(finder.config, finder.network, self.scale)

    def see(self, time: float, pts: int, thumb: Picture) -> None:
        """Take the next frame: ``[27 48 3]`` RGB, shown `time` seconds after the first."""
        self._times.append(time)
        self._stamps.append(pts)
        self._held.append(thumb)
        if len(self._times) >= self._done + self.finder.chunk + self._context:
            self._work(self._done + self.finder.chunk)

    def shots(self) -> list[Shot]:
        """Give the shots, after the last frame."""
        if self._done < len(self._times):
            self._work(len(self._times))
        if not self._times:
            return []
        return self._between(self._boundaries())

    def _work(self, until: int) -> None:
        """Measure the frames up to `until`, and forget those that nothing depends on any more."""
        thumbs = np.stack(self._held)
        evidence = measure(thumbs, self.footage.fps, self.finder.config)
        core = slice(self._done - self._base, until - self._base)
        self._doubts.settle(evidence, thumbs, self._base, core)
        self._pieces.append(evidence[core])
        self._done = until
        keep = max(self._base, until - self._context)
        del self._held[: keep - self._base]
        self._base = keep

    def _boundaries(self) -> list[Boundary]:
        config, scale = self.finder.config, self.scale
        evidence = joined(self._pieces)
        self._pieces = [evidence]
        cuts = np.flatnonzero(hard_cuts(evidence, config)).tolist()
        gaps = np.flatnonzero(np.diff(self._times) > self._longest_step()) + 1
        found = [Boundary(frame, frame, "cut") for frame in cuts]
        found += [Boundary(frame, frame, "gap") for frame in gaps.tolist()]
        found += gradual(evidence, scale, config)
        if config.transnet != "off":
            found += seen(self._doubts.chances(len(evidence)), evidence, scale, config)
        return merged(found, 2 * scale)

    def _step(self) -> tuple[float, int]:
        """How long a frame is usually shown, in seconds and in time stamps."""
        if len(self._times) > 1:
            return float(np.median(np.diff(self._times))), int(np.median(np.diff(self._stamps)))
        seconds = 1 / self.footage.fps if self.footage.fps else 1.0
        return seconds, max(1, round(seconds / self.footage.time_base))

    def _longest_step(self) -> float:
        return max(self.finder.config.gap_seconds, _UNUSUAL * self._step()[0])

    def _between(self, boundaries: list[Boundary]) -> list[Shot]:
        count = len(self._times)
        edges = [Boundary(0, 0, "start"), *boundaries, Boundary(count, count, "end")]
        shots: list[Shot] = []
        for before, after in pairwise(edges):
            first, stop = max(before.stop, 0), min(after.first, count)
            if first < stop:
                shots.append(self._shot(len(shots), (first, stop), before, after))
        return shots

    def _shot(self, index: int, frames: tuple[int, int], before: Boundary, after: Boundary) -> Shot:
        first, stop = frames
        times = np.array(self._times[first : stop + 1])
        stamps = np.array(self._stamps[first : stop + 1], np.int64)
        if after.kind == "gap" or stop == len(self._times):
            seconds, ticks = self._step()
            times = np.append(times[: stop - first], times[stop - first - 1] + seconds)
            stamps = np.append(stamps[: stop - first], stamps[stop - first - 1] + ticks)
        return Shot(
            index=index,
            start=float(times[0]),
            end=float(times[-1]),
            start_pts=int(stamps[0]),
            end_pts=int(stamps[-1]),
            begin=before.kind,
            end_kind=after.kind,
            begin_probability=before.probability,
            end_probability=after.probability,
            times=times,
            stamps=stamps,
        )
