"""Runs of the engine: what is kept, whatever happens; and the same bytes, whoever works."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from contentv.base.errors import UserError, WorldError
from contentv.curation.catalogue import CLIPS, VIDEOS, read_columns
from contentv.curation.engine.pool import visit_in_processes
from contentv.curation.engine.scan import scan
from contentv.curation.engine.working import alone
from contentv.curation.step import Row
from contentv.curation.tables import Columns, sealed, table_of
from curating import (
    BrightnessSettings,
    content_hash,
    curate,
    files_below,
    local,
    small_chain,
    small_job,
    write_videos,
)

COUNT = 2
OTHERS = (signal.SIGINT, signal.SIGKILL)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, COUNT)
    old = time.time() - 100
    for path in folder.iterdir():
        os.utime(path, (old, old))
    return folder


@pytest.fixture(scope="module")
def usual(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue as one worker makes it without being disturbed."""
    out = tmp_path_factory.mktemp("usual")
    curate(videos, small_job(out), engine=local())
    return out


def events(out: Path, kind: str) -> list[dict[str, object]]:
    lines = (out / "events.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == kind]


def statuses(out: Path) -> dict[str, tuple[str, str]]:
    table = read_columns(out, VIDEOS, ["uri", "status", "error_class"])
    rows = zip(*table.values(), strict=True)
    return {Path(uri).name: (status, cause) for uri, status, cause in rows}


def test_a_run_measures_every_clip(usual: Path) -> None:
    names = ["kind", "start", "end", "duration", "brightness", "brightness_all", "width", "dup_of"]
    rows = zip(*read_columns(usual, CLIPS, names).values(), strict=True)
    kinds: Counter[str] = Counter()
    for kind, start, end, length, mean, each, width, duplicate in rows:
        kinds[kind] += 1
        assert length == end - start
        assert (length > 0) == (kind == "video")
        assert 19 <= mean <= 175
        assert each[0] == pytest.approx(mean, abs=1)
        assert (width, duplicate) == (64, "")
    assert kinds == {"video": 2 * COUNT, "picture": COUNT}
    uris = read_columns(usual, CLIPS, ["clip_id"])["clip_id"]
    assert uris == sorted(set(uris))
    assert set(statuses(usual).values()) == {("ok", "")}
    assert {event["status"] for event in events(usual, "visit")} == {"ok"}


@pytest.mark.parametrize("workers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_number_of_workers_changes_no_byte(
    videos: Path, usual: Path, tmp_path: Path, workers: int
) -> None:
    curate(videos, small_job(tmp_path), engine=local(workers))
    assert content_hash(tmp_path) == content_hash(usual)
    assert len({event["worker"] for event in events(tmp_path, "visit")}) == min(workers, COUNT)


def test_the_longest_is_visited_first(usual: Path) -> None:
    sizes = [event["bytes"] for event in events(usual, "visit")]
    assert sizes == sorted(sizes, reverse=True)


def test_a_second_run_has_nothing_to_do(videos: Path, tmp_path: Path) -> None:
    job = small_job(tmp_path)
    assert curate(videos, job).visited == COUNT
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    again = curate(videos, job)
    assert (again.visited, again.ok) == (0, COUNT)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")} == before


def test_other_settings_make_only_what_depends_on_them(videos: Path, tmp_path: Path) -> None:
    curate(videos, small_job(tmp_path))
    parts = {path: path.stat().st_mtime_ns for path in files_below(tmp_path / "parts")}
    before = read_columns(tmp_path, CLIPS, ["clip_id", "brightness"])
    changed = small_chain(BrightnessSettings(scale=2.0))
    assert curate(videos, small_job(tmp_path, changed)).visited == COUNT
    now = {path: path.stat().st_mtime_ns for path in files_below(tmp_path / "parts")}
    new = {path.parent.name.split("@")[0] for path in now.keys() - parts.keys()}
    assert new == {"brightness"}
    after = read_columns(tmp_path, CLIPS, ["clip_id", "brightness"])
    assert after["clip_id"] == before["clip_id"]
    assert after["brightness"] == [2 * value for value in before["brightness"]]
    kept = {path: changed for path, changed in now.items() if "video@" not in path.parent.name}
    assert all(kept[path] == changed for path, changed in parts.items() if path in kept)


def test_a_lost_crop_is_made_without_looking(videos: Path, usual: Path, tmp_path: Path) -> None:
    job = small_job(tmp_path)
    curate(videos, job)
    for path in (tmp_path / "parts" / job.chain.crop.key).iterdir():
        path.unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("parts/video@*/*")}
    assert curate(videos, job).visited == COUNT
    assert content_hash(tmp_path) == content_hash(usual)
    now = {path: path.stat().st_mtime_ns for path in tmp_path.glob("parts/video@*/*")}
    assert now == before, "nothing was decoded"


