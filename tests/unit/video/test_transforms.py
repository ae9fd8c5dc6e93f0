import numpy as np
import pytest
import torch

from contentv.video.transforms import (
    display_scale,
    enlarge,
    from_uint8,
    reduce,
    to_uint8,
    to_unit,
)

EVERY_BYTE = np.arange(256, dtype=np.uint8)


def test_bytes_survive_the_way_to_the_model_and_back() -> None:
    assert np.array_equal(to_uint8(to_unit(from_uint8(EVERY_BYTE))), EVERY_BYTE)
    assert from_uint8(EVERY_BYTE).min() == -1
    assert from_uint8(EVERY_BYTE).max() == 1


def test_tensors_and_arrays_are_mapped_alike() -> None:
    values = np.linspace(-2, 2, 9, dtype=np.float32)
    assert np.array_equal(to_unit(values), to_unit(torch.from_numpy(values)).numpy())
    assert to_unit(values).min() == 0
    assert to_unit(values).max() == 1


def test_nan_is_no_picture() -> None:
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(np.array([0.5, np.nan]))


def test_reduce_undoes_enlarge() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    assert enlarge(frames, 3).shape == (2, 18, 15, 3)
    assert np.array_equal(reduce(enlarge(frames, 3), 3), frames)
    assert np.array_equal(enlarge(frames, 1), frames)
    assert np.array_equal(reduce(frames, 1), frames)
    assert np.array_equal(enlarge(frames[0], 3), enlarge(frames, 3)[0])


def test_reduce_refuses_what_does_not_divide() -> None:
    with pytest.raises(ValueError, match="7x6 pixels do not divide by the scale 2"):
        reduce(np.zeros((1, 7, 6, 3), np.uint8), 2)


@pytest.mark.parametrize(
    ("size", "scale"),
    [((64, 64), 4), ((432, 768), 1), ((256, 256), 1), ((240, 400), 2), ((16, 999), 16)],
)
def test_small_videos_are_shown_large_enough(size: tuple[int, int], scale: int) -> None:
    assert display_scale(*size) == scale
