import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenedetect import FrameTimecode
from scenedetect.detectors import ContentDetector
from scenedetect.stats_manager import StatsManager

from contentv.base.types import Frame
from contentv.curation.cutting.cuts import content_values, prominence, returns
from contentv.curation.cutting.mixes import frame_distances, grey, products


def noise(seed: int, count: int) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (count, 27, 48, 3)).astype(np.uint8)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99))
def test_content_values_are_those_of_pyscenedetect(seed: int) -> None:
    thumbs = noise(seed, 6) // np.arange(1, 7, dtype=np.uint8)[:, None, None, None]
    detector = ContentDetector()
    detector.stats_manager = StatsManager()
    for number, thumb in enumerate(thumbs):
        detector.process_frame(FrameTimecode(number, 25.0), np.ascontiguousarray(thumb[..., ::-1]))
    theirs = [
        detector.stats_manager.get_metrics(FrameTimecode(number, 25.0), ["content_val"])[0]
        for number in range(1, 6)
    ]
    assert content_values(thumbs)[1:] == pytest.approx(theirs)
    assert content_values(thumbs)[0] == 0


def test_a_jump_stands_out_of_its_neighbours() -> None:
    values = np.array([0, 2, 2, 2, 2, 40, 2, 2, 2, 2, 2.0])
    assert prominence(values)[5] == pytest.approx(20)
    assert prominence(np.full(20, 30.0)).max() == pytest.approx(1)


def test_drawings_that_move_at_every_third_frame_have_no_cuts() -> None:
    values = np.zeros(30)
    values[::3] = 18
    assert prominence(values).max() == pytest.approx(1)


def come_back(thumbs: Frame, reach: int = 6) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    pixels = grey(thumbs)
    return returns(frame_distances(products(pixels, reach + 1), pixels.shape[1]), reach)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(0, 9))
def test_a_flash_comes_back_and_a_cut_does_not(length: int, seed: int) -> None:
    one, other = noise(seed, 2) // 2
    flash = np.stack([one] * 10 + [one + 120] * length + [one] * 10)
    assert come_back(flash)[[10, 10 + length]].max() < 0.01
    cut = np.stack([one] * 10 + [other] * 10)
    assert come_back(cut)[10] > 0.99
