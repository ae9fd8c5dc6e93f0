"""Divides shots into clips of three to six seconds, and names a key frame for each shot."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

from contentv.curation.cutting.shots import Shot
from contentv.curation.settings import ShotSettings
from contentv.curation.step import Footage, Span, clip_id

_ROUNDING = 1e-6  # seconds: the difference of two time stamps is off by less


def divide(
    shots: Sequence[Shot],
    footage: Footage,
    samples: Sequence[tuple[float, int]],
    config: ShotSettings,
) -> list[Span]:
    """Give the clips of each shot, then the picture that stands for it, in the order of time.

    `samples` are the times and time stamps of the pictures that were seen. A shot loses a trim at
    each boundary. What is left is cut at frames into parts as equal as can be, as few as
    `max_seconds` allows, none shorter than `min_seconds`; less than that gives no clip. The key
    frame is the sample nearest to the middle. A picture file is one picture.
    """
    if footage.kind == "picture":
        return [_picture(footage, 0, sample) for sample in samples[:1]]
    seen = [time for time, _ in samples]
    spans: list[Span] = []
    for shot in shots:
        first, stop = _kept(shot, config)
        if first >= stop:
            continue
        times = shot.times[first : stop + 1].tolist()
        for begin, end in _parts(times, config):
            spans.append(_clip(footage, shot, first + begin, first + end))
        inside = samples[bisect_left(seen, times[0]) : bisect_left(seen, times[-1])]
        middle = (shot.start + shot.end) / 2
        if inside:
            nearest = min(inside, key=lambda sample: abs(sample[0] - middle))
            spans.append(_picture(footage, shot.index, nearest))
    return spans


def _kept(shot: Shot, config: ShotSettings) -> tuple[int, int]:
    """Give the frames [first, stop) of a shot that its boundaries leave alone."""
    trims = {
        "start": 0.0,
        "end": 0.0,
        "cut": config.cut_trim,
        "gap": config.cut_trim,
        "dissolve": config.gradual_trim,
    }
    times = shot.times.tolist()
    first = bisect_left(times, shot.start + trims[shot.begin] - _ROUNDING)
    stop = bisect_right(times, shot.end - trims[shot.end_kind] + _ROUNDING) - 1
    return first, stop


def _parts(times: Sequence[float], config: ShotSettings) -> list[tuple[int, int]]:
    """Divide frames, given with the time of their end; of clips that fit, those that lose least.

    Where frames are far apart it may be that no division is exact: the last frames are given up.
    """
    shortest = config.min_seconds - _ROUNDING
    for last in range(len(times) - 1, 0, -1):
        length = times[last] - times[0]
        if length < shortest:
            return []
        fewest = max(1, math.ceil((length - _ROUNDING) / config.max_seconds))
        for count in range(fewest, int((length + _ROUNDING) / config.min_seconds) + 1):
            marks = _marks(times[: last + 1], count, config)
            if marks:
                return list(pairwise(marks))
    return []


def _marks(times: Sequence[float], count: int, config: ShotSettings) -> list[int]:
    """Give `count` + 1 frames that divide evenly, the first and the last among them, or none."""
    begin, end = times[0], times[-1]
    marks = [0]
    for number in range(1, count):
        left = count - number
        low = max(times[marks[-1]] + config.min_seconds, end - left * config.max_seconds)
        high = min(times[marks[-1]] + config.max_seconds, end - left * config.min_seconds)
        first = bisect_left(times, low - _ROUNDING)
        last = bisect_right(times, high + _ROUNDING) - 1
        if first > last:
            return []
        wanted = begin + (end - begin) * number / count
        marks.append(min(range(first, last + 1), key=lambda frame: abs(times[frame] - wanted)))
    return [*marks, len(times) - 1]


def _clip(footage: Footage, shot: Shot, first: int, stop: int) -> Span:
    stamps = int(shot.stamps[first]), int(shot.stamps[stop])
    return Span(
        clip_id=clip_id(footage.video_id, *stamps, footage.time_base),
        kind="video",
        shot=shot.index,
        start=float(shot.times[first]),
        end=float(shot.times[stop]),
        start_pts=stamps[0],
        end_pts=stamps[1],
    )


def _picture(footage: Footage, shot: int, sample: tuple[float, int]) -> Span:
    time, stamp = sample
    return Span(
        clip_id=clip_id(footage.video_id, stamp, stamp, footage.time_base),
        kind="picture",
        shot=shot,
        start=time,
        end=time,
        start_pts=stamp,
        end_pts=stamp,
    )
