"""A small real curation: whole videos as shots, the mean brightness as the only score."""

import functools
import hashlib
import itertools
import os
import signal
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from contentv.base.config import Config
from contentv.curation.catalogue import CLIPS, EMBEDDINGS, VIDEOS
from contentv.curation.engine.chain import Chain, CropStage, ShotStage, Stage
from contentv.curation.engine.gathering import Judging
from contentv.curation.engine.pool import visit_in_processes
from contentv.curation.engine.scan import scan
from contentv.curation.engine.visit import Job, Outcome, Task, Visitor
from contentv.curation.engine.working import Engine, Summary, alone, work
from contentv.curation.settings import DedupSettings, LimitSettings
from contentv.curation.step import WHOLE, Box, Footage, Picture, Row, Span, Stream, clip_id, key
from contentv.video.io import write_video

HALVES = 2
SIZE = (64, 48)


class WholeShots:
    """One shot from the first frame to the last, in two clips of equal length and a key frame."""

    def watch(self, footage: Footage) -> "WholeShotsWatcher":
        return WholeShotsWatcher(footage)


class WholeShotsWatcher:
    def __init__(self, footage: Footage) -> None:
        self.footage = footage
        self.frames: list[tuple[float, int]] = []

    def see(self, time: float, pts: int, thumb: Picture, /) -> None:
        assert thumb.shape == (27, 48, 3)
        self.frames.append((time, pts))

    def spans(self, samples: Sequence[tuple[float, int]], /) -> list[Row]:
        last = len(self.frames) - 1
        edges = [self.frames[i * last // HALVES] for i in range(HALVES + 1)] if last > 1 else []
        rows = [self._row("video", begin, end) for begin, end in itertools.pairwise(edges)]
        return [*rows, self._row("picture", samples[0], samples[0])]

    def _row(self, kind: str, begin: tuple[float, int], end: tuple[float, int]) -> Row:
        name = clip_id(self.footage.video_id, begin[1], end[1], self.footage.time_base)
        span: Row = {"clip_id": name, "kind": kind, "shot": 0, "start": begin[0], "end": end[0]}
        stamps: Row = {"start_pts": begin[1], "end_pts": end[1], "begin": "start"}
        chances: Row = {"begin_probability": 1.0, "end_probability": 1.0}
        return {**span, **stamps, "end_kind": "end", **chances}


class BrightnessSettings(Config):
    """How brightness is measured, and what happens to the process that measures it."""

    scale: float = Field(1.0, gt=0, description="Factor")
    deadly: str = Field("", description="A file of this name ends the process that watches it")
    deaths: int = Field(0, ge=0, description="so many times")
    faulty: str = Field("", description="A file of this name raises a fault of ours")
    seconds: float = Field(0.0, ge=0, description="How long each picture takes")


class BrightnessStep:
    """The mean of a clip's samples inside its crop."""

    name: ClassVar[str] = "brightness"
    version: ClassVar[int] = 1
    stream: ClassVar[Stream] = "samples"
    columns: ClassVar[Mapping[str, type]] = {"brightness": float, "brightness_all": list}

    def __init__(self, config: BrightnessSettings) -> None:
        self.config = config

    def watch(self, footage: Footage) -> "BrightnessWatcher":
        if footage.path.name == self.config.deadly:
            died = footage.path.with_suffix(".died")
            with died.open("ab") as file:
                file.write(b".")
            if died.stat().st_size <= self.config.deaths:
                os.kill(os.getpid(), signal.SIGKILL)
        if footage.path.name == self.config.faulty:
            raise IndexError("a fault\nof ours")
        return BrightnessWatcher(self.config)


class BrightnessWatcher:
    def __init__(self, config: BrightnessSettings) -> None:
        self.config = config
        self.seen: list[tuple[float, float]] = []

    def see(self, at: float, picture: Picture) -> None:
        time.sleep(self.config.seconds)
        self.seen.append((at, float(picture.mean()) * self.config.scale))

    def score(self, spans: Sequence[Span], crops: Sequence[Box]) -> list[Row]:
        assert len(spans) == len(crops)
        return [self._row([value for at, value in self.seen if span.holds(at)]) for span in spans]

    def _row(self, values: list[float]) -> Row:
        if not values:
            return {"brightness": None, "brightness_all": None}
        return {"brightness": float(np.mean(values)), "brightness_all": values}


def whole_crops(
    footage: Footage, spans: Sequence[Span], rows: Mapping[str, list[Row]]
) -> list[Row]:
    assert footage.width > 0
    assert all(len(own) == len(spans) for own in rows.values())
    return [{"crop_x": 0.0, "crop_y": 0.0, "crop_width": 1.0, "crop_height": 1.0} for _ in spans]


def whole_box(_: Row) -> Box:
    return WHOLE


def small_chain(
    config: BrightnessSettings | None = None, limits: LimitSettings | None = None
) -> Chain:
    """Shots, a crop that keeps all, brightness before it and, as `later`, after it."""
    config = config or BrightnessSettings()
    shots = key("shots", 1, Config())
    crop = key("crop", 1, Config(), [shots])
    names = ["crop_x", "crop_y", "crop_width", "crop_height"]
    stage = Stage(
        name="brightness",
        key=key(BrightnessStep.name, BrightnessStep.version, config, [crop]),
        stream=BrightnessStep.stream,
        columns=BrightnessStep.columns,
        open=functools.partial(BrightnessStep, config),
    )
    return Chain(
        video_key=key("video", 1, limits or LimitSettings()),
        shots=ShotStage(shots, WholeShots),
        before=(),
        crop=CropStage(crop, dict.fromkeys(names, float), whole_crops, whole_box),
        after=(stage,),
    )


def write_videos(folder: Path, count: int, *, frames: int = 48) -> list[Path]:
    """Write small videos of one grey each, at 24 frames a second; the first are the longest."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        grey = 20 + 200 * number // count
        picture = np.full((SIZE[1], SIZE[0], 3), grey, np.uint8)
        paths.append(folder / f"video-{number:02d}.mp4")
        write_video(paths[-1], [picture] * (frames + count - number), fps=24)
    return paths


def small_job(out: Path, chain: Chain | None = None, limits: LimitSettings | None = None) -> Job:
    limits = limits or LimitSettings()
    return Job(out, chain or small_chain(limits=limits), limits)


def local(workers: int = 1) -> Engine:
    return functools.partial(visit_in_processes, workers=workers)


def here(job: Job, tasks: Sequence[Task]) -> Generator[tuple[int, Outcome], None, None]:
    """Visit in this process: for tests that are not about processes."""
    visitor = Visitor(job)
    for task in tasks:
        yield 1, visitor.visit(task)


def curate(
    folder: Path, job: Job, *, engine: Engine | None = None, again: Sequence[str] = ()
) -> Summary:
    """Run all: scan, visit, gather."""
    with alone(job.out):
        found = scan([folder], job.out / "files.parquet")
        return work(found, job, engine or here, Judging(DedupSettings()), again)


def content_hash(out: Path) -> str:
    """Of all tables, byte for byte."""
    digest = hashlib.blake2b()
    for name in (VIDEOS, CLIPS, EMBEDDINGS):
        digest.update((out / name).read_bytes())
    return digest.hexdigest()


def files_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
