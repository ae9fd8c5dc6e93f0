from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from contentv.base.types import Frame
from contentv.curation.scoring.boxes import covered, overlap
from contentv.curation.scoring.crop import box_of, crops
from contentv.curation.scoring.ocr import TextDetector
from contentv.curation.scoring.text import TextStep
from contentv.curation.settings import CropSettings, TextSettings
from contentv.curation.step import WHOLE, Box, Footage, Row, Span, Step
from footage import frames, real_files, takes
from planted import line, subtitled

SIZE = (480, 270)
FOOTAGE = Footage("v", Path("v.mp4"), "video", *SIZE, 1.0, Fraction(1, 1), 0)
FREE = {"overlay_boxes": [], **dict.fromkeys(("border_left", "border_top"), 0.0)}
OVERLAYS: Row = {**FREE, "border_right": 0.0, "border_bottom": 0.0}


@pytest.fixture(scope="module")
def step() -> TextStep:
    return TextStep(TextSettings())


@pytest.fixture(scope="module")
def clips() -> list[list[Frame]]:
    """Four shots of four samples."""
    chosen = [take for take in takes(real_files()) if take.name in ("bikes", "bigbuckbunny")][:4]
    return [list(islice(frames(take, SIZE), 2, 42, 11)) for take in chosen]


def scored(step: TextStep, clips: list[list[Frame]]) -> list[Row]:
    """Scores of clips that follow each other, one sample a second."""
    watcher, spans = step.watch(FOOTAGE), []
    time = 0
    for number, clip in enumerate(clips):
        spans.append(Span(str(number), "video", number, time, time + len(clip), 0, 0))
        for picture in clip:
            watcher.see(float(time), picture)
            time += 1
    return watcher.score(spans, [WHOLE] * len(spans))


def cropped(rows: list[Row]) -> list[Row]:
    spans = [Span("", "video", 0, 0.0, 1.0, 0, 1)] * len(rows)
    return crops(FOOTAGE, spans, rows, [OVERLAYS] * len(rows), CropSettings())


def test_it_is_a_step(step: TextStep) -> None:
    known: Step = step
    assert known.stream == "samples"


def test_clean_footage_has_no_persistent_text(step: TextStep, clips: list[list[Frame]]) -> None:
    rows = scored(step, clips)
    assert [row["text_persistent"] for row in rows] == [False] * 4
    assert [box_of(row) for row in cropped(rows)] == [WHOLE] * 4
    assert all(row.keys() == TextStep.columns.keys() for row in rows)


def test_changing_subtitles_are_found_and_cropped_away(
    step: TextStep, clips: list[list[Frame]]
) -> None:
    written = [
        [subtitled(frame, line(number, at // 2)) for at, frame in enumerate(clip)]
        for number, clip in enumerate(clips)
    ]
    rows = scored(step, [*written[:3], clips[3]])
    assert [row["text_persistent"] for row in rows] == [True] * 3 + [False]
    detector = TextDetector(limit_side=480, min_score=0.5)
    for clip, row in zip(written, cropped(rows)[:3], strict=False):
        assert row["crop_fault"] == ""
        assert row["crop_lost"] <= 0.2  # type: ignore[operator]
        assert row["text_left_max"] == 0
        kept = box_of(row)
        assert not any(overlap(kept, box) > 1e-3 for box in detector(clip[0]))


def test_one_subtitle_counts_where_the_source_has_others(
    step: TextStep, clips: list[list[Frame]]
) -> None:
    """Left of the middle, so that nothing but the source's other clips gives it away."""
    aside = [np.roll(subtitled(clip[0], "We leave this place"), -60, axis=1) for clip in clips]
    once = [[picture, *clip[1:]] for picture, clip in zip(aside, clips, strict=True)]
    assert [row["text_persistent"] for row in scored(step, once)] == [True] * 4
    assert [row["text_persistent"] for row in scored(step, [once[0], *clips[1:]])] == [False] * 4


def test_a_text_that_never_moves_is_static_and_stays_out_of_the_scene(
    step: TextStep, clips: list[list[Frame]]
) -> None:
    titled = [subtitled(frame, "CHANNEL SEVEN", bottom=0.5) for frame in clips[0]]
    [row] = scored(step, [titled])
    static = row["text_static"]
    assert isinstance(static, list)
    assert covered([Box(*static[:4])], Box(0.4, 0.45, 0.2, 0.03)) == pytest.approx(1)
    assert (row["text_persistent"], row["text_bands"], row["text_scene"]) == (True, [], 0)
    assert cropped([row])[0]["crop_fault"] == "text_uncroppable"


def test_a_clip_without_samples_has_no_scores(step: TextStep, clips: list[list[Frame]]) -> None:
    watcher = step.watch(FOOTAGE)
    watcher.see(0.0, clips[0][0])
    spans = [Span("a", "video", 0, 1.0, 4.0, 1, 4), Span("b", "picture", 0, 0.0, 0.0, 0, 0)]
    empty, picture = watcher.score(spans, [WHOLE] * 2)
    assert empty == dict.fromkeys(TextStep.columns)
    assert picture["text_samples"] == 1


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (900, 2), (33, 31), (480, 853)])
def test_pictures_of_any_size_are_looked_at(step: TextStep, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for picture in (np.zeros((*size, 3), np.uint8), rng.integers(0, 256, (*size, 3), np.uint8)):
        for box in step.detector(picture):
            assert 0 <= box.x <= box.x + box.width <= 1
            assert 0 <= box.y <= box.y + box.height <= 1
