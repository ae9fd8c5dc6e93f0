import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contentv.data.buckets import (
    DURATIONS,
    RATIOS,
    Bucket,
    BucketConfig,
    Buckets,
    Fit,
    Misfit,
    Size,
    bucket_name,
    ratio_name,
    sides,
)

STAGE3 = Buckets(BucketConfig())
TWO_SIZES = Buckets(BucketConfig(areas=(288 * 288, 432 * 768)))

sizes = st.builds(
    Size,
    frames=st.integers(1, 3000),
    height=st.integers(16, 4000),
    width=st.integers(16, 4000),
    fps=st.floats(1, 240),
    is_picture=st.just(value=False),
)


def fit(size: Size, buckets: Buckets = STAGE3) -> Fit:
    found = buckets.fit(size)
    assert isinstance(found, Fit), found
    return found


def misfit(size: Size, buckets: Buckets = STAGE3) -> Misfit:
    found = buckets.fit(size)
    assert isinstance(found, Misfit), found
    return found


def video(frames: int, height: int, width: int, fps: float = 24.0) -> Size:
    return Size(frames, height, width, fps, is_picture=False)


def test_the_papers_shapes_are_buckets() -> None:
    """Table 2's 125x432x768, and 720p, the largest that was trained."""
    assert Bucket(125, 432, 768) in STAGE3.shapes
    assert Bucket(125, 720, 1280) in Buckets(BucketConfig(areas=(720 * 1280,))).shapes
    assert Bucket(29, 288, 288) in Buckets(BucketConfig(areas=(288 * 288,))).shapes
    videos = [shape for shape in STAGE3.shapes if shape.frames > 1]
    assert len(videos) == 7 * 5
    assert len(STAGE3.shapes) == 7 * 6


