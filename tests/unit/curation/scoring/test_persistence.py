import numpy as np
import pytest
from numpy.typing import NDArray

from contentv.base.types import Frame
from contentv.curation.scoring.persistence import distinct, edges_of, persistent
from contentv.curation.scoring.vision import opencv
from contentv.curation.settings import OverlaySettings
from contentv.curation.step import Box, Picture
from planted import logo, overlaid
from stills import SIZE, stills

CONFIG = OverlaySettings()


def luma(picture: Frame) -> Picture:
    """Brightness after a camera's compression."""
    cv2 = opencv()
    packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE))


def found(pictures: list[Frame]) -> list[Box]:
    return persistent(distinct(map(luma, pictures), CONFIG), CONFIG)


def covered(boxes: list[Box], cover: NDArray[np.float32]) -> float:
    """Give the part of a logo that lies in the boxes."""
    inside = np.zeros(cover.shape, np.bool_)
    height, width = cover.shape
    for box in boxes:
        left, top = round(box.x * width), round(box.y * height)
        inside[top : top + round(box.height * height), left : left + round(box.width * width)] = 1
    return float(inside[cover > 0.5].mean())


def area(boxes: list[Box]) -> float:
    return sum(box.width * box.height for box in boxes)


def test_directions_are_units_and_turn_with_the_picture() -> None:
    picture = luma(stills()[0])
    edges = edges_of(picture, CONFIG)
    length = np.hypot(edges.across, edges.down)
    assert np.allclose(length[length > 0], 1, atol=1e-5)
    assert 0.02 < (length > 0).mean() < 0.98
    turned = edges_of(np.ascontiguousarray(picture.T), CONFIG)
    assert np.allclose(turned.across.T, edges.down, atol=1e-5)
    assert np.allclose(turned.down.T, edges.across, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.15, 0.4, 1.0])
@pytest.mark.parametrize("count", [6, 10])
def test_logos_are_found_and_nothing_else(alpha: float, count: int) -> None:
    for seed in range(4):
        cover = logo(SIZE, seed)
        boxes = found([overlaid(picture, cover, alpha) for picture in stills()[:count]])
        assert covered(boxes, cover) > 0.8, seed
        assert len(boxes) == 1, seed
        assert area(boxes) < 0.06


def test_two_logos_in_a_source_are_two_boxes() -> None:
    covers = logo(SIZE, 0), logo(SIZE, 5)
    pictures = [overlaid(overlaid(p, covers[0], 0.5), covers[1], 0.5) for p in stills()]
    boxes = found(pictures)
    assert len(boxes) == 2
    assert min(covered(boxes, cover) for cover in covers) > 0.8


@pytest.mark.parametrize("count", [6, 7, 8, 10])
def test_scenes_without_a_logo_have_none(count: int) -> None:
    for first in range(len(stills()) - count + 1):
        assert found(list(stills()[first : first + count])) == []


def test_a_logo_in_half_of_the_shots_is_none() -> None:
    cover = logo(SIZE, 1)
    pictures = [overlaid(p, cover, 0.6 * (i % 2)) for i, p in enumerate(stills())]
    assert found(pictures) == []


def test_plain_white_says_nothing_of_a_white_logo() -> None:
    cover = logo(SIZE, 1)
    white = np.full_like(stills()[0], 250)
    pictures = [*stills()[:8], *(white + np.uint8(i) for i in range(3))]
    shown = [overlaid(picture, cover, 0.3) for picture in pictures]
    edges = [edges_of(luma(picture), CONFIG) for picture in shown]
    assert covered(persistent(edges, CONFIG), cover) > 0.8


def test_one_scene_is_counted_once() -> None:
    rng = np.random.default_rng(0)
    scene, other = stills()[5], stills()[6]
    again = np.clip(scene * 1.1 + rng.normal(0, 2, scene.shape), 0, 255).astype(np.uint8)
    acted = scene.copy()
    acted[100:, 100:300] = other[100:, 100:300]
    assert len(distinct(map(luma, [scene, other, again, acted]), CONFIG)) == 2


def test_a_logo_does_not_make_scenes_one() -> None:
    cover = np.maximum(logo(SIZE, 0), logo(SIZE, 5))
    pictures = [overlaid(picture, cover, 1.0) for picture in stills()]
    assert len(distinct(map(luma, pictures), CONFIG)) == len(stills())
