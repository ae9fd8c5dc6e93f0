from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contentv.base.types import Frame
from contentv.curation.scoring.blur import BlurStep
from contentv.curation.scoring.vision import opencv
from contentv.curation.settings import BlurSettings
from contentv.curation.step import WHOLE, Box, Row, Span
from footage import frames, real_files, takes
from motionpictures import FOOTAGE
from planted import blurred, noisy

CLIP = Span("a", "video", 0, 0.0, 10.0, 0, 10)
SHARP = ("bikes", "bigbuckbunny")  # smaller pictures have more detail a pixel
REJECTED_BELOW = 70


@pytest.fixture(scope="module")
def sharp() -> list[Frame]:
    listed = [take for take in takes(real_files()) if take.name in SHARP]
    return [next(islice(frames(take), 10, None)) for take in listed]


def measured(pictures: list[Frame], crop: Box = WHOLE, span: Span = CLIP) -> Row:
    watcher = BlurStep(BlurSettings()).watch(FOOTAGE)
    for time, picture in enumerate(pictures):
        watcher.see(float(time), picture)
    [row] = watcher.score([span], [crop])
    assert row.keys() == BlurStep.columns.keys()
    return row


def number(row: Row, name: str) -> float:
    value = row[name]
    assert isinstance(value, float), (name, value)
    return value


def random(seed: int, height: int, width: int) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def laplacian(picture: Frame) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    cv2 = opencv()
    luma = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.Laplacian(luma, cv2.CV_64F))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 99))
def test_sums_of_tiles_give_the_variance_of_the_whole(height: int, width: int, seed: int) -> None:
    picture = random(seed, height, width)
    expected = laplacian(picture).var()
    assert number(measured([picture]), "blur_p50") == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_a_crop_along_tiles_is_as_if_only_those_pixels_were_there() -> None:
    picture = random(0, 96, 128)  # tiles of 6 x 8
    row = measured([picture], Box(4 / 16, 2 / 16, 8 / 16, 10 / 16))
    assert number(row, "blur_p50") == pytest.approx(
        laplacian(picture)[12:72, 32:96].var(), rel=1e-5
    )


def test_a_crop_between_tiles_leaves_out_those_it_cuts() -> None:
    picture = random(0, 96, 128)
    inner = measured([picture], Box(4 / 16, 2 / 16, 8 / 16, 10 / 16))
    assert measured([picture], Box(3.5 / 16, 1.9 / 16, 9 / 16, 10.5 / 16)) == inner


def test_a_border_outside_the_crop_changes_nothing(sharp: list[Frame]) -> None:
    soft = blurred(sharp[-1][:96, :128], 4)
    framed = soft.copy()
    framed[:12] = framed[-12:] = 0
    inside = Box(0, 3 / 16, 1, 10 / 16)
    assert measured([framed], inside) == measured([soft], inside)
    assert number(measured([framed]), "blur_p50") > 2 * number(measured([soft]), "blur_p50")


def test_real_pictures_stay_and_blurred_ones_go(sharp: list[Frame]) -> None:
    for picture in sharp:
        clear = measured([picture])
        assert number(clear, "sharpness") > REJECTED_BELOW
        for sigma in (2, 3, 5):
            soft = measured([blurred(picture, sigma)])
            assert number(soft, "sharpness") < REJECTED_BELOW
            assert 1 < number(soft, "reblur") < number(clear, "reblur")


@pytest.mark.parametrize("sigma", [3, 6, 12])
def test_noise_is_measured(sharp: list[Frame], sigma: float) -> None:
    flat = np.full((120, 160, 3), 128, np.uint8)
    grey = np.random.default_rng(0).normal(0, sigma, flat.shape[:2])
    shown = np.clip(np.rint(flat + grey[..., None]), 0, 255).astype(np.uint8)
    assert number(measured([shown]), "noise_sigma") == pytest.approx(sigma, abs=0.75)
    rng = np.random.default_rng(1)
    clear, noise = (measured([p]) for p in (sharp[-1], noisy(sharp[-1], sigma, rng)))
    assert number(noise, "noise_sigma") > number(clear, "noise_sigma")
    assert number(noise, "blur_p50") > number(clear, "blur_p50")


def test_median_and_least_of_the_clips_own_samples(sharp: list[Frame]) -> None:
    pictures = [sharp[-1], blurred(sharp[-1], 1), blurred(sharp[-1], 3), sharp[-1]]
    each = [number(measured([picture]), "blur_p50") for picture in pictures]
    part = Span("b", "video", 0, 0.0, 3.0, 0, 3)
    row = measured(pictures, span=part)
    assert number(row, "blur_p50") == pytest.approx(np.median(each[:3]))
    assert number(row, "blur_min") == pytest.approx(min(each))


def test_the_key_frame_of_a_shot_is_one_sample(sharp: list[Frame]) -> None:
    pictures = [blurred(sharp[-1], 3), sharp[-1]]
    row = measured(pictures, span=Span("c", "picture", 0, 1.0, 1.0, 1, 1))
    assert row == measured([sharp[-1]])


def test_nothing_seen_nothing_said() -> None:
    unknown = dict.fromkeys(BlurStep.columns)
    assert measured([random(0, 32, 32)], span=Span("d", "video", 0, 5.0, 6.0, 5, 6)) == unknown
    assert measured([random(0, 32, 32)], Box(0.51, 0.51, 0.03, 0.03)) == unknown


def test_one_colour_has_no_ratio() -> None:
    row = measured([np.full((40, 40, 3), 7, np.uint8)])
    assert row == {
        "blur_p50": 0.0,
        "blur_min": 0.0,
        "noise_sigma": 0.0,
        "reblur": None,
        "sharpness": 0.0,
    }
