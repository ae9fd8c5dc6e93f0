from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from contentv.base.errors import NumericsError
from contentv.base.types import Frame
from contentv.evaluation.config import EvaluateConfig
from contentv.evaluation.questions import Question, ask
from contentv.evaluation.scoring import Row, judge, psnr, score, seen_as
from contentv.toyworld.oracle import read
from contentv.toyworld.reading import check
from contentv.toyworld.render import render


def questions(number: int, **settings: object) -> list[Question]:
    config = {"suite": "toybench", "num_prompts": number, **settings}
    return list(ask(EvaluateConfig.model_validate(config)))


def test_a_perfect_model_is_always_right() -> None:
    for question in questions(60):
        row = score(question, question.sample.frames())
        assert row.all_right, row.mistakes
        assert row.seen == row.asked
        assert row.mistakes == ""


def test_what_is_seen_agrees_with_the_verdict() -> None:
    asked = questions(24)
    frames = [question.sample.frames() for question in asked]
    frames.append(np.full_like(frames[0], 128))
    readings = [read(clip) for clip in frames]
    for question in asked:
        facts = question.caption.facts
        for reading in readings:
            right = check(facts, reading)
            seen = seen_as(facts, reading, right)
            assert {name: seen[name] == facts[name] for name in facts} == right


@pytest.mark.parametrize("changed", [0, 1])
def test_of_two_objects_one_can_be_as_asked(changed: int) -> None:
    question = next(q for q in questions(60, captions="long") if "shape2" in q.caption.facts)
    scene = question.sample.scene
    bodies = list(scene.bodies)
    bodies[changed] = replace(bodies[changed], style="hollow")
    row = score(question, render(replace(scene, bodies=tuple(bodies))))
    assert [name for name, right in row.right.items() if not right] == ["style"]
    assert row.seen["style"] in ("mixed", "hollow")


def test_an_empty_clip_shows_nothing() -> None:
    question = questions(1)[0]
    row = score(question, np.full((17, 64, 64, 3), 128, np.uint8))
    assert row.seen["shape"] == "nothing"
    assert not row.all_right
    assert "shape: nothing, not " in row.mistakes


def test_a_clip_that_cannot_be_decoded_is_a_row_with_a_reason() -> None:
    def broken() -> Iterator[Frame]:
        yield np.zeros((64, 64, 3), np.uint8)
        raise NumericsError("NaN in the decoded video")

    question = questions(1)[0]
    row, frames = judge(question, broken(), blank=(17, 64, 64, 3))
    assert row.fault == "NaN in the decoded video"
    assert not any(row.right.values())
    assert frames.shape == (17, 64, 64, 3)


def test_psnr() -> None:
    clip = np.full((3, 4, 4, 3), 100, np.uint8)
    assert psnr(clip + np.uint8(1), clip) == pytest.approx(20 * np.log10(255))
    assert psnr(clip, clip) == 100
    assert psnr(np.full_like(clip, 255), np.zeros_like(clip)) == 0


def test_a_row_survives_its_file() -> None:
    question = questions(1)[0]
    clip = question.sample.frames()
    row = score(question, clip, reference=clip)
    assert Row.model_validate_json(row.model_dump_json()) == row
    assert row.psnr == 100
