from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contentv.base.errors import MediaError
from contentv.base.types import Frame
from contentv.video.sandbox import arrays_from_child
from contentv.video.timing import in_order
from contentv.video.watching import LUMA_SIDE, SAMPLE_SIDE, THUMB, watch
from footage import real_files
from hostile import COUNT, FPS, Form, Hostile, encode, hostile_files, moving

MOST = 4096 * 2304
FORM = Form()


class Seen:
    """Everything that `watch` shows of a file."""

    def __init__(self, path: Path, *, kind: str = "video", tolerant: bool = False) -> None:
        self.facts: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.pictures: dict[str, list[Frame]] = {"thumbs": [], "luma": [], "samples": []}
        self.times: dict[str, list[float]] = {name: [] for name in self.pictures}
        self.pts: list[int] = []
        for item in watch(str(path), kind, max_pixels=MOST, tolerant=tolerant):
            if isinstance(item, dict):
                self.facts, self.summary = item.get("facts", self.facts), item.get("summary", {})
            else:
                self._add(*item)

    def _add(self, picture: Frame, note: dict[str, Any]) -> None:
        self.pictures[note["stream"]].append(picture)
        self.times[note["stream"]].append(note["time"])
        if note["stream"] == "thumbs":
            self.pts.append(note["pts"])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Hostile]:
    files = hostile_files(tmp_path_factory.mktemp("hostile"))
    return {file.path.name: file for file in files}


def film(path: Path, count: int, form: Form = FORM, size: tuple[int, int] = (160, 96)) -> Path:
    encode(path, moving(1, count, size), form)
    return path


@pytest.mark.parametrize("slower", [1, 2, 5])
def test_every_frame_is_a_thumb_and_the_rest_comes_by_the_clock(
    slower: int, tmp_path: Path
) -> None:
    count = 80
    form = Form(times=lambda number: slower * number)
    seen = Seen(film(tmp_path / "film.mp4", count, form))
    times = np.array(seen.times["thumbs"])
    assert len(times) == count == seen.summary["frames"]
    assert times == pytest.approx(np.arange(count) * slower / FPS, abs=1e-4)
    for stream, rate, offset in (("luma", 8, 0.0), ("samples", 1, 0.5)):
        due = [(number + offset) / rate for number in range(int(times[-1] * rate) + 1)]
        first = [times[times >= moment - 0.005].min() for moment in due if moment <= times[-1]]
        assert seen.times[stream] == pytest.approx(sorted(set(first)))
    assert seen.summary["duration"] == pytest.approx(times[-1] + times[1])
    assert seen.summary["errors"] == 0
    assert not seen.summary["vfr"]


def test_time_stamps_of_the_file_are_kept(tmp_path: Path) -> None:
    seen = Seen(film(tmp_path / "late.mp4", 30, Form(times=lambda number: number + 100)))
    base = Fraction(seen.facts["time_base"])
    assert seen.facts["first_pts"] == seen.pts[0]
    assert seen.times["thumbs"][0] == 0
    assert seen.times["thumbs"][-1] == pytest.approx(float((seen.pts[-1] - seen.pts[0]) * base))


def test_sizes_of_what_is_shown(tmp_path: Path) -> None:
    seen = Seen(film(tmp_path / "wide.mp4", 24, size=(1280, 720)))
    assert {picture.shape for picture in seen.pictures["thumbs"]} == {(*THUMB, 3)}
    assert {picture.shape for picture in seen.pictures["luma"]} == {(144, LUMA_SIDE)}
    assert {picture.shape for picture in seen.pictures["samples"]} == {(SAMPLE_SIDE, 853, 3)}


def test_a_small_video_is_not_enlarged(tmp_path: Path) -> None:
    path = film(tmp_path / "small.mp4", 24)
    seen = Seen(path)
    assert seen.pictures["luma"][0].shape == (96, 160)
    (sample,) = seen.pictures["samples"]
    assert np.abs(sample.astype(int) - moving(1, 24)[12]).mean() < 4


def test_a_turned_video_is_shown_upright(hostile: dict[str, Hostile]) -> None:
    number = list(hostile).index("rotated.mp4")
    seen = Seen(hostile["rotated.mp4"].path)
    assert (seen.facts["width"], seen.facts["height"]) == (96, 160)
    stored = moving(number)[12]
    assert np.abs(seen.pictures["samples"][0] - np.rot90(stored, -1).astype(int)).mean() < 4


def test_pixels_become_square(tmp_path: Path) -> None:
    path = film(tmp_path / "squeezed.mkv", 24, Form("libx264", "yuv420p", "matroska", aspect=2))
    seen = Seen(path)
    assert (seen.facts["width"], seen.facts["height"], seen.facts["sar"]) == (320, 96, 2.0)
    assert seen.pictures["samples"][0].shape == (96, 320, 3)


