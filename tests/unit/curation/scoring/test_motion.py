from itertools import islice, pairwise

import numpy as np
import pytest
from PIL import Image

from contentv.base.types import Frame
from contentv.curation.scoring.flowfield import dis_flow, explained
from contentv.curation.scoring.motion import MotionStep
from contentv.curation.settings import MotionSettings
from contentv.curation.step import WHOLE, Box, Row, Span
from footage import frames, real_files, takes
from motionpictures import FOOTAGE, clip, luma, measured, passing, shown, texture, turned
from planted import noisy, pan_speed, panned, zoom_speed, zoomed

SIZE = (480, 270)


@pytest.fixture(scope="module")
def stills() -> dict[str, Frame]:
    """A frame of each kind of real footage: animation, street, face."""
    files = real_files()
    names = ("bigbuckbunny", "bikes", "carphone_pristine")
    return {name: next(islice(frames(takes(files, (name,))[0]), 20, None)) for name in names}


@pytest.fixture(scope="module")
def wide() -> Frame:
    return texture(1000, 560)


def number(row: Row, name: str) -> float:
    value = row[name]
    assert isinstance(value, float), (name, value)
    return value


def test_a_pan_of_known_speed(wide: Frame) -> None:
    [row] = measured(panned(wide, (72, 0), size=SIZE, fps=24, count=37))
    want = pan_speed((72, 0), SIZE)
    assert want == pytest.approx(0.1307, abs=1e-4)
    assert number(row, "motion_background") == pytest.approx(want, rel=0.01)
    assert number(row, "motion_foreground") < 0.008
    assert number(row, "camera_pan") == pytest.approx(want, rel=0.01)
    assert abs(number(row, "camera_tilt")) < 0.002
    assert row["camera"] == "pan"
    assert number(row, "motion_inliers") > 0.99
    assert number(row, "motion_jitter") < 0.002
    assert number(row, "motion_static") == 0


def test_real_pictures_panned_at_many_speeds(stills: dict[str, Frame]) -> None:
    picture = stills["bigbuckbunny"]
    for speed in ((-30.0, 0.0), (0.0, 45.0), (150.0, 40.0)):
        [row] = measured(panned(picture, speed, size=SIZE, fps=8, count=9), 8)
        want = pan_speed(speed, SIZE)
        assert number(row, "motion_background") == pytest.approx(want, rel=0.01), speed


@pytest.mark.parametrize(("rate", "sign"), [(1.6, 1), (1 / 1.6, -1)])
def test_a_zoom_of_known_speed(
    wide: Frame, stills: dict[str, Frame], rate: float, sign: int
) -> None:
    for picture in (wide, stills["bigbuckbunny"]):
        [row] = measured(zoomed(picture, rate, size=SIZE, fps=24, count=25))
        want = zoom_speed(rate, SIZE, 1 / 8)
        assert number(row, "motion_background") == pytest.approx(want, rel=0.05)
        assert number(row, "camera_zoom") == pytest.approx(sign * np.log(1.6), rel=0.05)
        assert row["camera"] == "zoom"


def test_a_camera_that_rolls(wide: Frame) -> None:
    [row] = measured(turned(wide, 2.5, size=SIZE, count=9), 8)
    assert row["camera"] == "roll"
    assert number(row, "camera_roll") == pytest.approx(-np.radians(2.5 * 8), rel=0.05)


def test_what_is_still_has_no_motion(stills: dict[str, Frame]) -> None:
    for picture in stills.values():
        [row] = measured([picture] * 9, 8)
        assert number(row, "motion") == 0
        assert number(row, "motion_static") == 1
        assert row["camera"] == "static"


@pytest.mark.parametrize("sigma", [1, 4, 8])
def test_noise_is_no_motion(stills: dict[str, Frame], sigma: float) -> None:
    rng = np.random.default_rng(1)
    for name, picture in stills.items():
        [row] = measured((noisy(picture, sigma, rng) for _ in range(7)), 8)
        assert number(row, "motion") < 0.004, name
        assert number(row, "motion_static") == 1, name


def test_slow_motion_in_real_footage_is_not_static() -> None:
    for name in ("bigbuckbunny", "carphone_pristine"):
        [row] = measured(islice(frames(takes(real_files(), (name,))[0]), 60), 25)
        assert number(row, "motion") > 0.012, name


