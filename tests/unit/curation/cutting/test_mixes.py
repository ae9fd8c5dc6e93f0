import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contentv.base.types import Frame
from contentv.curation.cutting.mixes import LENGTHS, Found, frame_distances, grey, mixes, products


def noise(seed: int, count: int = 2) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (count, 27, 48, 3)).astype(np.uint8)


def dissolve(seed: int, length: int, still: int = 50) -> Frame:
    one, other = noise(seed).astype(np.float64)
    weights = np.arange(1, length + 1)[:, None, None, None] / (length + 1)
    mixed = np.rint(one * (1 - weights) + other * weights).astype(np.uint8)
    return np.concatenate([[one] * still, mixed, [other] * still]).astype(np.uint8)


def found(thumbs: Frame, scale: int = 1) -> Found:
    pixels = grey(thumbs)
    return mixes(products(pixels, 36 * scale), pixels.shape[1], scale, 18.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(8, 36), st.integers(0, 99), st.sampled_from([1, 2]))
def test_a_dissolve_of_still_pictures_is_a_mix_at_its_middle(
    length: int, seed: int, scale: int
) -> None:
    result = found(dissolve(seed, length * scale, 60 * scale), scale)
    middle = slice((60 + length // 2 - 2) * scale, (60 + length // 2 + 2) * scale)
    assert result.value[middle].min() < 0.1
    assert result.length[middle].max() >= min(LENGTHS) * scale


def test_cuts_stills_and_noise_are_no_mixes() -> None:
    one, other = noise(3)
    assert found(np.stack([one] * 40 + [other] * 40)).value.min() == 9
    assert found(np.stack([one] * 80)).value.min() == 9
    assert found(noise(4, 80)).value.min() > 0.5


def test_products_give_exact_distances() -> None:
    pixels = grey(noise(5, 90))
    distances = frame_distances(products(pixels, 12), pixels.shape[1])
    apart = (pixels[10].astype(float) - pixels[22].astype(float)) ** 2
    assert distances[10, 12] == pytest.approx(np.sqrt(apart.mean()), rel=1e-12)
    assert np.isnan(distances[89, 1])
    assert (distances[:, 0] == 0).all()
