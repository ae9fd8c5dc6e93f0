"""Which text was laid over the picture: lines that stay where they are while the clip goes on.

All boxes are in parts of the picture; `aspect` is its width over its height.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from contentv.curation.scoring.boxes import groups, hull, likeness, overlap
from contentv.curation.settings import TextSettings
from contentv.curation.step import Box

Samples: TypeAlias = Sequence[Sequence[Box]]
"""The lines of text in each sample of a clip."""

_WORD_GAP = 1.5  # heights of a line between two words of it
_SAME = 0.02  # parts of the picture by which a subtitle's middle or left edge wanders
_LONG = 4  # heights: shorter words stand in the middle too often by chance
_OTHER = 0.1  # part of its width by which another subtitle differs
_ROWS = 200  # levels that are told apart in a source: fewer pixels than a line is high


def lines(boxes: Sequence[Box], aspect: float, settings: TextSettings) -> list[Box]:
    """Join words to lines; leave out boxes too thick to be a line of text."""
    thin = [box for box in boxes if min(box.width * aspect, box.height) <= settings.max_line]
    joined: list[Box] = []
    for box in sorted(thin, key=lambda box: (box.x, box.y)):
        for place, line in enumerate(joined):
            gap = (box.x - line.x - line.width) * aspect
            if _level(line, box) and gap <= _WORD_GAP * max(line.height, box.height):
                joined[place] = hull([line, box])
                break
        else:
            joined.append(box)
    return joined


def static(samples: Samples, settings: TextSettings) -> list[Box]:
    """Find lines that stand at one place in most samples, as a caption or a text logo does."""
    need = max(2, settings.static_share * len(samples))
    early = samples[: int(len(samples) - need) + 1]  # what is in so many is in one of these

    def stands(line: Box) -> bool:
        alike = (
            any(likeness(at, line) >= settings.static_iou for at in shown) for shown in samples
        )
        return sum(alike) >= need

    return groups(line for line in _all(early) if stands(line))


class SourceBands:
    """What all clips of a source say: the levels at which its subtitles stand.

    Clips of one source share a level when it holds text in at least `source_share` of all samples
    and in at least `source_clips` clips. One such line is then enough to know a subtitle.
    """

    def __init__(self, clips: Sequence[Samples], aspect: float, settings: TextSettings) -> None:
        self.aspect, self.settings = aspect, settings
        outer = [[self._outer(shown) for shown in samples] for samples in clips]
        levels = self._levels(outer)
        shared = [line for samples in outer for line in _all(samples) if levels[_row(line)]]
        self.boxes = groups(shared)

    def bands(self, samples: Samples) -> list[Box]:
        """Find the bands of a clip that hold subtitles, or other lines laid over its edges.

        A line in the outer quarter counts if its level holds text in >= 40 % of the samples (and
        in two, where there are two); if two texts of another width were set there about the same
        middle or left edge; if the source has a band there; or if it stands exactly in the middle
        of the width, where a text of the scene is by chance only.
        """
        outer = [self._outer(shown) for shown in samples]
        return groups(line for line in _all(outer) if self._laid_over(line, outer))

    def around(self, bands: Sequence[Box]) -> list[Box]:
        """Find the source's bands at a clip's: where its text may have stood between samples."""
        return [box for box in self.boxes if any(_near(box, band) for band in bands)]

    def _laid_over(self, line: Box, outer: Samples) -> bool:
        need = max(min(2, len(outer)), self.settings.band_share * len(outer))
        seen = [next((at for at in shown if _level(at, line)), None) for shown in outer]
        there = [at for at in seen if at]
        return (
            len(there) >= need
            or any(_set_anew(*pair) for pair in combinations(there, 2))
            or any(overlap(line, box) > 0 for box in self.boxes)
            or self._in_the_middle(line)
        )

    def _in_the_middle(self, line: Box) -> bool:
        is_long = line.width * self.aspect >= _LONG * line.height
        return is_long and abs(line.x + line.width / 2 - 0.5) <= self.settings.centred

    def _outer(self, shown: Sequence[Box]) -> list[Box]:
        """Lines written across, whose middle is in the outer part of the picture's height."""
        zone = self.settings.zone
        return [
            line
            for line in shown
            if line.width * self.aspect > line.height
            and not zone < line.y + line.height / 2 < 1 - zone
        ]

    def _levels(self, clips: Sequence[Samples]) -> NDArray[np.bool_]:
        in_samples, in_clips = np.zeros(_ROWS, int), np.zeros(_ROWS, int)
        for samples in clips:
            rows = [{row for line in shown for row in _middle(line)} for shown in samples]
            for held in rows:
                in_samples[list(held)] += 1
            in_clips[list(set().union(*rows))] += 1
        need = self.settings.source_share * sum(map(len, clips))
        return (in_samples >= need) & (in_clips >= self.settings.source_clips)


def _all(samples: Samples) -> list[Box]:
    return [line for shown in samples for line in shown]


def _level(first: Box, second: Box) -> bool:
    """Whether two lines stand at the same height and are about as high."""
    low, high = sorted((first.height, second.height))
    apart = abs(first.y + first.height / 2 - second.y - second.height / 2)
    return apart <= low / 2 and high <= 2 * low


def _set_anew(first: Box, second: Box) -> bool:
    """Whether two lines of one level are different texts, set by the same rule."""
    longer = max(first.width, second.width)
    middle = first.x + first.width / 2 - second.x - second.width / 2
    aligned = min(abs(first.x - second.x), abs(middle)) <= _SAME
    return aligned and abs(first.width - second.width) > _OTHER * longer


def _near(box: Box, band: Box) -> bool:
    """Whether less than the height of either is between them."""
    gap = max(box.y - band.y - band.height, band.y - box.y - box.height)
    return gap < min(box.height, band.height)


def _row(line: Box) -> int:
    return min(int((line.y + line.height / 2) * _ROWS), _ROWS - 1)


def _middle(line: Box) -> range:
    """Rows of the middle half of a line: neighbours of one level share most of them."""
    first = int((line.y + line.height / 4) * _ROWS)
    return range(first, min(int((line.y + line.height * 3 / 4) * _ROWS) + 1, _ROWS))
