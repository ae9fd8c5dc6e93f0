"""The generators of test footage say the truth about the pixels they write."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import footage
from composites import KINDS, Plan, Truth, composite, played, write
from contentv.base.types import Frame, Frames
from contentv.video.io import read_video
from copies import CHANGES, write_copies
from footage import Take, frames, real_files, takes
from planted import (
    Edges,
    bordered,
    line,
    logo,
    overlaid,
    pan_speed,
    panned,
    subtitled,
    subtitles,
    zoom_speed,
    zoomed,
)

SMALL = (96, 54)
PLAN = Plan(shots=5, lengths=(40, 50), soft=(8, 12), flashes=1, size=SMALL, crf=12)


@pytest.fixture(scope="module")
def pool() -> list[Take]:
    return [take for take in takes(real_files()) if take.name != "test"]


@pytest.fixture(scope="module")
def made(pool: list[Take], tmp_path_factory: pytest.TempPathFactory) -> tuple[Truth, Frames]:
    path = tmp_path_factory.mktemp("made") / "composite.mp4"
    truth = composite(path, 3, pool, PLAN)
    return truth, read_video(path).frames


@pytest.fixture(scope="module")
def picture(pool: list[Take]) -> Frame:
    return next(frames(pool[0], (240, 136)))


def far(one: Frame, other: Frame) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def test_every_known_file_can_be_played(pool: list[Take]) -> None:
    assert {"bikes", "bigbuckbunny", "carphone_pristine"} <= {take.name for take in pool}
    first_of_each = {take.name: take for take in reversed(takes(real_files()))}
    for take in first_of_each.values():
        assert next(frames(take)).std() > 10, take


def test_a_missing_package_is_said_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(footage.PYPI, "no-such-package", ("a/b.mp4",))
    with pytest.raises(FileNotFoundError, match=r"no-such-package is not installed; pip install"):
        real_files()


def test_tests_and_benchmarks_share_no_shot(tmp_path: Path) -> None:
    files = real_files(tmp_path)
    assert not set(takes(files, "tests")) & set(takes(files, "benchmarks"))


def test_shots_and_transitions_fill_a_composite(made: tuple[Truth, Frames]) -> None:
    truth, shown = made
    assert len(shown) == truth.count
    parts = [*truth.shots, *((b.first, b.last + 1) for b in truth.boundaries)]
    inside = [number for start, stop in parts for number in range(start, stop)]
    assert sorted(inside) == list(range(truth.count))


def test_frames_of_a_shot_are_those_of_its_take(made: tuple[Truth, Frames]) -> None:
    truth, shown = made
    for take, (start, stop) in zip(truth.takes, truth.shots, strict=True):
        source = np.stack(played(take, 0, take.stop - take.start, SMALL)).astype(float)
        for number in (start, stop - 1):
            assert np.abs(source - shown[number]).mean((1, 2, 3)).min() < 6, (take, number)


def test_frames_of_a_transition_are_of_no_shot(made: tuple[Truth, Frames]) -> None:
    truth, shown = made
    soft = [boundary for boundary in truth.boundaries if boundary.kind != "cut"]
    assert soft
    for boundary in soft:
        middle = (boundary.first + boundary.last) // 2
        assert far(shown[middle], shown[boundary.first - 1]) > 6
        assert far(shown[middle], shown[boundary.last + 1]) > 6
        assert not truth.is_clean(boundary.last / truth.fps, (boundary.last + 9) / truth.fps)
        assert truth.is_clean((boundary.last + 1) / truth.fps, (boundary.last + 9) / truth.fps)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_boundary(kind: str, pool: list[Take], tmp_path: Path) -> None:
    plan = Plan(shots=2, kinds=(kind,), lengths=(30, 30), soft=(9, 9), size=SMALL, crf=12)
    truth = composite(tmp_path / "one.mp4", 1, pool, plan)
    (boundary,) = truth.boundaries
    assert boundary.kind == kind
    assert boundary.last - boundary.first + 1 == (0 if kind == "cut" else 9)
    shown = read_video(truth.path).frames.astype(float)
    old, new = shown[boundary.first - 1], shown[boundary.last + 1]
    middle = shown[(boundary.first + boundary.last) // 2]
    if kind == "cut":
        assert far(old, shown[boundary.first]) > 18
    elif kind == "fade":
        assert middle.mean() < 4
    elif kind == "dissolve":
        assert far(middle, (old + new) / 2) < 0.6 * far(old, new)
    else:
        nearer = np.abs(middle - new).mean(2) < np.abs(middle - old).mean(2)
        assert 0.2 < nearer.mean() < 0.8


def test_a_flash_is_bright_and_not_a_boundary(made: tuple[Truth, Frames]) -> None:
    truth, shown = made
    (flash,) = truth.flashes
    assert shown[flash].mean() > 200
    assert shown[flash - 1].mean() < 200
    assert any(start < flash < stop - 3 for start, stop in truth.shots)


def test_equal_seeds_give_equal_files(pool: list[Take], tmp_path: Path) -> None:
    plan = Plan(shots=3, lengths=(30, 30), soft=(8, 9), size=SMALL)
    paths = [tmp_path / f"{number}.mp4" for number in range(3)]
    truths = [
        composite(path, seed, pool, plan) for path, seed in zip(paths, (1, 1, 2), strict=True)
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert truths[0].boundaries == truths[1].boundaries
    assert truths[0].takes != truths[2].takes


def test_what_is_planted_knows_frame_and_shot(pool: list[Take], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def note(frame: Frame, number: int, shot: int) -> Frame:
        seen.append((number, shot))
        return frame

    plan = Plan(shots=3, kinds=("cut",), lengths=(20, 24), size=SMALL)
    truth = composite(tmp_path / "noted.mp4", 1, pool, plan, note)
    for shot, (start, stop) in enumerate(truth.shots):
        assert seen[start:stop] == [(number, shot) for number in range(start, stop)]


def test_a_subtitle_changes_the_lowest_part_alone(picture: Frame) -> None:
    changed = (subtitled(picture, line(1, 0)) != picture).any(2)
    rows = np.flatnonzero(changed.any(1))
    assert rows.min() > 0.8 * len(picture)
    assert changed.mean() > 0.004


def test_subtitles_change_or_stay() -> None:
    changing, staying = subtitles(1, 10, persistent=False), subtitles(1, 10, persistent=True)
    assert len({changing(number) for number in range(100)}) > 4
    assert "" in {changing(number) for number in range(20)}
    assert len({staying(number) for number in range(100)}) == 1


@pytest.mark.parametrize("seed", range(6))
def test_a_logo_lies_in_a_corner_with_its_opacity(picture: Frame, seed: int) -> None:
    cover = logo((240, 136), seed)
    changed = overlaid(picture, cover, 0.25)
    expected = picture + 0.25 * cover[..., None] * (255.0 - picture)
    assert np.abs(changed - expected).max() <= 0.501
    rows, columns = np.nonzero(cover)
    assert len(rows) > 60
    assert rows.max() < 68 or rows.min() > 68
    assert columns.max() < 120 or columns.min() > 120


def test_borders_are_black_and_as_wide_as_said(picture: Frame) -> None:
    edges = Edges(3, 8, 5, 9)
    framed = bordered(np.maximum(picture, 40), edges)
    rows, columns = np.nonzero(framed.any(2))
    assert (columns.min(), rows.min()) == (edges.left, edges.top)
    assert (239 - columns.max(), 135 - rows.max()) == (edges.right, edges.bottom)


def test_a_pan_moves_by_its_speed(picture: Frame) -> None:
    shown = list(panned(picture, (10.0, -20.0), size=(160, 90), fps=10, count=5))
    for one, following in pairwise(shown):
        assert np.array_equal(one[:-2, 1:], following[2:, :-1])
    assert pan_speed((30.0, 40.0), (30, 40)) == 1


@pytest.mark.parametrize("rate", [2.0, 0.5])
def test_a_zoom_enlarges_by_its_rate(picture: Frame, rate: float) -> None:
    shown = list(zoomed(picture, rate, size=(240, 136), fps=4, count=5))
    wide, near = (shown[0], shown[-1]) if rate > 1 else (shown[-1], shown[0])
    assert np.array_equal(wide, picture)
    middle = picture[34:102, 60:180].repeat(2, 0).repeat(2, 1)
    assert far(near, middle) < 8


def test_a_zoom_by_nothing_has_no_speed() -> None:
    assert zoom_speed(1.0, (16, 9), 0.125) == 0
    x, y = np.meshgrid([-0.5, 0.5], [-0.5, 0.5])
    assert zoom_speed(2.0, (2, 2), 1.0) == pytest.approx(np.hypot(x, y).mean() / np.hypot(2, 2))


def test_copies_are_what_their_names_say(pool: list[Take], tmp_path: Path) -> None:
    shown = played(pool[0], 0, 36, (96, 56))
    written = write_copies(tmp_path, "clip", shown, fps=24)
    assert set(written) == {"original", *CHANGES}
    clips = {name: read_video(path).frames for name, path in written.items()}
    original = clips["original"]
    assert clips["half"].shape == (24, 28, 48, 3)
    assert clips["cropped"].shape[1:3] == (50, 86)
    assert far(clips["flipped"][:, :, ::-1], original) < 5
    assert far(clips["shifted"][:12], original[12:]) < 5
    assert clips["brighter"].mean() > 1.1 * original.mean()
    assert far(clips["subtitle"][:, :40], original[:, :40]) < 5
    assert written["poor"].stat().st_size < 0.6 * written["original"].stat().st_size


def test_a_take_too_short_is_played_to_and_fro(tmp_path: Path) -> None:
    path = tmp_path / "ramp.mp4"
    write(path, [np.full((32, 32, 3), 30 * level, np.uint8) for level in range(4)], fps=8, crf=4)
    means = [frame.mean() / 30 for frame in played(Take(path, 0, 4), 0, 9, None)]
    assert means == pytest.approx([0, 1, 2, 3, 2, 1, 0, 1, 2], abs=0.1)
