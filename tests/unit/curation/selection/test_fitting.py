from hypothesis import given
from hypothesis import strategies as st

from contentv.curation.selection.fitting import in_space, in_time
from contentv.data.buckets import DURATIONS, BucketConfig, Buckets, Fit, Misfit, Size

GRIDS = [
    Buckets(BucketConfig(areas=areas, frames=frames, max_crop=crop))
    for areas in [(288 * 288,), (288 * 288, 432 * 768)]
    for frames in [(1,), (1, 29), DURATIONS]
    for crop in (0.0, 0.2, 0.5)
]

sizes = st.builds(
    Size,
    frames=st.integers(1, 400),
    height=st.integers(16, 2200),
    width=st.integers(16, 2200),
    fps=st.sampled_from([8.0, 12.0, 23.976, 24.0, 25.0, 29.97, 48.0, 60.0]),
    is_picture=st.just(value=False),
)
pictures = st.builds(
    Size,
    frames=st.just(1),
    height=st.integers(16, 2200),
    width=st.integers(16, 2200),
    fps=st.just(0.0),
    is_picture=st.just(value=True),
)


@given(st.one_of(sizes, pictures), st.sampled_from(GRIDS))
def test_space_and_time_decide_apart(size: Size, buckets: Buckets) -> None:
    """What is found apart is what `Buckets.fit` finds for the whole clip."""
    known = size.is_picture
    frame = in_space(buckets, picture=known, width=size.width, height=size.height)
    length = in_time(buckets, picture=known, frames=size.frames, fps=size.fps)
    whole = buckets.fit(size)
    if isinstance(whole, Misfit):
        assert whole.reason in (frame, length)
    else:
        assert isinstance(whole, Fit)
        assert (whole.bucket.height, whole.bucket.width) == frame
        assert whole.bucket.frames == length
