from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from composites import Plan, Truth, composite
from contentv.base.types import Frame
from contentv.curation.cutting.division import divide
from contentv.curation.cutting.shots import Shot, ShotFinder
from contentv.curation.settings import ShotSettings
from contentv.curation.step import Footage
from contentv.video.watching import watch
from footage import frames, real_files, takes

Mode = Literal["gated", "all", "off"]
COUNT = 45


def footage(fps: float = 25.0) -> Footage:
    return Footage("0" * 32, Path("a.mp4"), "video", 480, 270, fps, Fraction(1, 1000), 0)


def shots(
    thumbs: Frame,
    *,
    mode: Mode = "off",
    chunk: int = 1000,
    fps: float = 25.0,
    times: list[float] | None = None,
) -> list[Shot]:
    watcher = ShotFinder(ShotSettings(transnet=mode), chunk=chunk).watch(footage(fps))
    for number, thumb in enumerate(thumbs):
        time = times[number] if times else number / fps
        watcher.see(time, round(1000 * time), thumb)
    return watcher.shots()


def summary(found: list[Shot]) -> list[tuple[int, int, str, str]]:
    """First frame and end of each shot at 25 frames a second, and what is there."""
    return [
        (round(shot.start * 25), round(shot.end * 25), shot.begin, shot.end_kind) for shot in found
    ]


@pytest.fixture(scope="module")
def played() -> list[Frame]:
    """Thumbs of four real shots, ``[45 27 48 3]`` each."""
    listed = [take for take in takes(real_files()) if take.name == "test"]
    chosen = [take for take in listed if take.stop - take.start >= COUNT]
    return [np.stack(list(islice(frames(take, (48, 27)), COUNT))) for take in chosen[:4]]


def blended(tail: Frame, head: Frame) -> Frame:
    weights = np.arange(1, len(tail) + 1)[:, None, None, None] / (len(tail) + 1)
    return np.rint(tail * (1 - weights) + head * weights).astype(np.uint8)


@pytest.fixture(scope="module")
def cut_and_dissolved(played: list[Frame]) -> Frame:
    """A cut before frame 45, a dissolve of moving shots in frames 115..134, 205 frames in all."""
    two, three = (np.concatenate([each, each[::-1]]) for each in (played[0], played[3]))
    return np.concatenate([played[1], two[:70], blended(two[70:], three[:20]), three[20:]])


def test_a_hard_cut_is_exact_to_the_frame(played: list[Frame]) -> None:
    found = shots(np.concatenate(played[:3]))
    assert summary(found) == [
        (0, 45, "start", "cut"), (45, 90, "cut", "cut"), (90, 135, "cut", "end"),
    ]  # fmt: skip
    assert [(shot.start_pts, shot.end_pts) for shot in found] == [
        (0, 1800), (1800, 3600), (3600, 5400),
    ]  # fmt: skip


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_flash_is_no_cut(played: list[Frame], length: int) -> None:
    thumbs = played[0].copy()
    bright = thumbs[20 : 20 + length].astype(np.float32) * 0.2 + 255 * 0.8
    thumbs[20 : 20 + length] = bright.astype(np.uint8)
    assert summary(shots(thumbs)) == [(0, 45, "start", "end")]


def test_transnet_sees_a_dissolve_that_arithmetic_does_not(cut_and_dissolved: Frame) -> None:
    arithmetic = shots(cut_and_dissolved, mode="off")
    assert [shot.end_kind for shot in arithmetic] == ["cut", "end"]
    found = shots(cut_and_dissolved, mode="gated")
    assert [shot.end_kind for shot in found] == ["cut", "dissolve", "end"]
    assert round(found[0].end * 25) == 45
    assert abs(round(found[1].end * 25) - 115) <= 6
    assert abs(round(found[2].start * 25) - 135) <= 6
    assert 0.5 < found[2].begin_probability < 1
    # Whether frames come in one piece or in many changes nothing.
    assert shots(cut_and_dissolved, mode="gated", chunk=60) == found


@pytest.mark.parametrize("chunk", [29, 64, 300])
def test_pieces_of_any_size_give_the_same_shots(played: list[Frame], chunk: int) -> None:
    thumbs = np.concatenate([*played, np.zeros_like(played[0][:9]), *played[::-1], *played])
    assert shots(thumbs, chunk=chunk) == shots(thumbs)


def test_memory_does_not_grow_with_the_video(played: list[Frame]) -> None:
    watcher = ShotFinder(ShotSettings(transnet="off"), chunk=100).watch(footage())
    for number in range(1200):
        watcher.see(number / 25, number, played[0][number % 2])
        assert len(watcher._held) <= 2 * 200 + 100


def test_a_hole_in_time_ends_a_shot_where_its_last_frame_ends(played: list[Frame]) -> None:
    times = [number / 25 + (2.0 if number >= 20 else 0.0) for number in range(COUNT)]
    before, after = shots(played[0], times=times)
    assert (before.end_kind, after.begin) == ("gap", "gap")
    assert (before.end, before.end_pts, after.start) == (pytest.approx(0.8), 800, 2.8)


def test_the_frame_rate_changes_nothing(played: list[Frame]) -> None:
    black = np.zeros_like(played[0][:10])
    thumbs = np.concatenate([played[0], played[1], black, played[2]])
    usual, fast = shots(thumbs), shots(np.repeat(thumbs, 2, axis=0), fps=50.0)
    assert len(usual) == len(fast) == 3
    for one, other in zip(usual, fast, strict=True):
        assert (one.begin, one.end_kind) == (other.begin, other.end_kind)
        assert other.start == pytest.approx(one.start, abs=0.09)
        assert other.end == pytest.approx(one.end, abs=0.09)


def test_few_frames() -> None:
    assert shots(np.zeros((0, 27, 48, 3), np.uint8)) == []
    grey = np.random.default_rng(0).integers(0, 256, (1, 27, 48, 3)).astype(np.uint8)
    [one] = shots(grey)
    assert (one.start, one.end, one.end_pts) == (0.0, pytest.approx(0.04), 40)
    assert summary(shots(np.repeat(grey, 3, axis=0))) == [(0, 3, "start", "end")]


def seen(truth: Truth, mode: Mode) -> tuple[list[Shot], Footage]:
    found = Footage("0" * 32, truth.path, "video", 480, 270, float(truth.fps), Fraction(1), 0)
    watcher = ShotFinder(ShotSettings(transnet=mode)).watch(found)
    for item in watch(str(truth.path), "video", max_pixels=10**7, tolerant=False):
        if not isinstance(item, dict) and item[1]["stream"] == "thumbs":
            watcher.see(item[1]["time"], item[1]["pts"], item[0])
    return watcher.shots(), found


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_boundaries_are_found_and_no_clip_shows_one(tmp_path: Path, seed: int) -> None:
    plan = Plan(flashes=3)
    truth = composite(tmp_path / "a.mp4", seed, takes(real_files(tmp_path)), plan)
    found, video = seen(truth, "gated")
    pairs = list(pairwise(found))
    spans = [(round(a.end * truth.fps), round(b.start * truth.fps), a.end_kind) for a, b in pairs]
    for planted in truth.boundaries:
        near = [
            kind for first, stop, kind in spans
            if first <= planted.last + 2 and stop >= planted.first - 1
        ]  # fmt: skip
        assert near == ["cut" if planted.kind == "cut" else "dissolve"], planted
    assert len(spans) == len(truth.boundaries)
    for span in divide(found, video, [], ShotSettings()):
        assert truth.is_clean(span.start, span.end)
