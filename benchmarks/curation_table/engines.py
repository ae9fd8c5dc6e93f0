"""The engine: speed, memory, what kills and more workers change, and what is not done twice."""

import contextlib
import dataclasses
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import unittest.mock
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import av
from curation_table.workshop import POLICY, Line, Workshop, at_least, at_most

from catalogues import random_catalogue
from composites import Plan, composite
from contentv.curation.config import CurationSettings, RunConfig
from contentv.curation.engine.run import run
from contentv.curation.engine.scan import scan
from contentv.curation.engine.steps import chain_of
from contentv.curation.engine.visit import Job, Outcome, Task, Visitor
from contentv.curation.engine.working import work
from contentv.curation.scoring.embedding import EmbeddingStep
from contentv.curation.selection.policy import load_policy
from contentv.curation.selection.questions import SelectConfig
from contentv.curation.selection.select import run as select
from contentv.curation.settings import ShotSettings
from contentv.curation.step import Row
from curating import content_hash, write_videos
from hostile import hostile_files, hostile_folders

_HD = Plan(shots=12, lengths=(96, 160), flashes=1, size=(1280, 720))
_SMALL = Plan(shots=4, lengths=(96, 120), size=(320, 180))
_GIB = 2**30


def speed(shop: Workshop) -> Iterator[Line]:
    """Seconds of 720p video that a core scores in a second, its children's time included."""
    truth = composite(shop.place("hd.mp4"), shop.seed, shop.pool, _HD)
    warm = composite(shop.place("warm.mp4"), shop.seed + 1, shop.pool, _SMALL)
    seconds = truth.count / truth.fps
    decoding = seconds / _decoding(truth.path)
    without = ShotSettings(transnet="off")
    for name, settings, embeds, aim in (
        ("without TransNetV2 and embeddings", CurationSettings(shots=without), False, 8.0),
        ("with gated TransNetV2 and embeddings", CurationSettings(), True, 5.0),
    ):
        chain = chain_of(settings)
        if not embeds:
            after = [stage for stage in chain.after if stage.name != EmbeddingStep.name]
            chain = dataclasses.replace(chain, after=tuple(after))
        job = Job(shop.place(f"speed-{embeds}"), chain, settings.limits)
        visitor = Visitor(job)
        visitor.visit(_task(warm.path, job))
        cpu = visitor.visit(_task(truth.path, job)).cpu
        note = f"{seconds:.0f} s of video, models loaded; decoding alone {decoding:.1f}"
        yield at_least(f"times real time a core, 720p, {name}", seconds / cpu, aim, 1, note)


def memory(shop: Workshop) -> Iterator[Line]:
    """The largest worker over a short and a long video of the same scenes."""
    short = composite(shop.place("short.mp4"), shop.seed, shop.pool, _SMALL).path
    minutes = max(2, shop.count(120))
    long = _repeated(short, shop.place("long.mp4"), minutes)
    sizes = [_resident(shop, path) for path in (short, long)]
    note = f"short video {sizes[0] / _GIB:.2f}, {minutes} minutes {sizes[1] / _GIB:.2f}"
    yield at_most("GiB of memory a worker", max(sizes) / _GIB, 1.5, 2, note)
    growth = (sizes[1] - sizes[0]) / _GIB
    yield at_most("GiB more for a long video than a short", growth, 0.25, 1, f"{minutes} minutes")


