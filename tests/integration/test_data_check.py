import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contentv.cli import main
from contentv.data.config import CheckConfig
from contentv.data.manifest import read_manifest, write_manifest
from contentv.data.run import load_dataset, run
from contentv.video.io import write_video

SMALL = ("--areas", "4096", "--frames", "1", "17", "33", "--fps", "8", "--workers", "1")


def clip(path: Path, frames: int = 20, height: int = 64, width: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.zeros((frames, height, width, 3), np.uint8), fps=8)
    path.with_suffix(".txt").write_text(f"caption of {path.stem}")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "films"
    clip(folder / "good.mp4")
    clip(folder / "tall.mp4", 40, 96, 64)
    clip(folder / "short.mp4", 5)
    (folder / "broken.mp4").write_bytes(b"nothing")
    (folder / "broken.txt").write_text("x")
    clip(folder / "mute.mp4")
    (folder / "mute.txt").unlink()
    return folder


def test_every_clip_has_a_row(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(data), *SMALL]) == 0
    said = capsys.readouterr().out
    out = data.parent / "films_check"
    rows = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    assert {row["id"]: row.get("bucket", row.get("reason")) for row in rows} == {
        "good.mp4": "17x64x64",
        "tall.mp4": "33x80x48",
        "short.mp4": "too_short",
        "broken.mp4": "faulty",
        "mute.mp4": "no_caption",
    }
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["clips"], summary["used"]) == (5, 2)
    assert summary["settings"]["frames"] == [1, 17, 33]
    for words in (
        "mute.mp4: dropped",
        "2 of 5 clips are used",
        "17x64x64",
        "1 of 5 clips are dropped, too_short",
    ):
        assert words in said
    assert {clip.id: clip.frames for clip in read_manifest(out / "manifest.parquet")}[
        "good.mp4"
    ] == 20


def test_only_new_and_changed_files_are_measured_again(data: Path) -> None:
    config = CheckConfig(path=data, areas=(4096,), frames=(17,), fps=8, workers=1)
    run(config)
    store = data.parent / "films_check/manifest.parquet"
    marked = [replace(c, frames=999) if c.id == "good.mp4" else c for c in read_manifest(store)]
    write_manifest(store, marked)  # a lie shows who is believed
    clip(data / "new.mp4", 18)
    clip(data / "tall.mp4", 19, 64, 64)
    os.utime(data / "tall.mp4", ns=(5, 5))
    found = {v.clip.id: v.clip.frames for v in run(config).check.verdicts}
    assert (found["good.mp4"], found["new.mp4"], found["tall.mp4"]) == (999, 18, 19)
    store.write_bytes(b"damaged")
    again = {v.clip.id: v.clip.frames for v in run(config).check.verdicts}
    assert again["good.mp4"] == 20


def test_the_measured_manifest_is_a_data_set(data: Path, tmp_path: Path) -> None:
    first = load_dataset(data, None, cache=tmp_path / "one", workers=1)
    store = tmp_path / "one/manifest.parquet"
    second = load_dataset(store, data, cache=tmp_path / "two", workers=1)
    assert second.clips == first.clips


def test_data_with_no_usable_clip_is_an_error_with_a_report(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["data", "check", str(data), "--frames", "125", "--workers", "1", "--show", "1"]
    assert main([*line, "--out", "out"]) == 2
    said = capsys.readouterr().out
    assert "0 of 5 clips are used" in said
    assert "... and 4 more in out/clips.jsonl" in said
    assert len(Path("out/clips.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["absent"], "absent: no such file or folder"),
        (["films", "--frames", "18"], "must be 4k+1; use 17 or 21"),
        (["films", "--areas", "100"], "use 1024 or more"),
    ],
)
def test_wrong_requests_are_one_line(
    data: Path, capsys: pytest.CaptureFixture[str], line: list[str], words: str
) -> None:
    assert data.is_dir()
    code = main(["data", "check", *line])
    captured = capsys.readouterr()
    assert code == 2
    assert words in captured.err
    assert captured.err.count("\n") == 1
