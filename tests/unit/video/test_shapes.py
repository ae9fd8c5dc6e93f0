import pytest
from hypothesis import given
from hypothesis import strategies as st

from contentv.video.shapes import LatentShape, ScaleFactors, VideoShape, round_frames


def test_the_published_sizes() -> None:
    shape = VideoShape(frames=125, height=432, width=768)
    assert ScaleFactors().latent(shape) == LatentShape(frames=32, height=54, width=96)


@given(st.builds(LatentShape, *[st.integers(1, 100)] * 3), st.integers(1, 8), st.integers(1, 16))
def test_latent_and_back(latent: LatentShape, time: int, space: int) -> None:
    factors = ScaleFactors(time, space)
    assert factors.latent(factors.pixels(latent)) == latent


@pytest.mark.parametrize("size", [(18, 64, 64), (17, 65, 64), (17, 64, 60)])
def test_a_shape_that_does_not_divide_is_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"4k\+1 frames, sides divisible by 8"):
        ScaleFactors().latent(VideoShape(*size))


@given(st.integers(1, 1000))
def test_rounding_frames_goes_down_to_4k_plus_1(frames: int) -> None:
    rounded = round_frames(frames)
    assert rounded % 4 == 1
    assert frames - 4 < rounded <= frames


def test_no_frames_cannot_be_rounded() -> None:
    with pytest.raises(ValueError, match="frames=0"):
        round_frames(0)
