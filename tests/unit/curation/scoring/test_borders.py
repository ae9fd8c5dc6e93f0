from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from contentv.base.types import Frame
from contentv.curation.scoring.borders import BorderFinder, Borders
from contentv.curation.scoring.vision import opencv
from contentv.curation.settings import OverlaySettings
from planted import Edges, blurred, bordered, noisy
from stills import SIZE, stills

LETTER, PILLAR, WINDOW = Edges(0, 34, 0, 34), Edges(81, 0, 81, 0), Edges(40, 20, 60, 30)


@pytest.fixture(scope="module")
def shots() -> list[Frame]:
    return list(stills()[:7])


def found(pictures: Sequence[Frame]) -> Borders:
    cv2 = opencv()
    finder = BorderFinder(OverlaySettings())
    lumas = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]
    for luma in lumas:
        finder.see(luma)
    return finder.find(lumas)


def pixels(borders: Borders, size: tuple[int, int] = SIZE) -> Edges:
    width, height = size
    sides = borders.left * width, borders.top * height, borders.right * width
    return Edges(*(round(side) for side in (*sides, borders.bottom * height)))


def jpeg(picture: Frame) -> Frame:
    cv2 = opencv()
    packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))


def filled(picture: Frame, bar: int) -> Frame:
    """Cut the middle out and lay it over a blurred, darker copy of itself that fills the frame."""
    width, height = SIZE
    middle = picture[:, bar : width - bar]
    tall = round(height * width / middle.shape[1])
    fill = np.asarray(Image.fromarray(middle).resize((width, tall)))[(tall - height) // 2 :]
    out = (blurred(fill[:height], 10) * 0.7).astype(np.uint8)
    out[:, bar : width - bar] = middle
    return out


def test_real_footage_has_none(shots: list[Frame]) -> None:
    assert found(shots) == Borders()
    for shot in shots:
        assert found([shot]) == Borders()


@pytest.mark.parametrize("edges", [LETTER, PILLAR, WINDOW, Edges(top=12), Edges(right=150)])
def test_black_borders_to_the_pixel(shots: list[Frame], edges: Edges) -> None:
    borders = found([bordered(shot, edges) for shot in shots])
    assert borders.kind == "black"
    assert pixels(borders) == edges


@pytest.mark.parametrize("edges", [LETTER, PILLAR, WINDOW])
def test_black_borders_after_compression(shots: list[Frame], edges: Edges) -> None:
    got = pixels(found([jpeg(bordered(shot, edges)) for shot in shots]))
    for side in ("left", "top", "right", "bottom"):
        assert abs(getattr(got, side) - getattr(edges, side)) <= 2, side


def test_a_hairline_is_no_border(shots: list[Frame]) -> None:
    assert found([bordered(shot, Edges(left=4, right=4)) for shot in shots]) == Borders()


def test_one_shot_without_borders_is_a_source_without(shots: list[Frame]) -> None:
    assert found([*(bordered(shot, LETTER) for shot in shots[1:]), shots[0]]) == Borders()


def test_a_dark_scene_has_no_edge(shots: list[Frame]) -> None:
    ramp = np.clip(np.linspace(-1, 1, SIZE[0]), 0, 1)[None, :, None]
    dim = (shots[-1] * ramp).astype(np.uint8)  # the left half is black, and ends nowhere
    assert (dim[:, : SIZE[0] // 4] < 24).all()
    assert found([dim]) == Borders()


def test_black_is_no_border() -> None:
    assert found([np.zeros((90, 160, 3), np.uint8)]) == Borders()
    assert BorderFinder(OverlaySettings()).find([]) == Borders()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (5, 4)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    assert found([np.full((*size, 3), 200, np.uint8)]) == Borders()


@pytest.mark.parametrize("bar", [60, 97, 164])
def test_blurred_fill(shots: list[Frame], bar: int) -> None:
    borders = found([jpeg(filled(shot, bar)) for shot in shots])
    assert borders.kind == "blurred"
    assert pixels(borders) == Edges(left=bar, right=bar)


def test_blurred_fill_above_and_below(shots: list[Frame]) -> None:
    lying = [np.ascontiguousarray(filled(shot, 97).transpose(1, 0, 2)) for shot in shots]
    borders = found(lying)
    assert borders.kind == "blurred"
    assert pixels(borders, SIZE[::-1]) == Edges(top=97, bottom=97)


def test_blurred_bars_of_something_else_are_part_of_the_picture(shots: list[Frame]) -> None:
    strange = [filled(shot, 97) for shot in shots]
    for picture, other in zip(strange, [*shots[1:], shots[0]], strict=True):
        soft = blurred(other, 10)
        picture[:, :97], picture[:, -97:] = soft[:, :97], soft[:, -97:]
    assert found(strange) == Borders()


def test_noise_in_the_black_is_forgiven(shots: list[Frame]) -> None:
    rng = np.random.default_rng(0)
    assert pixels(found([noisy(bordered(shot, LETTER), 4, rng) for shot in shots])) == LETTER
