import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from contentv.base.rng import numpy_generator
from contentv.toyworld.dataset import Sample, sample
from contentv.toyworld.oracle import read
from contentv.toyworld.reading import NOTHING, Reading, check
from contentv.toyworld.render import render
from contentv.toyworld.scene import Scene

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "oracle.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("oracle_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find(**facts: str) -> Sample:
    """The first sample of which all these facts are true."""
    return next(
        s for s in (sample(77, i) for i in range(10_000)) if facts.items() <= s.scene.facts.items()
    )


def test_reads_and_rejects_clean_clips(benchmark: ModuleType) -> None:
    result = benchmark.measure(200, noisy=False)
    assert result["all_facts_right"] >= 0.99
    assert result["wrong_captions_rejected"] >= 0.99


def test_reads_noisy_clips(benchmark: ModuleType) -> None:
    assert benchmark.measure(40, noisy=True)["all_facts_right"] >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_reads_and_rejects_2000_clips(benchmark: ModuleType) -> None:
    result = benchmark.measure(2000, noisy=False)
    assert result["all_facts_right"] >= 0.995
    assert result["wrong_captions_rejected"] >= 0.995


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_reads_2000_noisy_clips(benchmark: ModuleType) -> None:
    assert benchmark.measure(2000, noisy=True)["all_facts_right"] >= 0.98


def test_a_contradiction_changes_one_fact(benchmark: ModuleType) -> None:
    for index in range(200):
        facts = sample(0, index).scene.facts
        wrong = benchmark.contradict(facts, numpy_generator("contradict", index))
        assert wrong.keys() == facts.keys()
        assert sum(wrong[name] != facts[name] for name in facts) == 1


def test_facts_of_a_lone_object_are_the_scene_s() -> None:
    drawn = [sample(78, index) for index in range(60)]
    for one in [one for one in drawn if len(one.scene.bodies) == 1]:
        assert read(one.frames()).facts() == one.scene.facts


def test_two_objects_are_told_from_left_to_right_or_from_the_top() -> None:
    for relation, seen in (
        ("left", "left"),
        ("right", "left"),
        ("above", "above"),
        ("below", "above"),
    ):
        drawn = find(relation=relation)
        reading = read(drawn.frames())
        assert reading.facts()["relation"] == seen
        assert all(check(drawn.scene.facts, reading).values())


def test_a_mirrored_relation_is_wrong() -> None:
    drawn = find(relation="left")
    reading = read(drawn.frames())
    assert not all(check({**drawn.scene.facts, "relation": "right"}, reading).values())
    swapped = {
        **drawn.scene.facts, "relation": "right",
        "shape": drawn.scene.facts["shape2"], "shape2": drawn.scene.facts["shape"],
        "colour": drawn.scene.facts["colour2"], "colour2": drawn.scene.facts["colour"],
    }  # fmt: skip
    assert all(check(swapped, reading).values())


def test_only_what_was_prompted_is_checked() -> None:
    drawn = find(motion="left")
    reading = read(drawn.frames())
    assert check({"motion": "left"}, reading) == {"motion": True}
    assert check({"motion": "right", "camera": "still"}, reading) == {
        "motion": False,
        "camera": True,
    }
    assert check({}, reading) == {}


@pytest.mark.parametrize("scale", [2, 4])
def test_reads_a_clip_enlarged_for_display(scale: int) -> None:
    drawn = find(motion="spins")
    enlarged = drawn.frames().repeat(scale, axis=1).repeat(scale, axis=2)
    assert read(enlarged).facts() == drawn.scene.facts


@pytest.mark.parametrize("frames", [5, 9, 33])
def test_reads_clips_of_other_lengths(frames: int) -> None:
    for index in range(10):
        drawn = sample(79, index)
        assert all(check(drawn.scene.facts, read(drawn.frames(frames))).values())


def test_an_image_is_still() -> None:
    drawn = find(motion="still", camera="still")
    assert all(check(drawn.scene.facts, read(drawn.frames(1))).values())


def empty_scene() -> Scene:
    return replace(sample(0, 0).scene, bodies=())


def test_an_empty_scene_shows_nothing() -> None:
    reading = read(render(empty_scene()))
    assert reading.bodies == ()
    assert reading.facts()["shape"] == NOTHING
    prompted = sample(0, 0).scene.facts
    assert not check(prompted, reading)["shape"]


def noise() -> np.ndarray:
    rng = numpy_generator("noise", 0)
    return rng.integers(0, 256, (17, 64, 64, 3), dtype=np.uint8)


def black() -> np.ndarray:
    return np.zeros((17, 64, 64, 3), np.uint8)


@pytest.mark.parametrize(
    "frames", [noise(), black(), 255 - black()], ids=["noise", "black", "white"]
)
def test_rubbish_pleases_no_prompt(frames: np.ndarray) -> None:
    reading = read(frames)
    assert isinstance(reading, Reading)
    for index in range(100):
        assert not all(check(sample(80, index).short.facts, reading).values())


def test_an_object_that_appears_in_half_the_frames_only_is_not_accepted() -> None:
    drawn = find(motion="still", camera="still")
    frames = drawn.frames()
    frames[: len(frames) * 2 // 3] = render(replace(drawn.scene, bodies=()))[0]
    assert not all(check(drawn.scene.facts, read(frames)).values())


def test_frames_played_backwards_move_the_other_way() -> None:
    for forwards, backwards in (("left", "right"), ("up", "down"), ("grows", "shrinks")):
        frames = find(motion=forwards).frames()
        assert read(frames[::-1]).facts()["motion"] == backwards


def test_a_size_that_is_not_a_multiple_of_64_is_an_error() -> None:
    with pytest.raises(ValueError, match="48x48"):
        read(np.zeros((5, 48, 48, 3), np.uint8))