def test_a_picture_is_one_clip(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    Image.new("RGB", (40, 30), (100, 100, 100)).save(folder / "grey.png")
    summary = curate(folder, small_job(tmp_path / "out"))
    assert (summary.ok, summary.clips, summary.pictures) == (1, 0, 1)
    row = read_columns(tmp_path / "out", CLIPS, ["kind", "brightness", "duration", "fps"])
    assert list(row.values()) == [["picture"], [100.0], [0.0], [0.0]]


def test_one_bad_file_is_one_row(videos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for path in videos.iterdir():
        os.link(path, folder / path.name)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "lost.mp4").symlink_to("nowhere")
    whole = (videos / "video-00.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    summary = curate(folder, small_job(out), engine=local(2))
    assert (summary.videos, summary.ok) == (COUNT + 3, COUNT)
    assert summary.failed == {"corrupt": 2, "unreadable": 1}
    found = statuses(out)
    assert found["empty.mp4"] == found["cut.mp4"] == ("failed", "corrupt")
    assert found["lost.mp4"] == ("failed", "unreadable")
    text = str(summary)
    assert "failed" in text
    assert curate(folder, small_job(out)).visited == 0, "what failed is left alone"
    (folder / "lost.mp4").unlink()
    (folder / "lost.mp4").write_bytes(whole + b"\0" * 8)
    assert curate(folder, small_job(out)).failed == {"corrupt": 2}


@pytest.mark.parametrize(
    ("deaths", "status"),
    [pytest.param(1, ("ok", ""), marks=pytest.mark.slow), (9, ("failed", "crash"))],
)
def test_a_death_costs_one_video_at_most(
    videos: Path, tmp_path: Path, deaths: int, status: tuple[str, str]
) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for path in videos.iterdir():
        os.link(path, folder / path.name)
    deadly = small_chain(BrightnessSettings(deadly="video-01.mp4", deaths=deaths))
    out = tmp_path / "out"
    curate(folder, small_job(out, deadly), engine=local(2))
    found = statuses(out)
    assert found.pop("video-01.mp4") == status
    assert set(found.values()) == {("ok", "")}
    assert (folder / "video-01.died").stat().st_size == 2, "tried twice"


def test_a_fault_of_ours_costs_one_video(videos: Path, tmp_path: Path) -> None:
    job = small_job(tmp_path, small_chain(BrightnessSettings(faulty="video-00.mp4")))
    assert curate(videos, job).failed == {"crash": 1}
    assert (
        read_columns(tmp_path, VIDEOS, ["error"])["error"].count("IndexError: a fault of ours") == 1
    )


def test_what_failed_can_be_tried_again(videos: Path, tmp_path: Path) -> None:
    job = small_job(tmp_path, small_chain(BrightnessSettings(faulty="video-00.mp4")))
    curate(videos, job)
    rows = read_columns(tmp_path, VIDEOS, ["video_id", "status"])
    failed = [name for name, s in zip(*rows.values(), strict=True) if s == "failed"]
    assert curate(videos, job, again=failed).visited == 1


@pytest.mark.parametrize("merged", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_damaged_part_is_mended(
    videos: Path, usual: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, merged: bool
) -> None:
    job = small_job(tmp_path)
    curate(videos, job)
    for key, columns in job.chain.columns.items():
        if merged:
            job.parts.compact(key, columns, above=0)
        path = min((tmp_path / "parts" / key).iterdir())
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 16
        path.write_bytes(data if key != job.chain.shots.key else data[:100])
    caplog.set_level("WARNING", "contentv")
    summary = curate(videos, job)
    assert summary.visited >= (COUNT if merged else 1)
    assert len([m for m in caplog.messages if "damaged; its results are computed again" in m]) == 4
    assert content_hash(tmp_path) == content_hash(usual)


WITH_RAY = """
import sys
from curating import *
from contentv.curation.engine.ray import visit_with_ray

if __name__ == "__main__":
    chain = small_chain(BrightnessSettings(deadly="video-01.mp4", deaths=int(sys.argv[3])))
    engine = functools.partial(visit_with_ray, workers=2)
    curate(Path(sys.argv[1]), small_job(Path(sys.argv[2]), chain), engine=engine)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("deaths", "status"), [(1, ("ok", "")), (9, ("failed", "crash"))])
def test_ray_replaces_workers_that_die(
    videos: Path, tmp_path: Path, deaths: int, status: tuple[str, str]
) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for path in videos.iterdir():
        os.link(path, folder / path.name)
    (tmp_path / "run.py").write_text(WITH_RAY)
    words = [tmp_path / "run.py", folder, tmp_path / "out", deaths]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, *map(str, words)], env=environment, check=True)
    assert statuses(tmp_path / "out") == {"video-00.mp4": ("ok", ""), "video-01.mp4": status}


@pytest.mark.slow
def test_a_worker_that_grew_is_replaced(videos: Path, usual: Path, tmp_path: Path) -> None:
    engine = partial(visit_in_processes, workers=1, memory=1)
    curate(videos, small_job(tmp_path), engine=engine)
    assert [event["worker"] for event in events(tmp_path, "visit")] == list(range(1, COUNT + 1))
    assert content_hash(tmp_path) == content_hash(usual)


def test_two_runs_do_not_share_a_catalogue(tmp_path: Path) -> None:
    with (
        alone(tmp_path / "out"),
        pytest.raises(UserError, match="another run works on it"),
        alone(tmp_path / "out"),
    ):
        pass
    with alone(tmp_path / "out"):
        pass


RUN = """
import sys, time
from pathlib import Path
from curating import *

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chain = small_chain(BrightnessSettings(seconds=float(sys.argv[3])))
    curate(Path(sys.argv[1]), small_job(Path(sys.argv[2]), chain), engine=local(2))
"""


def started(videos: Path, out: Path, script: Path, seconds: float = 0.0) -> subprocess.Popen[bytes]:
    script.write_text(RUN)
    command = [sys.executable, str(script), str(videos), str(out), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=environment, start_new_session=True)


def processes_of(session: int) -> list[int]:
    """All processes of a session that still run: workers are in their parent's."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields = (path / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(path.name))
    return found


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)],
)
def test_a_stopped_run_leaves_no_process_and_goes_on(
    videos: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    with started(videos, out, tmp_path / "run.py", seconds=0.2) as process:
        while not list(out.glob("parts/*/*")):
            time.sleep(0.02)
            assert process.poll() is None
        process.send_signal(number)
        process.wait(30)
    kept = set(files_below(out / "parts"))
    deadline = time.monotonic() + 20
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(process.pid) == []
    slow = small_chain(BrightnessSettings(seconds=0.2))
    curate(videos, small_job(out, slow))
    finished = {path for path in kept if "unfinished" not in path.parts}
    assert finished <= set(files_below(out / "parts"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kills", [100])
def test_kills_at_any_moment_lose_and_double_nothing(
    videos: Path, usual: Path, tmp_path: Path, kills: int
) -> None:
    """SIGKILL to run and workers, at 100 moments; then the same bytes as without."""
    out = tmp_path / "out"
    for kill in range(kills):
        with started(videos, out, tmp_path / "run.py") as process:
            time.sleep(0.7 + 0.13 * (kill * 7 % 11))
            os.killpg(process.pid, signal.SIGKILL)
        if kill % 10 == 9:
            for path in files_below(out / "parts"):
                path.unlink()
    curate(videos, small_job(out))
    assert content_hash(out) == content_hash(usual)


def test_a_full_disk_ends_the_run_with_one_line(videos: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    out = tmp_path / "out"
    try:
        curate(videos, small_job(out))
        for path in files_below(out / "parts"):
            path.unlink()
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, before[1]))
        with pytest.raises(WorldError, match="size limit"):
            curate(videos, small_job(out))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert curate(videos, small_job(out)).ok == COUNT


def merged(key: str, columns: Columns, names: list[str]) -> bytes:
    """What visits of videos of two clips each have left, once it is in one file."""
    values = {str: "", int: 0, float: 1.0, bool: False, list: [1.0]}
    row: Row = {column: values[kind] for column, kind in columns.items()}
    own = {"status": "ok"} if key.startswith("video@") else {}
    rows = [
        {**row, **own, "video_id": name, **({} if own else {"clip_id": f"{name}-{number}"})}
        for name in names
        for number in range(1 if own else 2)
    ]
    return sealed(table_of(rows, {"video_id": str, **columns}), names)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_second_run_over_10_000_videos_takes_seconds(tmp_path: Path) -> None:
    folder, out = tmp_path / "f", tmp_path / "out"
    folder.mkdir()
    for number in range(10_000):
        path = folder / f"{number}.mp4"
        path.write_bytes(b"%d" % number)
        os.utime(path, (1e9, 1e9))
    job = small_job(out)
    found = scan([folder], out / "files.parquet")
    for key, columns in job.chain.columns.items():
        path = out / "parts" / key / "merged-000001.parquet"
        path.parent.mkdir(parents=True)
        path.write_bytes(merged(key, columns, [video.video_id for video in found.videos]))
    assert curate(folder, job).visited == 0
    started = time.monotonic()
    summary = curate(folder, job)
    seconds = time.monotonic() - started
    assert (summary.visited, summary.videos, summary.clips + summary.pictures) == (0, 10_000, 0)
    assert len(read_columns(out, CLIPS, ["clip_id"])["clip_id"]) == 20_000
    assert seconds < 10
