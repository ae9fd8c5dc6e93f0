import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contentv.base.errors import UserError, WorldError
from contentv.data import media
from contentv.data.buckets import Bucket, BucketConfig, Buckets, Fit
from contentv.data.manifest import Clip
from contentv.data.media import read_clip, read_clips
from contentv.data.plan import Draw
from contentv.video.io import write_video

BUCKETS = Buckets(BucketConfig(areas=(64 * 64,), frames=(1, 9, 17), fps=8))


def draw(start: float = 0.0, down: float = 0.0, right: float = 0.0) -> Draw:
    return Draw(start, down, right, 0.0, (0.0, 0.0, 0.0))


def fit(clip: Clip) -> Fit:
    found = BUCKETS.fit(clip.size)
    assert isinstance(found, Fit), found
    return found


@pytest.fixture
def film(tmp_path: Path) -> Clip:
    """Frame i is i+1 tens bright on the left half, and dark on the right."""
    frames = np.zeros((20, 64, 80, 3), np.uint8)
    frames[:, :, :40] = (np.arange(20) * 10 + 10).astype(np.uint8)[:, None, None, None]
    write_video(tmp_path / "a.mp4", frames, fps=8)
    return Clip("a", "a.mp4", "video", "x", frames=20, fps=8.0, height=64, width=80)


@pytest.mark.parametrize(("start", "first"), [(0.0, 0), (1.0, 3), (0.5, 2)])
def test_the_frames_that_were_drawn(tmp_path: Path, film: Clip, start: float, first: int) -> None:
    clip = fit(film)
    frames = read_clip(tmp_path, film, clip, draw(start))
    assert frames.shape == (17, clip.bucket.height, clip.bucket.width, 3)
    seen = frames[:, 8:-8, 4:16].mean((1, 2, 3))
    assert np.allclose(seen, 10 * np.arange(first + 1, first + 18), atol=3)


def test_frames_are_left_out_for_a_slower_speed(tmp_path: Path, film: Clip) -> None:
    fast = replace(film, fps=16.0)
    frames = read_clip(tmp_path, fast, fit(fast), draw(0.0))
    seen = frames[:, 8:-8, 4:16].mean((1, 2, 3))
    assert np.allclose(seen, 10 * np.arange(1, 19, 2), atol=3)


def test_a_clip_that_starts_later_in_its_file(tmp_path: Path, film: Clip) -> None:
    later = replace(film, start=5, frames=12)
    frames = read_clip(tmp_path, later, fit(later), draw(0.0))
    assert frames[:, 8:-8, 4:16].mean((1, 2, 3))[0] == pytest.approx(60, abs=3)
    beyond = replace(film, start=12, frames=9)
    with pytest.raises(WorldError, match="a: ends before frame 20"):
        read_clip(tmp_path, beyond, fit(beyond), draw(0.0))


def test_the_crop_that_was_drawn(tmp_path: Path) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, ::2], picture[10:20] = 200, 90
    Image.fromarray(picture).save(tmp_path / "p.png")
    clip = Clip("p", "p.png", "picture", "x", frames=1, height=64, width=96)
    square = Fit(Bucket(1, 48, 64), 64, 96, 1, 1.0)
    found = read_clip(tmp_path, clip, square, draw(down=1.0, right=0.5))
    assert np.array_equal(found[0], picture[16:64, 16:80])
    smaller = read_clip(tmp_path, clip, fit(clip), draw())
    assert smaller.shape[0] == 1
    assert abs(smaller.mean() - picture.mean()) < 12


def test_a_clip_inside_a_tar_file(tmp_path: Path, film: Clip) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.add(tmp_path / "a.mp4", "a.mp4")
        tar.add(tmp_path / "a.mp4", "b.mp4")
    with tarfile.open(tmp_path / "0.tar") as tar:
        member = tar.getmember("b.mp4")
    inside = replace(film, path="0.tar", offset=member.offset_data, length=member.size)
    plain = read_clip(tmp_path, film, fit(film), draw())
    assert np.array_equal(read_clip(tmp_path, inside, fit(film), draw()), plain)


def test_bad_files_are_refused_with_a_reason(tmp_path: Path, film: Clip) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"nothing of use")
    with pytest.raises(WorldError, match=r"^a: cannot be decoded"):
        read_clip(tmp_path, replace(film, path="bad.mp4"), fit(film), draw())
    with pytest.raises(WorldError, match="cut short"):
        read_clip(tmp_path, replace(film, offset=10, length=1 << 30), fit(film), draw())
    with pytest.raises(UserError, match="leads out of the data's folder"):
        read_clip(tmp_path, replace(film, path="../a.mp4"), fit(film), draw())


@pytest.mark.parametrize("letters", [60_000, 300])
def test_many_clips_come_in_order_and_a_bad_one_is_alone(
    tmp_path: Path, film: Clip, letters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "_LETTERS_PER_CHILD", letters)
    (tmp_path / "bad.mp4").write_bytes(b"nothing of use")
    clips = [film, replace(film, path="bad.mp4"), replace(film, path="../a.mp4"), film]
    found = list(read_clips(tmp_path, [(clip, fit(film), draw(1.0)) for clip in clips]))
    assert np.array_equal(found[0], read_clip(tmp_path, film, fit(film), draw(1.0)))
    assert np.array_equal(found[3], found[0])
    assert [type(error) for error in found[1:3]] == [WorldError, UserError]
    assert str(found[1]).startswith("a: cannot be decoded")
