import numpy as np
import pytest

from contentv.curation.scoring.camera import (
    CameraSpeed,
    camera_speed,
    carried,
    classify,
    fit_homography,
)
from contentv.curation.scoring.motionscores import jitter, slideshow
from contentv.curation.scoring.spool import Spool

STILL = 0.004


def pans(*speeds: float) -> list[CameraSpeed]:
    return [CameraSpeed(speed, 0.0, 0.0, 0.0) for speed in speeds]


def test_jitter_is_the_speed_of_shaking_and_no_other() -> None:
    assert jitter(pans(*[0.1, -0.1] * 8)) == pytest.approx(0.1)
    assert jitter(pans(*[0.3] * 16)) == pytest.approx(0)
    assert jitter(pans(*np.linspace(0, 0.5, 16))) == pytest.approx(0)
    assert jitter(pans(0.1, 0.2)) == 0


def test_slides_are_stills_with_jumps_between() -> None:
    def share(said: str) -> float:
        return slideshow(np.array([c == "." for c in said]), np.full(len(said), 1 / 8))

    assert share("........X.......") == pytest.approx(15 / 16)
    assert share("....XX....X.....XXXXXXXX") == pytest.approx(13 / 24)
    assert share("........XXXXXXXX") == 0  # a scene that begins to move
    assert share("....XXXX........") == 0  # half a second of movement is no jump
    assert share("...X............") == 0  # the first still is short
    assert share("................") == 0
    assert share("X") == 0


def test_a_camera_is_read_off_its_homography() -> None:
    scale, turn = 1.05, 0.02
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    center = np.array([128.0, 72.0])
    matrix[:2, 2] = center - matrix[:2, :2] @ center + (6.0, -4.0)
    found = camera_speed(matrix, (128.0, 72.0), 100.0, 0.5)
    assert found.pan == pytest.approx(-0.12)
    assert found.tilt == pytest.approx(-0.08)
    assert found.zoom == pytest.approx(np.log(scale) / 0.5)
    assert found.roll == pytest.approx(turn / 0.5)


def test_the_background_is_what_most_points_follow() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 256, (400, 2))
    flow = np.full((400, 2), (3.0, 1.0))
    flow[:120] += rng.uniform(5, 30, (120, 2))
    first, again = (fit_homography(points, flow, 1.0) for _ in range(2))
    assert np.allclose(carried(points, first), (3.0, 1.0), atol=0.01)
    assert np.array_equal(first, again)


def test_few_points_move_by_their_median() -> None:
    points, flow = np.eye(2) * 9, np.array([(1.0, 2.0), (3.0, 4.0)])
    assert np.allclose(carried(points, fit_homography(points, flow, 1.0)), (2.0, 3.0))


@pytest.mark.parametrize(
    ("speed", "background", "name"),
    [
        (CameraSpeed(0.1, 0.01, 0, 0), 0.1, "pan"),
        (CameraSpeed(0, -0.1, 0, 0), 0.1, "tilt"),
        (CameraSpeed(0, 0, -0.4, 0), 0.1, "zoom"),
        (CameraSpeed(0, 0, 0, 0.4), 0.1, "roll"),
        (CameraSpeed(0.1, 0.1, 0, 0), 0.14, "complex"),
        (CameraSpeed(0.01, 0, 0, 0), 0.1, "complex"),  # it shakes: fast, and goes nowhere
        (CameraSpeed(0.001, 0, 0, 0), 0.001, "static"),
    ],
)
def test_cameras_have_names(speed: CameraSpeed, background: float, name: str) -> None:
    assert classify(speed, background, 0.26, STILL) == name


@pytest.mark.parametrize("in_memory", [1 << 20, 10])
def test_a_spool_gives_back_what_it_took(in_memory: int) -> None:
    spool = Spool(in_memory)
    contents = [bytes([number]) * (number * 7 % 11) for number in range(30)]
    for content in contents:
        spool.add(content)
        assert spool.get(0) == b""
    assert len(spool) == 30
    assert [spool.get(number) for number in reversed(range(30))] == contents[::-1]