def test_one_frame_gives_one_picture_of_each_stream(hostile: dict[str, Hostile]) -> None:
    seen = Seen(hostile["one-frame.mp4"].path)
    assert [len(pictures) for pictures in seen.pictures.values()] == [1, 1, 1]
    assert seen.summary["frames"] == 1


def test_what_the_file_says_of_itself(hostile: dict[str, Hostile]) -> None:
    assert Seen(hostile["ten-bit.mp4"].path).facts["bit_depth"] == 10
    assert Seen(hostile["uneven.mp4"].path).summary["vfr"]
    odd = Seen(hostile["odd-sides.mkv"].path).facts
    assert (odd["width"], odd["height"], odd["codec"], odd["fps"]) == (159, 95, "h264", FPS)


def test_damage_in_the_middle_is_counted_and_the_end_is_seen(hostile: dict[str, Hostile]) -> None:
    seen = Seen(hostile["garbage-midstream.mp4"].path)
    assert seen.summary["errors"] > 0
    assert 0 < len(seen.times["thumbs"]) < COUNT
    assert seen.times["thumbs"][-1] == pytest.approx((COUNT - 1) / FPS)


@pytest.mark.parametrize("name", ["turned.jpg", "printed.jpg", "deep.png"])
def test_a_picture_is_one_sample(hostile: dict[str, Hostile], name: str) -> None:
    seen = Seen(hostile[name].path, kind="picture")
    assert [len(pictures) for pictures in seen.pictures.values()] == [0, 0, 1]
    size = (160, 96, 3) if name == "turned.jpg" else (96, 160, 3)
    assert seen.pictures["samples"][0].shape == size
    assert (seen.facts["height"], seen.facts["width"], 3) == size


def test_a_deep_picture_keeps_its_values(hostile: dict[str, Hostile]) -> None:
    number = list(hostile).index("deep.png")
    (sample,) = Seen(hostile["deep.png"].path, kind="picture").pictures["samples"]
    assert np.abs(sample[..., 0].astype(int) - moving(number)[0][..., 0]).max() <= 1


def test_a_large_picture_is_shown_small(tmp_path: Path) -> None:
    Image.new("RGB", (1500, 1000), (10, 20, 30)).save(tmp_path / "large.png")
    (sample,) = Seen(tmp_path / "large.png", kind="picture").pictures["samples"]
    assert sample.shape == (SAMPLE_SIDE, 720, 3)
    assert (sample == (10, 20, 30)).all()


def test_every_hostile_file_gets_its_verdict(hostile: dict[str, Hostile]) -> None:
    for file in hostile.values():
        if file.verdict in ("ok", "partial"):
            errors = Seen(file.path, kind=file.kind).summary["errors"]
            assert bool(errors) == (file.verdict == "partial"), file.path.name
        elif file.verdict != "unreadable":
            with pytest.raises(MediaError) as refused:
                Seen(file.path, kind=file.kind)
            assert refused.value.cause == file.verdict, file.path.name
            # Equal bytes have equal errors, wherever they lie.
            assert str(file.path.parent) not in str(refused.value)
            assert "\n" not in str(refused.value)


def test_verdicts_come_out_of_a_child_process(hostile: dict[str, Hostile]) -> None:
    def watched(name: str) -> list[Any]:
        file = hostile[name]
        arguments = {"path": str(file.path), "kind": file.kind, "max_pixels": MOST}
        return list(
            arrays_from_child(
                "contentv.video.watching:watch",
                {**arguments, "tolerant": False},
                seconds=60,
                memory=2 << 30,
                max_bytes=1 << 22,
            )
        )

    assert watched("one-frame.mp4")[-1]["summary"]["frames"] == 1
    with pytest.raises(MediaError, match="pixels") as refused:
        watched("header-bomb.gif")
    assert refused.value.cause == "unsupported"


def test_exchanged_time_stamps_are_put_in_order() -> None:
    path = real_files().get("Megamind")
    if path is None:
        pytest.skip("Debian's opencv-doc is not installed")
    seen = Seen(path)
    times = np.array(seen.times["thumbs"])
    assert len(times) == 270
    assert (np.diff(times) > 0).all()
    assert seen.summary["errors"] == 0


class Stamped:
    def __init__(self, pts: int | None) -> None:
        self.pts = pts


def test_frames_keep_their_order_and_stamps_rise() -> None:
    frames: list[Any] = [Stamped(pts) for pts in (0, 2, 1, 4, 3, None, 6, 7, 5, 8)]
    given = list(in_order(frames))
    assert [pts for _, pts in given] == list(range(9))
    assert [frame for frame, _ in given] == [frame for frame in frames if frame.pts is not None]
