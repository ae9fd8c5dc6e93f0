"""A run over videos, whatever is to be done with each: what is missing is made, then gathered."""

import contextlib
import importlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from contentv.base.errors import UserError
from contentv.base.files import os_errors, remove
from contentv.base.progress import Progress, duration
from contentv.curation.catalogue import CLIPS, VIDEOS, read_columns
from contentv.curation.engine.events import Events
from contentv.curation.engine.gathering import Judging, gather
from contentv.curation.engine.scan import Scan
from contentv.curation.engine.tasks import tasks_of
from contentv.curation.engine.visit import Job, Outcome, Task

Engine: TypeAlias = Callable[[Job, Sequence[Task]], Generator[tuple[int, Outcome], None, None]]
"""Visits videos somewhere; gives each outcome with the number of the worker."""

EVENTS = "events.jsonl"
_ROUNDS = 3  # of mending parts that were found damaged


@dataclass(frozen=True)
class Summary:
    """What a run found and did. `failed` counts videos by class of error."""

    out: Path
    videos: int
    ok: int
    partial: int
    failed: Counter[str]
    places: int
    clips: int
    pictures: int
    duplicates: int
    visited: int
    passed_over: int
    seconds: float

    def __str__(self) -> str:
        failed = [(f"  {name}", count) for name, count in sorted(self.failed.items())]
        lines = [
            ("videos and pictures", self.videos),
            ("  ok", self.ok),
            ("  partial", self.partial),
            ("  failed", sum(self.failed.values())),
            *((f"  {name}", count) for name, count in failed),
            ("further copies of their files", self.places - self.videos),
            ("folders passed over", self.passed_over),
            ("clips", self.clips),
            ("pictures", self.pictures),
            ("duplicates among both", self.duplicates),
        ]
        table = [f"{name:<30} {count:>9}" for name, count in lines]
        took = f"{self.visited} visited in {duration(self.seconds)}; catalogue in {self.out}"
        return "\n".join([*table, took])


def work(
    scan: Scan, job: Job, engine: Engine, judging: Judging, again: Collection[str] = ()
) -> Summary:
    """Visit what has not been visited, or is in `again`, and write the catalogue.

    Call it `alone`. ContentVError when nothing can go on; all that was finished is kept.
    """
    started, parts, visited = time.monotonic(), job.parts, 0
    events = Events(job.out / EVENTS)
    events.note("run", {"videos": len(scan.videos), "passed_over": scan.notes})
    parts.sweep()
    remove(job.marks)
    for _ in range(_ROUNDS):
        parts.damaged = 0
        tasks = tasks_of(scan.videos, job.chain, parts, again)
        with contextlib.closing(engine(job, tasks)) as outcomes:
            shown = Progress(outcomes, "curating", total=len(tasks), stream=sys.stderr)
            for worker, outcome in shown:
                events.visited(worker, outcome)
        visited += len(tasks)
        again = ()
        for key, columns in job.chain.columns.items():
            parts.compact(key, columns)
        gather(job.out, scan.videos, job.chain, parts, judging)
        if not parts.damaged:
            break
    seconds = time.monotonic() - started
    events.note("end", {"visited": visited, "damaged_parts": parts.damaged, "seconds": seconds})
    return summary(job.out, scan, visited, seconds)


def summary(out: Path, scan: Scan, visited: int, seconds: float) -> Summary:
    """Count what is in a catalogue."""
    videos = read_columns(out, VIDEOS, ["status", "error_class"])
    clips = read_columns(out, CLIPS, ["kind", "dup_of"])
    states, kinds = Counter(videos["status"]), Counter(clips["kind"])
    pairs = zip(videos["status"], videos["error_class"], strict=True)
    return Summary(
        out=out,
        videos=len(scan.videos),
        ok=states["ok"],
        partial=states["partial"],
        failed=Counter(cause for status, cause in pairs if status == "failed"),
        places=sum(len(video.files) for video in scan.videos),
        clips=kinds["video"],
        pictures=kinds["picture"],
        duplicates=sum(bool(other) for other in clips["dup_of"]),
        visited=visited,
        passed_over=len(scan.notes),
        seconds=seconds,
    )


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold a catalogue's folder, which is made, for one run; UserError when another has it."""
    with os_errors(out, "write"):
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / "lock").open("w")
    with lock:
        try:
            with contextlib.suppress(ImportError):  # without POSIX nobody looks
                fcntl = importlib.import_module("fcntl")
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{out}: another run works on it; wait, or give --out") from error
        yield