def test_durations_are_whole_seconds_at_24_fps() -> None:
    assert [count // 24 for count in DURATIONS] == [1, 2, 3, 4, 5]
    assert all(count % 4 == 1 for count in DURATIONS)
    assert DURATIONS[-1] == 125


@settings(deadline=None)
@given(
    area=st.integers(64 * 64, 2000 * 2000),
    ratio=st.sampled_from(RATIOS),
    multiple=st.sampled_from([8, 16, 32]),
)
def test_sides_divide_keep_the_area_and_turn_with_the_ratio(
    area: int, ratio: tuple[int, int], multiple: int
) -> None:
    height, width = sides(area, ratio, multiple)
    assert height % multiple == 0
    assert width % multiple == 0
    assert 0 < height * width <= area
    assert sides(area, (ratio[1], ratio[0]), multiple) == (width, height)


@settings(deadline=None)
@given(area=st.integers(256 * 256, 2000 * 2000), ratio=st.sampled_from(RATIOS))
def test_sides_are_near_the_ratio_and_the_area(area: int, ratio: tuple[int, int]) -> None:
    height, width = sides(area, ratio, 16)
    assert abs(math.log(width * ratio[1] / (height * ratio[0]))) < 0.1
    assert height * width > 0.8 * area


@settings(deadline=None)
@given(sizes)
def test_a_fit_can_be_carried_out(size: Size) -> None:
    """Nothing is enlarged, no frame is asked for that is not there, and none is shown twice."""
    found = TWO_SIZES.fit(size)
    if isinstance(found, Misfit):
        assert found.detail
        return
    assert found.bucket in TWO_SIZES.shapes
    assert found.bucket.height <= found.height <= size.height
    assert found.bucket.width <= found.width <= size.width
    assert found.bucket.height == found.height or found.bucket.width == found.width
    assert 0 <= found.cropped <= TWO_SIZES.config.max_crop
    for start in (0.0, 0.3, 1.0):
        times = found.times(start)
        assert len(times) == found.bucket.frames
        assert times[0] >= 0
        assert times[-1] < size.frames
        assert len(set(times)) == len(times)
        top, left = found.corner(start, start)
        assert 0 <= top <= found.height - found.bucket.height
        assert 0 <= left <= found.width - found.bucket.width


@settings(deadline=None)
@given(sizes)
def test_the_nearest_ratio_and_the_longest_duration_are_taken(size: Size) -> None:
    found = STAGE3.fit(size)
    if isinstance(found, Fit):
        aspect = math.log(size.width / size.height)
        errors = [abs(math.log(s.width / s.height) - aspect) for s in STAGE3.shapes]
        mine = abs(math.log(found.bucket.width / found.bucket.height) - aspect)
        assert mine == min(errors)
        longer = [count for count in DURATIONS if found.bucket.frames < count <= found.frames]
        assert longer == []


@settings(deadline=None)
@given(sizes)
def test_turning_a_clip_turns_its_bucket(size: Size) -> None:
    turned = Size(size.frames, size.width, size.height, size.fps, is_picture=False)
    one, other = STAGE3.fit(size), STAGE3.fit(turned)
    if isinstance(one, Fit) and isinstance(other, Fit):
        assert (one.bucket.height, one.bucket.width) == (other.bucket.width, other.bucket.height)
    else:
        assert isinstance(one, Misfit)
        assert isinstance(other, Misfit)
        assert one.reason == other.reason


def test_a_bucket_fits_itself_whole() -> None:
    for shape in STAGE3.shapes:
        size = Size(shape.frames, shape.height, shape.width, 24.0, is_picture=shape.frames == 1)
        found = fit(size)
        assert found.bucket == shape
        assert found.cropped == 0
        assert found.times(0.5) == tuple(range(shape.frames))


def test_of_several_resolutions_the_largest_that_needs_no_enlarging() -> None:
    assert fit(video(30, 432, 768), TWO_SIZES).bucket == Bucket(29, 432, 768)
    small = fit(video(30, 430, 768), TWO_SIZES).bucket
    assert small.height * small.width <= 288 * 288


@pytest.mark.parametrize(
    ("fps", "frames", "usable"),
    [
        (24, 125, 125),
        (23.976, 125, 125),
        (25, 125, 125),
        (48, 249, 125),
        (30, 156, 125),
        (60, 310, 124),
    ],
)
def test_frames_are_left_out_to_reach_the_trainings_fps(
    fps: float, frames: int, usable: int
) -> None:
    found = fit(video(frames, 432, 768, fps))
    assert found.frames == usable
    assert found.bucket.frames == (125 if usable >= 125 else 101)


def test_start_and_corner_reach_both_ends() -> None:
    found = fit(video(130, 480, 960))
    assert found.times(0.0)[0] == 0
    assert found.times(1.0)[-1] == 129
    assert found.corner(0, 0) == (0, 0)
    top, left = found.corner(1, 1)
    assert top + found.bucket.height == found.height
    assert left + found.bucket.width == found.width


@pytest.mark.parametrize(
    ("size", "reason", "words"),
    [
        (video(28, 720, 1280), "too_short", "28 frames at 24 fps; the shortest bucket has 29"),
        (video(48, 720, 1280, 60), "too_short", "19 frames at 24 fps"),
        (video(100, 720, 1280, 12), "too_slow", "12 fps, training 24"),
        (video(100, 240, 426), "too_small", "240x426: its smallest bucket is 432x768"),
        (video(100, 480, 4000), "too_narrow", "more than max_crop=0.5"),
    ],
)
def test_what_is_dropped_says_why(size: Size, reason: str, words: str) -> None:
    found = misfit(size)
    assert found.reason == reason
    assert words in found.detail


def test_pictures_and_videos_go_where_they_are_wanted() -> None:
    picture = Size(1, 600, 600, 0.0, is_picture=True)
    assert fit(picture).bucket == Bucket(1, 576, 576)
    only_videos = Buckets(BucketConfig(frames=(29,)))
    only_pictures = Buckets(BucketConfig(frames=(1,)))
    assert misfit(picture, only_videos).reason == "no_pictures"
    assert misfit(video(30, 600, 600), only_pictures).reason == "no_videos"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"frames": (18,)}, "must be 4k\\+1; use 17 or 21"),
        ({"frames": (0,)}, "must be 4k\\+1; use 1 or 5"),
        ({"areas": (500,)}, "use 1024 or more"),
        ({"areas": ()}, "at least 1 item"),
        ({"fps": 0}, "greater than 0"),
    ],
)
def test_impossible_grids_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        BucketConfig(**settings)  # type: ignore[arg-type]


def test_names() -> None:
    assert bucket_name(Bucket(125, 432, 768)) == "125x432x768"
    assert [ratio_name(Bucket(1, high * 16, wide * 16)) for wide, high in RATIOS] == [
        f"{wide}:{high}" for wide, high in RATIOS
    ]