def crashes(shop: Workshop) -> Iterator[Line]:
    """Kills at random moments and in renames; then the catalogue is as if nothing had happened."""
    videos, out = shop.folder / "videos", shop.folder / "killed"
    write_videos(videos, 16)
    assert _started(videos, shop.folder / "whole", 0.0).wait() == 0
    wanted = content_hash(shop.folder / "whole")
    lots = random.Random(shop.seed)  # noqa: S311 - reproducible
    kills = renames = finished = wrong = 0
    while kills < shop.count(100):
        in_rename = lots.random() < 0.5
        process = _started(videos, out, 0.05 if in_rename else 0.0)
        try:
            process.wait(None if in_rename else lots.uniform(0.5, 4.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        if process.wait() == 0:
            finished, wrong = finished + 1, wrong + (content_hash(out) != wanted)
            shutil.rmtree(out)
        else:
            kills, renames = kills + 1, renames + in_rename
    assert _started(videos, out, 0.0).wait() == 0
    finished, wrong = finished + 1, wrong + (content_hash(out) != wanted)
    note = f"{renames} of them in a rename; {finished} runs went through"
    yield at_most("catalogues that are not as without SIGKILL", wrong, 0, kills, note)


def workers(shop: Workshop) -> Iterator[Line]:
    """The same files, hostile ones among them, by 1, 2 and 3 processes and by Ray."""
    films = shop.folder / "films"
    hostile_files(films)
    hostile_folders(films / "folders")
    for number in range(2):
        composite(films / f"film-{number}.mp4", shop.seed + number, shop.pool, _SMALL)
    hashes = set()
    ways = [("local", 1), ("local", 2), ("local", 3), ("ray", 2)]
    for engine, count in ways:
        out = shop.folder / f"{engine}-{count}"
        run(RunConfig(sources=(films,), out=out, workers=count, engine=engine))
        hashes.add(content_hash(out))
    yield at_most("different catalogues of 1, 2, 3 workers, Ray", len(hashes), 1, len(ways))


def again(shop: Workshop) -> Iterator[Line]:
    """Seconds of a run over videos that are all known, the start of the program included."""
    count = shop.count(10_000)
    films, out = shop.folder / "films", shop.folder / "catalogue"
    films.mkdir()
    (first,) = write_videos(shop.folder / "one", 1)
    whole = first.read_bytes()
    for number in range(count):  # other bytes, the same video: a box that players pass over
        box = b"\0\0\0\x10free" + number.to_bytes(8, "big")
        (films / f"{number:05d}.mp4").write_bytes(whole + box)
    settings = CurationSettings()
    job = Job(out, chain_of(settings), settings.limits)
    out.mkdir()
    found = scan([films], out / "files.parquet")
    with unittest.mock.patch("os.fsync"):  # what is prepared here need not survive a power cut
        work(found, job, _copied, settings.dedup)
    assert _curating([films], out).wait() == 0
    begin = time.perf_counter()
    assert _curating([films], out).wait() == 0
    yield at_most("seconds of a second run", time.perf_counter() - begin, 10, count)


def thresholds(shop: Workshop) -> Iterator[Line]:
    """Seconds to apply a policy to scores that are there."""
    count = shop.count(1_000_000)
    numbers = [rule for rule in load_policy(POLICY).rules if rule.min or rule.max]
    scores = {rule.column: 2 * (rule.min or rule.max or 1.0) for rule in numbers}
    random_catalogue(shop.folder, count, shop.seed, scores)
    begin = time.perf_counter()
    kept = select(SelectConfig(catalogue=shop.folder, policy=POLICY)).selection.kept
    seconds = time.perf_counter() - begin
    yield at_most("seconds to apply a policy", seconds, 5, count, f"{kept} kept")


def _decoding(path: Path) -> float:
    """Seconds of processor time to decode a video and do nothing with it: the machine's measure."""
    begin = time.process_time()
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        assert sum(1 for _ in container.decode(video=0))
    return time.process_time() - begin


def _task(path: Path, job: Job) -> Task:
    (video,) = scan([path], job.out / "files.parquet").videos
    return Task(video, frozenset(job.chain.columns))


def _copied(job: Job, tasks: Sequence[Task]) -> Generator[tuple[int, Outcome], None, None]:
    """Visit the first, and say of each other what was found in it."""
    one = Visitor(job).visit(tasks[0])
    yield 1, one
    own = tasks[0].source.video_id
    rows = {key: job.parts.read(key, own) or [] for key in job.chain.columns}
    for task in tasks[1:]:
        for key, columns in job.chain.columns.items():
            copies = [_renamed(row, own, task.source.video_id) for row in rows[key]]
            job.parts.write(key, task.source.video_id, copies, columns)
        yield 1, dataclasses.replace(one, video_id=task.source.video_id)


def _renamed(row: Row, own: str, other: str) -> Row:
    copy = {name: value for name, value in row.items() if name != "video_id"}
    if "clip_id" in copy:
        said = f"{copy['clip_id']}{own}{other}".encode()
        copy["clip_id"] = hashlib.blake2b(said, digest_size=16).hexdigest()
    return copy


def _repeated(path: Path, target: Path, minutes: int) -> Path:
    """Join a video with itself, without encoding it again, until it is so long."""
    end = 0
    with av.open(str(target), "w") as output:
        stream = None
        while stream is None or end * float(stream.time_base or 1) < 60 * minutes:
            with av.open(str(path)) as source:
                template = source.streams.video[0]
                stream = stream or output.add_stream_from_template(template)
                start, base = end, template.time_base
                for packet in source.demux(template):
                    if packet.pts is None or packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + start, packet.dts + start
                    packet.stream, packet.time_base = stream, base
                    end = max(end, packet.pts + (packet.duration or 1))
                    output.mux(packet)
    return target


def _resident(shop: Workshop, path: Path) -> int:
    """The most bytes of memory that a process of a run over one video had, but the first."""
    most: dict[int, int] = {}
    process = _curating([path], shop.folder / f"memory-{path.stem}")
    while process.poll() is None:
        for child in _descendants(process.pid):
            most[child] = max(most.get(child, 0), _peak(child))
        time.sleep(0.2)
    assert process.returncode == 0
    return max(most.values())


def _descendants(process: int) -> Iterator[int]:
    listed = Path(f"/proc/{process}/task/{process}/children")
    with contextlib.suppress(OSError):  # it has ended
        for child in map(int, listed.read_text().split()):
            yield child
            yield from _descendants(child)


def _peak(process: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _curating(sources: Sequence[Path], out: Path) -> "subprocess.Popen[bytes]":
    names = [str(source) for source in sources]
    command = [sys.executable, "-m", "contentv.cli", "curate", "run", *names, "--out", str(out)]
    return subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.DEVNULL)


def _started(videos: Path, out: Path, chance: float) -> "subprocess.Popen[bytes]":
    module = "curation_table.dying"
    command = [sys.executable, "-m", module, str(videos), str(out), str(chance)]
    here = str(Path(__file__).parents[1])
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
