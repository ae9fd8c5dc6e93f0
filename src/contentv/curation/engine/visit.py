"""One visit of one video: finds out all that is missing of it, and keeps it whatever happens."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contentv.base.errors import ContentVError, MediaError
from contentv.base.files import describe_os_error, os_errors
from contentv.curation.engine.chain import VIDEO_COLUMNS, Chain, ShotFinding, ShotWatching, Stage
from contentv.curation.engine.looking import Opened, Subject, look
from contentv.curation.engine.parts import ID, Parts
from contentv.curation.engine.scan import File, Source, stamp_of
from contentv.curation.settings import LimitSettings
from contentv.curation.step import Footage, Row, Step, Watcher

MOST_ATTEMPTS = 2  # the second one tolerates damage, where there is hope that this helps
UNREADABLE = "unreadable"
_HOPELESS = ("unsupported", UNREADABLE)


@dataclass(frozen=True)
class Task:
    """A video, and the keys of what is missing of it."""

    source: Source
    missing: frozenset[str]


@dataclass(frozen=True)
class Outcome:
    """How a visit went, for the log: times in seconds, `rss` and `bytes` (of the file) in bytes."""

    video_id: str
    status: str
    error_class: str
    error: str
    attempts: int
    start: float
    end: float
    cpu: float
    rss: int
    bytes: int


@dataclass(frozen=True)
class Job:
    """What all visits of a run have in common. Can be pickled."""

    out: Path
    chain: Chain
    limits: LimitSettings

    @property
    def parts(self) -> Parts:
        """Where results are kept."""
        return Parts(self.out / "parts")

    @property
    def marks(self) -> Path:
        """A folder with a mark for each visit that has begun and not ended."""
        return self.out / "visiting"


class Visitor:
    """Visits videos, one after the other; each model is loaded when it is first needed."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._parts = job.parts
        self._steps: dict[str, Step] = {}
        self._finder: ShotFinding | None = None

    def visit(self, task: Task) -> Outcome:
        """Find out what is missing of a video, and keep it; what is wrong with it is a status.

        Attempts are counted on the disk, so a video on which processes die is given up whoever
        calls again. ContentVError: nothing can go on, a disk is full for example.
        """
        source, started, used = task.source, time.time(), _cpu()
        attempts, found = self._tried(task)
        key = self.job.chain.video_key
        last = found.pop(key, None)
        for other, rows in found.items():
            self._parts.write(other, source.video_id, rows, self.job.chain.columns[other])
        row: Row = {"status": "ok", "error_class": "", "error": ""}
        if last:  # only now: the video's row says that it was visited
            row = {**last[0], "attempts": attempts}
            self._parts.write(key, source.video_id, [row], VIDEO_COLUMNS)
        self._mark(source).unlink(missing_ok=True)
        status, error_class, error = (str(row[n]) for n in ("status", "error_class", "error"))
        size, now = source.files[0].stamp.size, time.time()
        cpu, rss = _cpu() - used, memory_in_use()
        names = source.video_id, status, error_class, error
        return Outcome(*names, attempts, started, now, cpu, rss, size)

    def _tried(self, task: Task) -> tuple[int, dict[str, list[Row]]]:
        """Give the number of attempts and the rows by key, or a row that says what went wrong."""
        error = MediaError("the process died of it", "crash")
        attempt = self._begin(task.source)
        while attempt <= MOST_ATTEMPTS:
            try:
                return attempt, self._looked_at(task, tolerant=attempt > 1)
            except MediaError as caught:
                error = caught
            except MemoryError:
                error = MediaError("scoring it needs more memory than there is", "oom")
            except ContentVError:
                raise
            except Exception as caught:  # noqa: BLE001 - a fault of ours costs one video, not all
                said = " ".join(str(caught).split())
                error = MediaError(f"{type(caught).__name__}: {said}", "crash")
            if error.cause in _HOPELESS:
                break
            attempt = self._begin(task.source)
        row = _failed(task.source, error)
        return min(attempt, MOST_ATTEMPTS), {self.job.chain.video_key: [row]}

    def _looked_at(self, task: Task, *, tolerant: bool) -> dict[str, list[Row]]:
        source, held = task.source, self._held(task)
        if source.fault:
            raise MediaError(source.fault, UNREADABLE)
        opened = Opened(self._shots, self._step)
        with _as_listed(source) as path:
            subject = Subject(source.video_id, source.kind, path, self.job.limits, tolerant)
            return look(subject, self.job.chain, opened, held)

    def _held(self, task: Task) -> dict[str, list[Row]]:
        """Rows that later stages build on, by key; of the others it is enough that they exist."""
        chain, held = self.job.chain, dict[str, list[Row]]()
        scores = {stage.key for stage in chain.after}
        for key in chain.columns.keys() - task.missing:
            rows = [] if key in scores else self._parts.read(key, task.source.video_id)
            if rows is not None:
                held[key] = [{n: v for n, v in row.items() if n != ID} for row in rows]
        return held

    def _shots(self, footage: Footage) -> ShotWatching:
        self._finder = self._finder or self.job.chain.shots.open()
        return self._finder.watch(footage)

    def _step(self, stage: Stage, footage: Footage) -> Watcher:
        if stage.key not in self._steps:
            self._steps[stage.key] = stage.open()
        return self._steps[stage.key].watch(footage)

    def _begin(self, source: Source) -> int:
        """Note the beginning of an attempt; give its number."""
        mark = self._mark(source)
        with os_errors(mark, "write"):
            mark.parent.mkdir(parents=True, exist_ok=True)
            with mark.open("ab") as file:
                file.write(b".")
            return mark.stat().st_size

    def _mark(self, source: Source) -> Path:
        return self.job.marks / source.video_id


def memory_in_use() -> int:
    """Bytes of memory that this process has; 0 where the system does not say."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return 0
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _as_listed(source: Source) -> Iterator[Path]:
    """Give a place where the video lies; MediaError when it is not there, or not to the end."""
    faults = [_change(file) for file in source.files]
    file, fault = next(
        (pair for pair in zip(source.files, faults, strict=True) if not pair[1]),
        (source.files[0], faults[0]),
    )
    if fault:
        raise MediaError(fault, UNREADABLE)
    try:
        yield file.path
    finally:
        if fault := _change(file):
            raise MediaError(fault, UNREADABLE)


def _change(file: File) -> str:
    try:
        same = stamp_of(file.path) == file.stamp
    except OSError as error:
        return describe_os_error(error)
    return "" if same else "has changed since it was listed"


def _failed(source: Source, error: MediaError) -> Row:
    """The row of a video of which nothing is known but why."""
    nothing: Row = dict.fromkeys(VIDEO_COLUMNS)
    said: Row = {"status": "failed", "error_class": error.cause, "error": str(error)}
    return {**nothing, "kind": source.kind, **said}


def _cpu() -> float:
    """Seconds of processor time of this process and of children that have ended."""
    return sum(os.times()[:4])
