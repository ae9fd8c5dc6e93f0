from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from contentv.base.rng import numpy_generator
from contentv.toyworld.render import ARM, SCALE, border_tone, render_at
from contentv.toyworld.scene import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    GROWTH,
    HELD_OUT,
    PAN_TRAVEL,
    RADII,
    SHAPES,
    SPIN_TURN,
    STYLES,
    TRAVEL,
    Body,
    Scene,
    Split,
    sample_scene,
)

SAFE_DISTANCE = 88


def draw(count: int, split: Split = "train") -> list[Scene]:
    return [
        sample_scene(numpy_generator("scene test", split, i), split=split) for i in range(count)
    ]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return draw(2000)


def pairs_of(scene: Scene) -> list[tuple[str, str]]:
    return [(body.colour, body.shape) for body in scene.bodies]


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_all_tones_of_one_clip_are_far_apart(background: str) -> None:
    tones = [*COLOURS.values(), BACKGROUNDS[background], border_tone(background)]
    close = [
        (a, b)
        for a, b in combinations(tones, 2)
        if np.linalg.norm(np.subtract(a, b)) < SAFE_DISTANCE
    ]
    assert close == []


def test_backgrounds_are_far_apart() -> None:
    for a, b in combinations(BACKGROUNDS.values(), 2):
        assert np.linalg.norm(np.subtract(a, b)) >= SAFE_DISTANCE


def test_training_never_shows_a_held_out_pair(scenes: list[Scene]) -> None:
    assert not {pair for scene in scenes for pair in pairs_of(scene)} & HELD_OUT
    assert not {pair for scene in draw(500, "seen") for pair in pairs_of(scene)} & HELD_OUT


def test_training_shows_every_other_pair(scenes: list[Scene]) -> None:
    shown = {pair for scene in scenes for pair in pairs_of(scene)}
    assert shown == {(c, s) for c in COLOURS for s in SHAPES} - HELD_OUT


def test_held_out_scenes_lead_with_a_held_out_pair() -> None:
    first = [pairs_of(scene)[0] for scene in draw(500, "held_out")]
    assert set(first) == HELD_OUT


def test_held_out_pairs_leave_every_colour_and_shape_in_training() -> None:
    kept = {(c, s) for c in COLOURS for s in SHAPES} - HELD_OUT
    assert {c for c, _ in kept} == set(COLOURS)
    assert {s for _, s in kept} == set(SHAPES)


def test_every_fact_takes_every_value(scenes: list[Scene]) -> None:
    seen = Counter(item for scene in scenes for item in scene.facts.items())
    wanted = {
        "shape": SHAPES, "shape2": SHAPES, "colour": COLOURS, "colour2": COLOURS, "style": STYLES,
        "background": BACKGROUNDS, "motion": [*DIRECTIONS, "still", "grows", "shrinks", "spins"],
        "speed": TRAVEL, "size": RADII, "camera": ["still", "left", "right"],
        "relation": ["left", "right", "above", "below"],
    }  # fmt: skip
    assert set(seen) == {(name, value) for name, values in wanted.items() for value in values}
    assert min(seen.values()) >= 20


def test_facts_describe_the_bodies(scenes: list[Scene]) -> None:
    for scene in scenes:
        first, facts = scene.bodies[0], scene.facts
        assert (first.shape, first.colour, first.style) == tuple(
            facts[name] for name in ("shape", "colour", "style")
        )
        assert facts["background"] == scene.background
        assert ("shape2" in facts) == (len(scene.bodies) == 2)
        assert ("speed" in facts) == (facts["motion"] in DIRECTIONS)


def test_motions_are_true(scenes: list[Scene]) -> None:
    for scene in scenes:
        body, facts = scene.bodies[0], scene.facts
        travel = np.array([body.x[1] - body.x[0] - scene.pan, body.y[1] - body.y[0]])
        direction = np.array(DIRECTIONS.get(facts["motion"], (0, 0)))
        length = TRAVEL[facts["speed"]] if "speed" in facts else 0  # type: ignore[index]
        np.testing.assert_allclose(travel, direction * length, atol=1e-9)
        growth = {"grows": GROWTH, "shrinks": 1 / GROWTH}.get(facts["motion"], 1.0)
        assert body.radius[1] / body.radius[0] == pytest.approx(growth)
        turn = SPIN_TURN if facts["motion"] == "spins" else 0.0
        assert body.angle[1] - body.angle[0] == pytest.approx(turn)


def test_a_camera_turned_left_slides_the_world_right(scenes: list[Scene]) -> None:
    expected = {"still": 0.0, "left": PAN_TRAVEL, "right": -PAN_TRAVEL}
    assert all(scene.pan == expected[scene.facts["camera"]] for scene in scenes)


def test_relations_and_sizes_are_true(scenes: list[Scene]) -> None:
    for scene in scenes:
        body = scene.bodies[0]
        if "size" in scene.facts:
            assert body.radius[0] == RADII[scene.facts["size"]]  # type: ignore[index]
        if len(scene.bodies) == 2:
            other = scene.bodies[1]
            apart = {
                "left": other.x[0] - body.x[0], "right": body.x[0] - other.x[0],
                "above": other.y[0] - body.y[0], "below": body.y[0] - other.y[0],
            }  # fmt: skip
            assert apart[scene.facts["relation"]] > 0.4
            assert body.colour != other.colour


def reach(body: Body) -> float:
    """Farthest corner from the centre, in radii; a square's side unless it turns."""
    corner = {"circle": 1.0, "square": 1.0, "triangle": 1.0, "cross": float(np.hypot(1, ARM))}
    turned = body.shape == "square" and body.angle[1] != body.angle[0]
    return SCALE[body.shape] * corner[body.shape] * (np.sqrt(2) if turned else 1)


def test_an_object_loses_no_more_than_a_tip_at_the_border(scenes: list[Scene]) -> None:
    two_pixels = 2 / 64
    for scene in scenes:
        for body in scene.bodies:
            for centre in (body.x, body.y):
                for place, radius in zip(centre, body.radius, strict=True):
                    margin = min(place, 1 - place) - radius * reach(body)
                    assert margin > -two_pixels, scene


def test_two_objects_never_touch(scenes: list[Scene]) -> None:
    now = np.zeros(1, np.float32)
    for scene in [scene for scene in scenes if len(scene.bodies) == 2][:150]:
        empty = render_at(replace(scene, bodies=()), now)
        first, second = (
            (render_at(replace(scene, bodies=(body,)), now) != empty).any(-1)
            for body in scene.bodies
        )
        assert not (first & second).any(), scene
