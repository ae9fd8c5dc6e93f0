import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contentv.base.types import Frame
from contentv.curation.cutting.wipes import wipes


def wipe(seed: int, length: int, way: int, still: int = 60) -> Frame:
    one, other = np.random.default_rng(seed).integers(0, 256, (2, 27, 48, 3)).astype(np.uint8)
    frames = [one] * still
    axis, side = (1, 48) if way < 2 else (0, 27)
    place = np.arange(side) + 0.5
    place = side - place if way % 2 else place
    for number in range(1, length + 1):
        shown = place < number / (length + 1) * side
        frames.append(np.where(np.expand_dims(shown, (1 - axis, 2)), other, one))
    return np.stack([*frames, *[other] * still])


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 36), st.integers(0, 3), st.integers(0, 99))
def test_a_wipe_is_found_where_it_is_and_as_long_as_it_is(length: int, way: int, seed: int) -> None:
    result = wipes(wipe(seed, length, way), 1)
    centre = int(result.value.argmax())
    assert result.value[centre] > 2
    first = centre - int(result.length[centre]) // 2
    assert first == pytest.approx(60, abs=2)
    assert first + result.length[centre] == pytest.approx(60 + length, abs=2)


def test_at_twice_the_frames_the_same_wipe_is_found() -> None:
    result = wipes(wipe(1, 40, 0), 2)
    assert result.value.max() > 2
    assert abs(int(result.value.argmax()) - 80) <= 3


def test_stills_cuts_and_noise_are_no_wipes() -> None:
    still = wipe(2, 10, 0)[:60]
    assert wipes(still, 1).value.max() == 0
    cut = np.concatenate([still, still[:, ::-1]])
    assert wipes(cut, 1).value.max() < 1
    noise = np.random.default_rng(0).integers(0, 256, (90, 27, 48, 3)).astype(np.uint8)
    assert wipes(noise, 1).value.max() < 1.2
