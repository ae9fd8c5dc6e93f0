import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from contentv.base.errors import WorldError
from contentv.curation.engine.parts import Parts
from contentv.curation.step import Row
from contentv.curation.tables import Columns, rows_of

COLUMNS: Columns = {"clip_id": str, "score": float}
KEY = "blur@1-abc"


def rows(video: str, count: int, score: float = 0.5) -> list[Row]:
    return [{"clip_id": f"{video}-{9 - n}", "score": score} for n in range(count)]


def named(video: str, found: list[Row]) -> list[Row]:
    return [{"video_id": video, **row} for row in found]


def filled(folder: Path, counts: list[int]) -> Parts:
    parts = Parts(folder)
    for number, count in enumerate(counts):
        parts.write(KEY, f"v{number}", rows(f"v{number}", count), COLUMNS)
    return parts


def test_a_part_is_what_says_done(tmp_path: Path) -> None:
    parts = filled(tmp_path, [2, 0])
    assert parts.held(KEY) == {"v0", "v1"}
    assert parts.held("other@1-abc") == set()
    assert parts.read(KEY, "v0") == named("v0", rows("v0", 2))
    assert parts.read(KEY, "v1") == []


def test_compacting_changes_nothing_but_the_number_of_files(tmp_path: Path) -> None:
    parts = filled(tmp_path, [3, 0, 1, 2, 5])
    videos = {f"v{n}" for n in range(5)}
    before = rows_of(parts.table(KEY, COLUMNS, videos))
    for size in (2**20, 1, 2**20):
        parts.compact(KEY, COLUMNS, above=0, size=size)
        assert parts.held(KEY) == videos
        assert sorted(map(repr, rows_of(parts.table(KEY, COLUMNS, videos)))) == sorted(
            map(repr, before)
        )
        for number, count in enumerate([3, 0, 1, 2, 5]):
            assert parts.read(KEY, f"v{number}") == named(f"v{number}", rows(f"v{number}", count))
        parts.write(KEY, "v4", rows("v4", 5), COLUMNS)
    parts.compact(KEY, COLUMNS, above=0)
    assert [path.name for path in (tmp_path / KEY).iterdir()] == ["merged-000004.parquet"]


def test_a_newer_part_counts(tmp_path: Path) -> None:
    parts = filled(tmp_path, [1, 1])
    for score in (0.7, 0.9):
        parts.compact(KEY, COLUMNS, above=0, size=2**20)
        parts.write(KEY, "v0", rows("v0", 2, score), COLUMNS)
        assert parts.read(KEY, "v0") == named("v0", rows("v0", 2, score))
        assert parts.table(KEY, COLUMNS, {"v0"})["score"].to_pylist() == [score, score]
    parts.compact(KEY, COLUMNS, above=0, size=1)
    assert parts.read(KEY, "v0") == named("v0", rows("v0", 2, 0.9))


def test_few_parts_stay_as_they_are(tmp_path: Path) -> None:
    parts = filled(tmp_path, [1, 1])
    parts.compact(KEY, COLUMNS, above=2)
    assert len(list((tmp_path / KEY).iterdir())) == 2


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_part_is_told_and_counts_as_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str, merged: bool
) -> None:
    parts = filled(tmp_path, [2, 2])
    if merged:
        parts.compact(KEY, COLUMNS, above=0)
    path = min((tmp_path / KEY).iterdir())
    data = bytearray(path.read_bytes())
    data[30] ^= 4
    path.write_bytes(data[:-9] if damage == "cut" else data)
    caplog.set_level("WARNING", "contentv")
    left = parts.table(KEY, COLUMNS, {"v0", "v1"})["video_id"].to_pylist()
    assert left == ([] if merged else ["v1", "v1"])
    assert parts.held(KEY) == set(left)
    assert parts.damaged == 1
    assert caplog.messages == [f"{path}: damaged; its results are computed again"]
    assert parts.read(KEY, "v0") in ([], None)


def test_stamps_change_with_the_files(tmp_path: Path) -> None:
    parts = filled(tmp_path, [1])
    before = parts.stamps(KEY)
    assert parts.stamps(KEY) == before
    path = tmp_path / KEY / "v0.parquet"
    path.write_bytes(path.read_bytes())
    touched = parts.stamps(KEY)
    parts.write(KEY, "v1", [], COLUMNS)
    assert before != touched != parts.stamps(KEY)


def test_what_was_half_written_is_swept(tmp_path: Path) -> None:
    parts = filled(tmp_path, [1])
    stale = tmp_path / "unfinished" / "elsewhere-1-x"
    stale.write_bytes(b"PAR1")
    parts.sweep()
    assert not stale.exists()
    assert parts.held(KEY) == {"v0"}


WRITER = """
import sys
from pathlib import Path
from contentv.curation.engine.parts import Parts

parts = Parts(Path(sys.argv[1]))
parts.write("blur@1-abc", "v0", [], {"clip_id": str, "score": float})
print("begins", flush=True)
number = 0
while True:
    rows = [{"clip_id": f"{number}-{n}", "score": float(n)} for n in range(number % 50)]
    parts.write("blur@1-abc", f"v{number % 90}", rows, {"clip_id": str, "score": float})
    if number % 60 == 59:
        parts.compact("blur@1-abc", {"clip_id": str, "score": float}, above=20, size=20_000)
    number += 1
"""


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_whole_parts_only(tmp_path: Path, kills: int) -> None:
    """SIGKILL falls anywhere: while writing, between write and rename, while files are merged."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    parts = Parts(tmp_path)
    known: set[str] = set()
    for kill in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.02 + 0.011 * (kill * 7 % 10))
            os.kill(process.pid, signal.SIGKILL)
        parts.sweep()
        held = parts.held(KEY)
        assert known <= held, "what was there is there"
        known = held
        counts = Counter(parts.table(KEY, COLUMNS, held)["video_id"].to_pylist())
        assert parts.damaged == 0
        for video in held:
            names = [str(row["clip_id"]).split("-") for row in parts.read(KEY, video) or []]
            assert len({number for number, _ in names}) <= 1, "of one writing"
            assert [int(place) for _, place in names] == list(range(len(names))), "whole"
            assert counts[video] == len(names), "and once"
    assert known


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from contentv.base.errors import WorldError
from contentv.curation.engine.parts import Parts

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    Parts(Path(sys.argv[1])).write("k", "v", [{"a": "x"}], {"a": str})
except WorldError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "size limit" in result.stdout
    assert list(Parts(tmp_path).held("k")) == []
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "parts").write_bytes(b"in the way")
    with pytest.raises(WorldError, match="cannot write"):
        Parts(tmp_path / "parts").write(KEY, "v", [], COLUMNS)
