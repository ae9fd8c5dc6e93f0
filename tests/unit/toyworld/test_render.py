from dataclasses import replace

import numpy as np
import pytest

from contentv.base.rng import numpy_generator
from contentv.toyworld.render import border_tone, draw_background, render
from contentv.toyworld.scene import BACKGROUNDS, COLOURS, SHAPES, Body, Scene, sample_scene


@pytest.fixture
def scene() -> Scene:
    body = Body("square", "red", "flat", (0.2, 0.2), (0.5, 0.5), (0.5, 0.5))
    return Scene((body,), "grey", 0.7, 0.0, {})


def with_body(scene: Scene, **changes: object) -> Scene:
    return replace(scene, bodies=(replace(scene.bodies[0], **changes),))  # type: ignore[arg-type]


def test_form_of_a_clip(scene: Scene) -> None:
    frames = render(scene, frames=5, size=32)
    assert frames.shape == (5, 32, 32, 3)
    assert frames.dtype == np.uint8


def test_one_frame_is_the_first_of_many() -> None:
    for index in range(20):
        scene = sample_scene(numpy_generator("render test", index))
        np.testing.assert_array_equal(render(scene, frames=1)[0], render(scene, frames=17)[0])


def test_the_same_scene_gives_the_same_pixels() -> None:
    a, b = (render(sample_scene(numpy_generator("render test", 3))) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_more_frames_show_the_same_motion(scene: Scene) -> None:
    moving = with_body(scene, x=(0.3, 0.7))
    np.testing.assert_array_equal(render(moving, frames=5), render(moving, frames=17)[::4])


def test_larger_frames_show_the_same_picture() -> None:
    for index in range(20):
        scene = sample_scene(numpy_generator("render test", index))
        small = render(scene, frames=1, size=64)[0].astype(float)
        large = render(scene, frames=1, size=128)[0].astype(float)
        shrunk = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
        assert np.abs(small - shrunk).mean() < 2


@pytest.mark.parametrize("pan", [0.4, -0.4])
def test_a_pan_slides_the_ripple(scene: Scene, pan: float) -> None:
    first, last = draw_background(replace(scene, pan=pan), np.array([0, 1], np.float32), 80)
    moved = 32
    then, now = (first, last) if pan > 0 else (last, first)
    np.testing.assert_allclose(now[:, moved:], then[:, :-moved], atol=1e-2)
    assert np.abs(first - last).max() > 10


def test_a_still_camera_leaves_the_background(scene: Scene) -> None:
    frames = render(replace(scene, bodies=()))
    assert (frames == frames[0]).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_flat_object_has_its_colour_at_its_centre(scene: Scene, shape: str) -> None:
    frames = render(with_body(scene, shape=shape), frames=1)
    np.testing.assert_array_equal(frames[0, 32, 32], COLOURS["red"])


@pytest.mark.parametrize("shape", SHAPES)
def test_an_outline_goes_round_the_object(scene: Scene, shape: str) -> None:
    frame = render(with_body(scene, shape=shape, style="outlined"), frames=1)[0]
    tone = border_tone(scene.background)
    assert (frame == tone).all(-1).sum() >= 20
    np.testing.assert_array_equal(frame[32, 32], COLOURS["red"])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_hollow_object_shows_the_background_through(scene: Scene, shape: str) -> None:
    hollow = with_body(scene, shape=shape, style="hollow")
    drawn, empty = render(hollow, frames=1), render(replace(scene, bodies=()), frames=1)
    np.testing.assert_array_equal(drawn[0, 32, 32], empty[0, 32, 32])
    assert (drawn != empty).any()


def test_shapes_have_a_like_visual_weight(scene: Scene) -> None:
    empty = render(replace(scene, bodies=()), frames=1)
    areas = [
        (render(with_body(scene, shape=shape), frames=1) != empty).any(-1).sum() for shape in SHAPES
    ]
    assert max(areas) / min(areas) < 1.8


def test_outlines_stand_out_from_every_background() -> None:
    for name, tone in BACKGROUNDS.items():
        assert np.linalg.norm(np.subtract(border_tone(name), tone)) >= 88
