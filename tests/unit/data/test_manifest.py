from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from contentv.base.errors import UserError, WorldError
from contentv.data.manifest import (
    Clip,
    escape,
    inside,
    manifest_hash,
    read_manifest,
    write_manifest,
)

VIDEO = Clip(
    "films/a.mp4#3", "films/a.mp4", "video", "a cat", "a cat, at length, 猫", start=72, frames=50,
    fps=23.976, height=480, width=854, source="films", stamp="5-6",
)  # fmt: skip
PICTURE = Clip("b.png", "b.png", "picture", "a dog", frames=1, height=64, width=64)
BROKEN = Clip("c.mp4", "c.mp4", "video", "a bird", fault="is cut short")
IN_TAR = Clip(
    "s.tar/d.mp4", "s.tar", "video", "x", frames=9, fps=8.0, height=8, width=8,
    offset=512, length=99,
)  # fmt: skip


def table(file: Path, drop: str = "", **columns: list[Any]) -> Path:
    """A manifest that another program wrote, with some columns of its own."""
    content = {
        "id": ["a", "b"],
        "path": ["a.mp4", "b.mp4"],
        "kind": ["video", "video"],
        "frames": [30, 40],
        "fps": [24.0, 24.0],
        "height": [480, 480],
        "width": [640, 640],
        "aesthetic": [5.5, 4.0],
    }
    content |= columns
    content.pop(drop, None)
    parquet.write_table(pa.table(content), file)
    return file


def test_what_is_written_is_read(tmp_path: Path) -> None:
    clips = [VIDEO, PICTURE, BROKEN, IN_TAR]
    write_manifest(tmp_path / "m.parquet", clips)
    assert read_manifest(tmp_path / "m.parquet") == clips
    durations = parquet.read_table(tmp_path / "m.parquet").column("duration").to_pylist()
    assert durations == [pytest.approx(50 / 23.976), 0.0, 0.0, pytest.approx(9 / 8)]
    write_manifest(tmp_path / "none.parquet", [])
    assert read_manifest(tmp_path / "none.parquet") == []


def test_tables_of_others_need_the_required_columns_only(tmp_path: Path) -> None:
    one, other = read_manifest(table(tmp_path / "m.parquet", short=["x", "y"]))
    assert (one.short, one.long, one.start, one.stamp) == ("x", "", 0, "")
    assert (other.frames, other.fps, other.duration) == (40, 24.0, 40 / 24)


@pytest.mark.parametrize("name", ["id", "path", "kind", "frames", "fps", "height", "width"])
def test_a_missing_column_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"has no column {name}; a manifest needs id, path"):
        read_manifest(table(tmp_path / "m.parquet", drop=name))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"frames": [30, 0]}, "clip b: frames, height and width must be 1 or more"),
        ({"frames": [30, -1]}, "clip b: frames=-1: must be a number of 0 or more"),
        ({"fps": [24.0, float("nan")]}, "clip b: fps=nan"),
        ({"fps": [24.0, 0.0]}, "clip b: fps=0: must be above 0 for a video"),
        ({"kind": ["video", "song"]}, "clip b: kind=song: must be video or picture"),
        ({"id": ["a", "a"]}, "id a stands twice"),
        ({"path": ["a.mp4", None]}, "clip b: path is empty"),
        ({"height": ["tall", "wide"]}, "see docs/data.md"),
    ],
)
def test_values_that_no_clip_has_are_refused(
    tmp_path: Path, columns: dict[str, list[Any]], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        read_manifest(table(tmp_path / "m.parquet", **columns))


def test_a_path_that_leaves_the_folder_is_the_clips_fault(tmp_path: Path) -> None:
    one, other = read_manifest(table(tmp_path / "m.parquet", path=["../../etc/a.mp4", "b.mp4"]))
    assert (
        one.fault
        == "its path '../../etc/a.mp4' leads out of the data's folder; put the file inside"
    )
    assert not other.fault


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_a_damaged_file_is_said_to_be(tmp_path: Path, size: int) -> None:
    path = tmp_path / "m.parquet"
    write_manifest(path, [VIDEO] * 1)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(WorldError, match="damaged, or not Parquet"):
        read_manifest(path)
    with pytest.raises(WorldError, match="no such file"):
        read_manifest(tmp_path / "absent.parquet")


def test_every_field_and_the_order_count_for_the_hash() -> None:
    base = manifest_hash([VIDEO, PICTURE])
    assert base == manifest_hash([VIDEO, PICTURE])
    assert base != manifest_hash([PICTURE, VIDEO])
    assert base != manifest_hash([replace(VIDEO, short="a dog"), PICTURE])


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "..", "a/../../b", "C:\\x", "..\\x", "a\0b", "\\\\host\\x"]
)
def test_paths_that_escape(tmp_path: Path, path: str) -> None:
    assert escape(path)
    with pytest.raises(UserError):
        inside(tmp_path, path)


@pytest.mark.parametrize("path", ["a.mp4", "a/b c/ü.mp4", "..a.mp4", "a..b/c"])
def test_paths_that_stay(tmp_path: Path, path: str) -> None:
    assert not escape(path)
    assert inside(tmp_path, path) == tmp_path / path


def test_links_that_escape(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.mp4").touch()
    (tmp_path / "data/link.mp4").symlink_to(tmp_path / "secret.mp4")
    (tmp_path / "data/up").symlink_to(tmp_path)
    for path in ("link.mp4", "up/secret.mp4"):
        with pytest.raises(UserError, match="is a link that leads out"):
            inside(tmp_path / "data", path)
