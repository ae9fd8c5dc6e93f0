"""Turns what is known of frames into boundaries between shots: points, or spans of frames."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from contentv.curation.cutting.cuts import prominence
from contentv.curation.cutting.evidence import Evidence
from contentv.curation.settings import ShotSettings

Kind: TypeAlias = Literal["start", "end", "cut", "dissolve", "gap"]
Flags = NDArray[np.bool_]

RISE = 24
"""Frames at 25 a second in which a fade reaches black, at most; and how far away light is."""
_FLAT = 4.0  # contrast of an empty picture, of 127
_FADED = 0.15  # part of the contrast around it that is left of a faded picture
_RISING = 1.015  # a fade gains more contrast than this from frame to frame
_CAME_BACK = 0.5
_APART = 20  # two wipes cannot be nearer, in frames at 25 a second
_STRENGTH: tuple[Kind, ...] = ("cut", "gap", "dissolve")
_SHORT = 4  # frames at 25 a second: the network sees two, it may have been a hard cut
_OWN = 8  # frames at 25 a second over which TransNetV2 speaks of a hard cut


@dataclass(frozen=True)
class Boundary:
    """Frames [first, stop) belong to no shot; a hard cut has none and stands before `first`."""

    first: int
    stop: int
    kind: Kind
    probability: float = 1.0


@dataclass(frozen=True)
class Chances:
    """What TransNetV2 said of each frame; 0 where it did not look."""

    middle: NDArray[np.float32]
    extent: NDArray[np.float32]


def hard_cuts(evidence: Evidence, config: ShotSettings) -> Flags:
    """Flag the first frame of each new shot after a hard cut."""
    return _jumps(evidence, config) & (evidence.back > _CAME_BACK)


def flashes(evidence: Evidence, config: ShotSettings) -> Flags:
    """Flag frames at which the picture jumps away and soon returns, or does return."""
    return _jumps(evidence, config) & (evidence.back <= _CAME_BACK)


def sudden_changes(evidence: Evidence, config: ShotSettings) -> Flags:
    """Flag frames that may be a hard cut between two shots that look alike."""
    content = evidence.content
    beside = np.maximum(_shifted(content, 1), _shifted(content, -1))
    peaks = (content >= config.sudden_value) & (content >= beside) & (prominence(content) >= 2)
    return peaks & (evidence.back > _CAME_BACK) & ~_jumps(evidence, config)


def fades(evidence: Evidence, scale: int, config: ShotSettings) -> list[Boundary]:
    """Find pictures that vanish: black, or any even colour, with the slopes on both sides."""
    contrast = evidence.contrast
    reach = RISE * scale
    before, after = _highest(contrast, -reach), _highest(contrast, reach)
    empty = contrast < np.maximum(_FLAT, _FADED * np.minimum(before, after))
    flash = flashes(evidence, config)
    spans = []
    for first, stop in runs(empty):
        is_same = evidence.colours[(first + stop) // 2] < config.colour_change
        is_flash = is_same or flash[first : stop + 1].any()
        if is_flash and stop - first <= config.flash_seconds * 25 * scale:
            continue  # a flash, or a blink
        begin = _up_the_slope(contrast, first, -1, reach)
        end = _up_the_slope(contrast, stop - 1, 1, reach)
        spans.append(Boundary(begin, end + 1, "dissolve"))
    return spans


def wiped(evidence: Evidence, scale: int, config: ShotSettings) -> list[Boundary]:
    """Find lines that cross the picture and leave other colours behind."""
    score = np.where(evidence.wipe_colours >= config.wipe_colours, evidence.wipe, 0.0)
    sudden = hard_cuts(evidence, config) | flashes(evidence, config)
    spans = []
    for centre in peaks(score, config.wipe_score, _APART * scale):
        length = int(evidence.wipe_length[centre])
        first = centre - length // 2
        if not sudden[first : first + length + 1].any():
            spans.append(Boundary(first, first + length, "dissolve"))
    return spans


def mixed(evidence: Evidence, config: ShotSettings) -> list[Boundary]:
    """Find frames that are mixes of pictures with other colours."""
    good = (evidence.mix < config.mix_residual) & (evidence.mix_colours >= config.mix_colours)
    spans = []
    for centre in np.flatnonzero(good).tolist():
        length = int(evidence.mix_length[centre])
        spans.append(Boundary(centre - length // 2, centre + length - length // 2, "dissolve"))
    return spans


def gradual(evidence: Evidence, scale: int, config: ShotSettings) -> list[Boundary]:
    """Find the fades, wipes and dissolves that arithmetic sees."""
    straight = fades(evidence, scale, config) + wiped(evidence, scale, config)
    return straight + mixed(evidence, config)


def seen(chances: Chances, evidence: Evidence, scale: int, config: ShotSettings) -> list[Boundary]:
    """Find what TransNetV2 holds for a transition, but hard cuts and flashes known before."""
    likely = np.maximum(chances.middle, chances.extent)
    cuts, flash = hard_cuts(evidence, config), flashes(evidence, config)
    near = 2 * scale
    spans = []
    for first, stop in runs(likely > config.transnet_probability):
        around = slice(max(0, first - near), stop + near)
        if stop - first <= _OWN * scale and (cuts[around].any() or flash[around].any()):
            continue
        found = _sudden(evidence, first, stop, scale, config) or Boundary(first, stop, "dissolve")
        spans.append(replace(found, probability=float(likely[first:stop].max())))
    return spans


def merged(boundaries: Iterable[Boundary], near: int) -> list[Boundary]:
    """Sort boundaries, and make one of those that overlap or are less than `near` frames apart."""
    result: list[Boundary] = []
    for each in sorted(boundaries, key=lambda b: (b.first, b.stop)):
        if result and each.first < result[-1].stop + near:
            result[-1] = _one(result[-1], each)
        else:
            result.append(each)
    return result


def runs(flags: Flags) -> list[tuple[int, int]]:
    """Give [first, stop) of each row of flags that are set."""
    edges = np.flatnonzero(np.diff(np.pad(flags.astype(np.int8), 1)))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]


def peaks(values: NDArray[np.float64], least: float, apart: int) -> list[int]:
    """Give the places that have `least` and more than all others less than `apart` away."""
    highest = np.maximum(_highest(values, -apart), _highest(values, apart))
    found: list[int] = []
    for place in np.flatnonzero((values >= least) & (values == highest)).tolist():
        if not found or place - found[-1] > apart:
            found.append(place)
    return found


def _one(one: Boundary, other: Boundary) -> Boundary:
    kind = max(one.kind, other.kind, key=_STRENGTH.index)
    probability = max(one.probability, other.probability)
    return Boundary(one.first, max(one.stop, other.stop), kind, probability)


def _jumps(evidence: Evidence, config: ShotSettings) -> Flags:
    content = evidence.content
    return (content >= config.cut_value) & (prominence(content) >= config.cut_ratio)


def _sudden(
    evidence: Evidence, first: int, stop: int, scale: int, config: ShotSettings
) -> Boundary | None:
    """Say where in a short span the content jumps, if it does: a hard cut is exact to the frame."""
    if stop - first > _SHORT * scale:
        return None
    last = stop + 2 * scale
    jump = first + int(evidence.content[first:last].argmax())
    peak = sudden_changes(evidence[max(0, jump - 2 * _OWN) : jump + 2 * _OWN], config)
    return Boundary(jump, jump, "cut") if peak[min(jump, 2 * _OWN)] else None


def _shifted(values: NDArray[np.float64], by: int) -> NDArray[np.float64]:
    result = np.zeros_like(values)
    if by > 0:
        result[by:] = values[:-by]
    else:
        result[:by] = values[-by:]
    return result


def _highest(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Give the highest of each value and those up to `reach` after it, before it if negative."""
    size = abs(reach)
    padded = np.pad(values, (size, 0) if reach < 0 else (0, size))
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, size + 1).max(axis=1))


def _up_the_slope(contrast: NDArray[np.float64], place: int, way: int, reach: int) -> int:
    """Go from an empty frame to where the contrast rises no more."""
    for _ in range(reach):
        following = place + way
        if not 0 <= following < len(contrast):
            return place
        if contrast[following] < _RISING * max(float(contrast[place]), 1.0):
            return place
        place = following
    return place
