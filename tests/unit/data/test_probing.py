import os
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contentv.data import probing
from contentv.data.layouts import read_dataset
from contentv.data.manifest import Clip
from contentv.data.probing import measure_clips
from contentv.video.io import write_video


def video(path: Path, frames: int = 9, height: int = 32, width: int = 48, fps: int = 8) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (frames, height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, noise, fps=fps)
    path.with_suffix(".txt").write_text("noise")
    return path


def picture(path: Path, height: int = 20, width: int = 30, turn: int = 0) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn or 1
    Image.fromarray(noise).save(path, exif=exif)
    path.with_suffix(".txt").write_text("noise")
    return path


def measure(root: Path, known: Sequence[Clip] = (), **options: int) -> dict[str, Clip]:
    clips = read_dataset(root).clips
    found = measure_clips(root, clips, known=known, workers=2, **options)  # type: ignore[arg-type]
    assert [clip.id for clip in found] == [clip.id for clip in clips]
    return {clip.path: clip for clip in found}


def size(clip: Clip) -> tuple[int, int, int, float]:
    assert clip.fault == ""
    return clip.frames, clip.height, clip.width, clip.fps


def test_good_files_are_measured_exactly(tmp_path: Path) -> None:
    video(tmp_path / "a.mp4", 9, 32, 48, 8)
    video(tmp_path / "deep/b.gif", 5, 16, 20, 10)
    picture(tmp_path / "c.png")
    picture(tmp_path / "d.jpg", turn=6)
    found = measure(tmp_path)
    assert {path: size(clip) for path, clip in found.items()} == {
        "a.mp4": (9, 32, 48, pytest.approx(8)),
        "deep/b.gif": (5, 16, 20, pytest.approx(10)),
        "c.png": (1, 20, 30, 0.0),
        "d.jpg": (1, 30, 20, 0.0),
    }


def test_bad_files_are_faults_and_nobody_elses(tmp_path: Path) -> None:
    good = video(tmp_path / "m.mp4")
    data = good.read_bytes()
    contents = {
        "cut.mp4": data[: len(data) // 2],
        "empty.mp4": b"",
        "text.mp4": b"no video at all" * 50,
        "play.mp4": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "cut.png": picture(tmp_path / "z.png").read_bytes()[:300],
        "text.png": b"no picture",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).with_suffix(".txt").write_text("x")
    found = measure(tmp_path)
    assert {path for path, clip in found.items() if clip.fault} == set(contents)
    assert size(found["m.mp4"])[0] == 9
    assert all("\n" not in clip.fault for clip in found.values())


def test_missing_files_and_links_that_lead_out(tmp_path: Path) -> None:
    root = tmp_path / "data"
    video(tmp_path / "outside.mp4")
    video(root / "a.mp4")
    (root / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (root / "metadata.csv").write_text("video,text\na.mp4,x\nlink.mp4,x\ngone.mp4,x\n")
    found = measure(root)
    assert found["a.mp4"].fault == ""
    assert "is a link that leads out of the data's folder" in found["link.mp4"].fault
    assert found["gone.mp4"].fault == "gone.mp4: no such file or folder"


def test_clips_inside_tar_files(tmp_path: Path) -> None:
    file = video(tmp_path / "src/a.mp4")
    still = picture(tmp_path / "src/b.png")
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "0.tar", "w") as tar:
        for path in (file, file.with_suffix(".txt"), still, still.with_suffix(".txt")):
            tar.add(path, path.name)
    clips = measure_clips(shards, read_dataset(shards).clips, workers=1)
    assert [size(clip)[:3] for clip in clips] == [(9, 32, 48), (1, 20, 30)]


def test_what_is_known_of_an_unchanged_file_is_not_measured_again(tmp_path: Path) -> None:
    file = video(tmp_path / "a.mp4", 9)
    first = measure(tmp_path)["a.mp4"]
    told = replace(first, frames=77)  # a lie shows who is believed
    assert measure(tmp_path, [told])["a.mp4"].frames == 77
    video(file, 5)
    os.utime(file, ns=(1, 1))
    assert measure(tmp_path, [told])["a.mp4"].frames == 5
    (changed,) = measure_clips(tmp_path, [told], workers=1)
    assert changed.frames == 5
    (trusted,) = measure_clips(tmp_path, [replace(told, stamp="")], workers=1)
    assert trusted.frames == 77


def test_a_file_that_kills_its_child_is_alone_to_blame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that crashes, hangs, lies or raises on one file, between files that are well."""
    (tmp_path / "hostile.py").write_text(
        "import os, time\n"
        "def measure(root, places):\n"
        "    for path, *_ in places:\n"
        "        if path == 'crash.mp4': os.abort()\n"
        "        if path == 'hang.mp4': time.sleep(60)\n"
        "        if path == 'lie.mp4': yield {'frames': -3, 'height': 1, 'width': 1, 'fps': 1}\n"
        "        if path == 'odd.mp4': yield {'frames': 'many'}\n"
        "        if path == 'stop.mp4': return\n"
        "        yield {'frames': 3, 'height': 4, 'width': 5, 'fps': 6}\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(probing, "_TARGET", "hostile:measure")
    names = ["a", "crash", "b", "hang", "c", "lie", "d", "odd", "e", "stop", "f"]
    for name in names:
        (tmp_path / f"{name}.mp4").write_bytes(b"x")
    clips = [Clip(name, f"{name}.mp4", "video", "x") for name in names]
    saved: list[int] = []
    found = measure_clips(
        tmp_path, clips, workers=1, seconds=3, save=lambda clips: saved.append(len(clips))
    )
    faults = {clip.id: clip.fault for clip in found if clip.fault}
    assert [clip.id for clip in found] == names
    assert set(faults) == {"crash", "hang", "lie", "odd", "stop"}
    assert "died (exit code -6)" in faults["crash"]
    assert "took longer than 3 s" in faults["hang"]
    assert all(clip.frames == 3 for clip in found if not clip.fault)
    assert saved == []
