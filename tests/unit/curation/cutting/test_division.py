import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contentv.curation.cutting.boundaries import Kind
from contentv.curation.cutting.division import divide
from contentv.curation.cutting.shots import Shot
from contentv.curation.settings import ShotSettings
from contentv.curation.step import Footage, Span

CONFIG = ShotSettings()
BASE = Fraction(1, 90000)
FOOTAGE = Footage("id", Path("a.mp4"), "video", 640, 360, 25.0, BASE, 0)
KINDS: tuple[Kind, ...] = ("start", "end", "cut", "dissolve", "gap")
TRIM = {"start": 0.0, "end": 0.0, "cut": 0.25, "gap": 0.25, "dissolve": 0.5}


def shot(stamps: Sequence[int], begin: Kind = "start", end: Kind = "end") -> Shot:
    times = np.array([float(stamp * BASE) for stamp in stamps])
    ends = times[0], times[-1]
    return Shot(
        0, *ends, stamps[0], stamps[-1], begin, end, 1.0, 1.0, times, np.array(stamps, np.int64)
    )


def steady(fps: float, frames: int, first: int = 0) -> list[int]:
    return [first + round(frame * 90000 / fps) for frame in range(frames + 1)]


def clips(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.kind == "video"]


@settings(deadline=None)
@given(st.floats(8, 120), st.integers(1, 2000), st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_clips_cover_what_the_trims_leave_and_last_three_to_six_seconds(
    fps: float, frames: int, begin: Kind, end: Kind
) -> None:
    one = shot(steady(fps, frames, 4321), begin, end)
    found = clips(divide([one], FOOTAGE, [], CONFIG))
    times = one.times
    kept = times[(times >= one.start + TRIM[begin] - 1e-6) & (times <= one.end - TRIM[end] + 1e-6)]
    length = kept[-1] - kept[0] if len(kept) > 1 else 0.0
    if length < 3:
        assert not found
        return
    assert all(3 - 1e-6 <= span.end - span.start <= 6 + 1e-6 for span in found)
    assert [span.end for span in found[:-1]] == [span.start for span in found[1:]]
    assert found[0].start == kept[0]
    # Only between 6 s and the next frame but one may there be no way to divide everything.
    lost = kept[-1] - found[-1].end
    assert lost <= (1e-6 if length >= 9 or length <= 6 else 1 / fps + 1e-4)
    assert len(found) <= max(1, math.ceil(length / 6)) + 1


@settings(deadline=None)
@given(st.lists(st.integers(1, 90000), min_size=1, max_size=40))
def test_uneven_frames_never_give_a_clip_of_another_length(steps: list[int]) -> None:
    one = shot(np.cumsum([0, *steps]).tolist())
    found = clips(divide([one], FOOTAGE, [], CONFIG))
    stamps = set(one.stamps.tolist())
    for span in found:
        assert 3 - 1e-6 <= span.end - span.start <= 6 + 1e-6
        assert {span.start_pts, span.end_pts} <= stamps
        assert span.start == pytest.approx(float(span.start_pts * BASE))


def test_parts_are_as_equal_as_frames_allow() -> None:
    spans = clips(divide([shot(steady(25, 500))], FOOTAGE, [], CONFIG))
    assert [round((span.end - span.start) * 25) for span in spans] == [125, 125, 125, 125]


def test_each_shot_has_one_picture_near_its_middle() -> None:
    long, short = shot(steady(25, 250)), shot(steady(25, 50, 10 * 90000))
    samples = [(at + 0.5, (2 * at + 1) * 45000) for at in range(12)]
    pictures = [
        span for span in divide([long, short], FOOTAGE, samples, CONFIG) if span.kind == "picture"
    ]
    assert [(span.start, span.end, span.start_pts) for span in pictures] == [
        (4.5, 4.5, 405000), (10.5, 10.5, 945000),
    ]  # fmt: skip
    assert all(span.holds(span.start) and not span.holds(span.start + 1) for span in pictures)


def test_a_picture_is_not_taken_from_a_transition() -> None:
    one = shot(steady(25, 25), "dissolve", "end")
    assert not divide([one], FOOTAGE, [(0.4, 36000)], CONFIG)
    assert len(divide([one], FOOTAGE, [(0.4, 36000), (0.6, 54000)], CONFIG)) == 1


def test_a_picture_file_is_one_picture() -> None:
    footage = Footage("id", Path("a.png"), "picture", 640, 360, 0.0, Fraction(1), 0)
    [span] = divide([], footage, [(0.0, 0)], CONFIG)
    assert (span.kind, span.start, span.end, span.shot) == ("picture", 0.0, 0.0, 0)


def test_names_tell_clips_apart_and_say_nothing_of_the_file_s_name() -> None:
    one = shot(steady(25, 1000))
    spans = divide([one], FOOTAGE, [(4.5, 405000)], CONFIG)
    assert len({span.clip_id for span in spans}) == len(spans)
    moved = Footage("id", Path("b.mp4"), "video", 640, 360, 25.0, BASE, 0)
    assert divide([one], moved, [(4.5, 405000)], CONFIG) == spans


def test_clips_that_could_not_always_divide_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"use 2\.5 or less"):
        ShotSettings(min_seconds=3, max_seconds=5)