def test_a_thing_before_a_moving_background(wide: Frame) -> None:
    thing = texture(110, 90, seed=5)
    over = passing(panned(wide, (72, 0), size=SIZE, fps=24, count=37), thing, 120, fps=24)
    [row] = measured(over)
    want = pan_speed((72, 0), SIZE)
    assert number(row, "motion_background") == pytest.approx(want, rel=0.02)
    assert number(row, "motion_foreground") == pytest.approx((72 + 120) / np.hypot(*SIZE), rel=0.1)
    assert row["camera"] == "pan"
    assert number(row, "motion_inliers") < 0.95
    mean, weighted = number(row, "motion"), number(row, "motion_weighted")
    before, behind = number(row, "motion_foreground"), number(row, "motion_background")
    assert mean == pytest.approx((before + behind) / 2)
    assert weighted == pytest.approx(0.7 * before + 0.3 * behind)


def test_neither_frame_rate_nor_resolution_matters(wide: Frame) -> None:
    found = {}
    for fps, scale in ((24, 1.0), (12, 1.0), (10, 1.0), (30, 1.0), (24, 2.0), (24, 0.5)):
        size = round(SIZE[0] * scale), round(SIZE[1] * scale)
        over = list(panned(wide, (72, 0), size=SIZE, fps=fps, count=fps + 1))
        over = passing(over, texture(110, 90, seed=5), 120, fps=fps)
        resized = (_resized(frame, size) for frame in over)
        found[fps, scale] = measured(resized, fps)[0]
    want = found[24, 1.0]
    for key, row in found.items():
        for name in ("motion", "motion_background", "motion_foreground", "motion_weighted"):
            assert number(row, name) == pytest.approx(number(want, name), rel=0.05), (key, name)


def test_a_crop_leaves_out_what_moves_beside_it(wide: Frame) -> None:
    still = np.array(wide[:270, :480])
    over = list(passing([still] * 9, texture(110, 90, seed=5), 150, fps=8))
    [whole] = measured(over, 8)
    [below] = measured(over, 8, crop=Box(0, 0.7, 1, 0.3))
    assert number(whole, "motion_foreground") > 0.2
    assert number(whole, "motion_background") < 0.002
    assert number(below, "motion") < 0.004


def test_the_speed_counts_in_diagonals_of_the_crop(wide: Frame) -> None:
    moving = list(panned(wide, (72, 0), size=SIZE, fps=8, count=9))
    [row] = measured(moving, 8, crop=Box(0.125, 0.125, 0.75, 0.75))
    assert number(row, "motion_background") == pytest.approx(0.1307 / 0.75, rel=0.015)


def test_pairs_across_the_ends_of_a_clip_are_left_out(wide: Frame) -> None:
    other = texture(480, 270, seed=9)
    cut = [wide[:270, :480]] * 9 + [other] * 9
    apart = measured(cut, 8, spans=[clip(0, 9 / 8, 1), clip(9 / 8, 18 / 8, 2)])
    assert [number(row, "motion") for row in apart] == [0, 0]
    [across] = measured(cut, 8)
    assert number(across, "motion") > 0.01


def test_clips_without_pairs_have_no_values(wide: Frame) -> None:
    nothing = dict.fromkeys(MotionStep.columns)
    picture = Span("1" * 32, "picture", 0, 0.5, 0.5, 12, 12)
    still = [wide[:270, :480]] * 9
    assert measured(still, 8, spans=[picture, clip(0.5, 0.6), clip(50, 53)]) == [nothing] * 3
    assert measured(still[:4], 1.5) == [nothing]
    assert measured([frame[:20, :300] for frame in still], 8) == [nothing]
    assert MotionStep(MotionSettings()).watch(FOOTAGE).score([clip()], [WHOLE]) == [nothing]
    assert measured(still, 8)[0].keys() == nothing.keys()


@pytest.mark.parametrize("size", [(64, 64), (90, 160), (24, 200)])
def test_small_and_tall_pictures(size: tuple[int, int]) -> None:
    big = texture(size[0] + 60, size[1] + 60, seed=3)
    speed = 0.1 * float(np.hypot(*size))
    [row] = measured(panned(big, (speed, 0), size=size, fps=24, count=25))
    assert number(row, "motion_background") == pytest.approx(0.1, rel=0.03)


def test_flow_explains_movement_but_not_noise(wide: Frame) -> None:
    flow = dis_flow()
    moving = [picture for _, picture in shown(panned(wide, (72, 0), size=SIZE, fps=8, count=2), 8)]
    rng = np.random.default_rng(0)
    noise = [luma(noisy(wide[:270, :480], 4, rng)) for _ in range(2)]
    assert all(explained(a, b, flow(a, b)) > 0.9 for a, b in pairwise(moving))
    assert all(explained(a, b, flow(a, b)) < 0.001 for a, b in pairwise(noise))


def _resized(frame: Frame, size: tuple[int, int]) -> Frame:
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
