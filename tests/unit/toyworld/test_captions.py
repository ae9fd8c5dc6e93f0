import re
from collections import defaultdict
from statistics import mean

import pytest

from contentv.base.rng import numpy_generator
from contentv.toyworld import words
from contentv.toyworld.captions import caption, parse, vocabulary
from contentv.toyworld.dataset import Sample, sample
from contentv.toyworld.scene import DIRECTIONS, Split

SPLITS: tuple[Split, ...] = ("train", "seen", "held_out")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [sample(11, index, split=SPLITS[index % 3]) for index in range(3000)]


def words_of(text: str) -> list[str]:
    return text.replace(".", " ").split()


def test_parsing_gives_back_what_every_caption_states(samples: list[Sample]) -> None:
    for drawn in samples:
        for written in (drawn.short, drawn.long):
            assert parse(written.text) == written.facts, written.text


def test_captions_state_the_truth(samples: list[Sample]) -> None:
    for drawn in samples:
        assert drawn.short.facts.items() <= drawn.scene.facts.items()
        assert drawn.long.facts == drawn.scene.facts


def test_short_captions_are_short(samples: list[Sample]) -> None:
    lengths = [len(drawn.short.text.split()) for drawn in samples]
    assert max(lengths) <= 14
    assert 6.5 <= mean(lengths) <= 8.5
    assert all(re.fullmatch("[a-z ]+", drawn.short.text) for drawn in samples)


def test_long_captions_have_60_to_100_words(samples: list[Sample]) -> None:
    lengths = [len(words_of(drawn.long.text)) for drawn in samples]
    assert min(lengths) >= 60
    assert max(lengths) <= 100


def test_short_captions_name_what_matters(samples: list[Sample]) -> None:
    for drawn in samples:
        truth, said = drawn.scene.facts, drawn.short.facts
        assert {"shape", "colour"} <= set(said)
        if "relation" in truth:
            assert set(said) - {"background"} == {
                "shape",
                "colour",
                "shape2",
                "colour2",
                "relation",
            }
        elif truth["camera"] != "still":
            assert "camera" in said
        else:
            assert "motion" in said
        assert ("speed" in said) == (truth["motion"] in DIRECTIONS)
        assert ("style" in said) == (truth["style"] != "flat")


def test_size_and_background_are_said_now_and_then(samples: list[Sample]) -> None:
    sized = [drawn for drawn in samples if "size" in drawn.scene.facts]
    assert mean("size" in drawn.short.facts for drawn in sized) == pytest.approx(0.4, abs=0.07)
    told = mean("background" in drawn.short.facts for drawn in samples)
    assert told == pytest.approx(0.5, abs=0.07)


def test_every_family_has_at_least_five_templates() -> None:
    assert set(words.TEMPLATES) == {"move", "rise", "still", "change", "two", "pan"}
    for family in ("move", "still", "change", "two", "pan"):
        assert len(set(words.TEMPLATES[family])) >= 5


def test_every_word_is_used_and_there_are_few(samples: list[Sample]) -> None:
    used = {w for drawn in samples for c in (drawn.short, drawn.long) for w in words_of(c.text)}
    assert used == vocabulary()
    assert len(used) <= 250


def test_no_word_stands_for_two_facts() -> None:
    meanings = defaultdict(set)
    tables = {
        "colour": [words.COLOUR], "shape": [words.SHAPE], "background": [words.BACKGROUND],
        "style": [words.STYLE], "size": [words.SIZE], "motion": [words.RISES, words.CHANGING],
        "speed": [words.PACE, words.ADVERB, words.SLOW, words.CRAWLS],
    }  # fmt: skip
    for fact, many in tables.items():
        for table in many:
            for value, phrases in table.items():
                for phrase in phrases:
                    meanings[phrase].add((fact, value))
    assert {phrase: found for phrase, found in meanings.items() if len(found) > 1} == {}


@pytest.mark.parametrize("slot", words.SLOTS)
def test_every_synonym_is_understood(slot: str) -> None:
    fact, table = words.SLOTS[slot]
    frame = {
        "where": "a red circle {} a blue square", "here": "a red circle {} and a blue square",
        "there": "a blue square and a red circle {}", "pan": "the camera pans {} past a red circle",
        "fixed": "the camera is {}", "pace": "a red circle moves left {}",
        "adverb": "a red circle {} moves left", "slow": "a {} red circle moves left",
        "crawls": "a red circle {} left", "size": "a {} red circle",
    }.get(slot, "a red circle {}")  # fmt: skip
    for value, phrases in table.items():
        for phrase in phrases:
            stated = parse(frame.format(phrase))
            if slot != "there":  # says where the second object is, from the first one's side
                assert stated[fact] == value, phrase


@pytest.mark.parametrize("aside", words.ASIDES)
def test_asides_state_nothing(aside: str) -> None:
    assert parse(aside) == {}
    tables = [words.COLOUR, words.SHAPE, *(table for _, table in words.SLOTS.values())]
    telling = {w for t in tables for many in t.values() for p in many for w in p.split()}
    glue = {"to", "the", "of", "on", "at", "in", "as", "is", "a"}
    assert not set(aside.split()) & (telling - glue - {"not", "does"})


def test_the_same_generator_writes_the_same_caption() -> None:
    scene = sample(0, 0).scene
    for long in (False, True):
        a, b = (caption(scene.facts, numpy_generator("caption", 1), long=long) for _ in range(2))
        assert a == b
    others = {
        caption(scene.facts, numpy_generator("caption", i), long=False).text for i in range(50)
    }
    assert len(others) > 20


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (
            "A big yellow circle moves slowly to the right",
            "shape=circle colour=yellow size=large motion=right speed=slow",
        ),
        ("a RED square, moving from left to right!", "shape=square colour=red motion=right"),
        ("the ball doesn't move", "shape=circle motion=still"),
        ("a tiny box falls fast", "shape=square size=small motion=down speed=fast"),
        (
            "The camera slowly pans left over a hollow green cross.",
            "camera=left shape=cross colour=green style=hollow",
        ),
        (
            "a box to the right of a cyan triangle, on black",
            "shape=square relation=right shape2=triangle colour2=cyan background=black",
        ),
        (
            "to the left of a blue square is a red circle",
            "shape=circle colour=red relation=left shape2=square colour2=blue",
        ),
        (
            "The circle is red and moves to the left of the frame quickly",
            "shape=circle colour=red motion=left speed=fast",
        ),
        ("a square with a white outline shrinks", "shape=square style=outlined motion=shrinks"),
        (
            "a red circle and a blue square",
            "shape=circle colour=red shape2=square colour2=blue",
        ),
        ("a small red circle grows slowly", "shape=circle colour=red motion=grows"),
        ("a red circle with a square on its left", "shape=circle colour=red shape2=square"),
        ("an astronaut rides a horse", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_a_persons_own_sentence(text: str, facts: str) -> None:
    assert parse(text) == dict(item.split("=") for item in facts.split())


def test_parsing_survives_any_text() -> None:
    assert parse("\x00 ¿红色的圆? " + "left right " * 5000)["motion"] == "left"
