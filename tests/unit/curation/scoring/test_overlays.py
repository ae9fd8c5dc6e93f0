from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest

from contentv.base.types import Frame
from contentv.curation.scoring.overlays import OverlayStep, OverlayWatcher
from contentv.curation.settings import OverlaySettings
from contentv.curation.step import WHOLE, Row, Span
from motionpictures import FOOTAGE
from planted import Edges, bordered, logo, overlaid
from stills import SIZE, stills

COVER = logo(SIZE, 3)


def watched(pictures: Iterable[Frame], config: OverlaySettings) -> OverlayWatcher:
    watcher = OverlayStep(config).watch(FOOTAGE)
    for number, picture in enumerate(pictures):
        watcher.see(number + 0.5, picture)
    return watcher


def spans(count: int, seconds: int = 1) -> list[Span]:
    """One clip a shot and its key frame; each shot lasts `seconds`."""
    made = []
    for shot in range(count):
        start, middle = float(seconds * shot), seconds * (shot + 0.5)
        made.append(Span(f"c{shot}", "video", shot, start, start + seconds, 0, 1))
        made.append(Span(f"p{shot}", "picture", shot, middle, middle, 0, 0))
    return made


def rows(pictures: list[Frame], clips: list[Span] | None = None) -> list[Row]:
    clips = clips or spans(len(pictures))
    found = watched(pictures, OverlaySettings()).score(clips, [WHOLE] * len(clips))
    assert all(row.keys() == OverlayStep.columns.keys() for row in found)
    return found


def test_all_clips_of_a_source_get_its_row() -> None:
    found = rows([overlaid(picture, COVER, 0.3) for picture in stills()])
    assert len(found) == 2 * len(stills())
    assert all(row == found[0] for row in found)
    assert found[0]["overlay_evidence"] == "found"
    boxes = found[0]["overlay_boxes"]
    assert isinstance(boxes, list)
    [x, y, width, height] = boxes
    rows_, columns = np.nonzero(COVER > 0.5)
    assert x <= columns.min() / SIZE[0]
    assert columns.max() / SIZE[0] <= x + width
    assert y <= rows_.min() / SIZE[1]
    assert rows_.max() / SIZE[1] <= y + height


def test_nothing_over_the_pictures() -> None:
    [row, *_] = rows(list(stills()))
    assert (row["overlay_evidence"], row["overlay_boxes"]) == ("none", [])
    assert row["border_kind"] == "none"


@pytest.mark.parametrize("count", [1, 5])
def test_few_shots_are_no_evidence(count: int) -> None:
    [row, *_] = rows([overlaid(picture, COVER, 1.0) for picture in stills()[:count]])
    assert (row["overlay_evidence"], row["overlay_boxes"]) == ("insufficient", [])


def test_many_shots_of_one_scene_are_no_evidence() -> None:
    assert rows([stills()[5]] * 12)[0]["overlay_evidence"] == "insufficient"


def test_a_picture_says_what_borders_it_has() -> None:
    still = [Span("a", "picture", 0, 0.5, 0.5, 0, 0)]
    [row] = rows([bordered(stills()[5], Edges(top=27, bottom=27))], still)
    assert row["overlay_evidence"] == "insufficient"
    assert row["border_kind"] == "black"
    assert (row["border_top"], row["border_bottom"]) == pytest.approx((0.1, 0.1))
    assert (row["border_left"], row["border_right"]) == (0.0, 0.0)


def test_the_edge_of_a_border_is_no_overlay_and_a_logo_beside_it_is() -> None:
    edges = Edges(left=60, right=60)
    [row, *_] = rows([bordered(picture, edges) for picture in stills()])
    assert (row["overlay_evidence"], row["border_left"]) == ("none", 60 / 480)
    cover = np.roll(COVER, -70 if COVER[:, 240:].any() else 70, axis=1)
    [row, *_] = rows([overlaid(bordered(picture, edges), cover, 0.3) for picture in stills()])
    assert row["border_left"] == 60 / 480
    assert isinstance(row["overlay_boxes"], list)
    [x, _, width, _] = row["overlay_boxes"]
    columns = np.flatnonzero((cover > 0.5).any(0)) / SIZE[0]
    assert columns.min() - 0.03 < x <= columns.min()
    assert columns.max() <= x + width < columns.max() + 0.03


def test_memory_stays_small_however_long_the_video_is() -> None:
    config = OverlaySettings(kept=16, side=64)
    watcher = watched((picture for _ in range(40) for picture in stills()), config)
    assert 8 <= len(watcher._samples) <= 16
    assert all(min(sample.shape) == 64 for _, sample in watcher._samples)
    times = [time for time, _ in watcher._samples]
    assert len({round(b - a) for a, b in pairwise(times)}) == 1
    assert times[-1] > 350


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (12, 9), (63, 65)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for _ in range(8)]
    assert rows(noise)[0]["overlay_boxes"] == []
    edges = Edges(*((side * 2) // 5 for side in (size[1], size[0]) * 2))
    inner = (slice(edges.top, -edges.bottom or None), slice(edges.left, -edges.right or None))
    framed = [np.zeros_like(picture) for picture in noise]
    for frame, picture in zip(framed, noise, strict=True):
        frame[inner] = picture[inner]
    assert rows(framed)[0]["overlay_boxes"] == []


def test_nothing_seen_nothing_said() -> None:
    watcher = watched([], OverlaySettings())
    assert watcher.score(spans(1), [WHOLE] * 2) == [dict.fromkeys(OverlayStep.columns)] * 2
    assert watcher.score([], []) == []
