"""What a curation step is: watches a video once, then scores each of its clips.

A score is a pure function of the file's bytes and the step's settings, so it is computed once.
Steps only measure: what a score means is decided by a policy, later (`selection/policy.py`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from contentv.base.config import Config
from contentv.data.manifest import Kind

Picture: TypeAlias = NDArray[np.uint8]
"""What `video.watching` shows: ``[27 48 3]`` thumbs, ``[h w]`` luma or ``[h w 3]`` samples."""

Stream: TypeAlias = Literal["thumbs", "luma", "samples"]

Value: TypeAlias = float | int | bool | str | list[float] | None
"""What a cell of the catalogue holds; None: could not be measured on this clip."""

Row: TypeAlias = dict[str, Value]


@dataclass(frozen=True)
class Footage:
    """A video or picture as it is shown: upright, square pixels. `fps` is 0 for a picture."""

    video_id: str
    path: Path
    kind: Kind
    width: int
    height: int
    fps: float
    time_base: Fraction
    first_pts: int


@dataclass(frozen=True)
class Span:
    """A clip: what lies in [start, end), in seconds after the first frame and in its time stamps.

    A picture (a file, or the key frame of a shot) begins and ends at the time of its one frame.
    """

    clip_id: str
    kind: Kind
    shot: int
    start: float
    end: float
    start_pts: int
    end_pts: int

    def holds(self, time: float) -> bool:
        """Whether a frame shown at `time` belongs to the clip."""
        return time == self.start if self.kind == "picture" else self.start <= time < self.end


@dataclass(frozen=True)
class Box:
    """A rectangle in parts of the picture's width and height: 0..1."""

    x: float
    y: float
    width: float
    height: float


WHOLE = Box(0.0, 0.0, 1.0, 1.0)


class Watcher(Protocol):
    """Watches one video. What it keeps must stay small however long the video is."""

    def see(self, time: float, picture: Picture) -> None:
        """Take the next picture of the step's stream, shown `time` seconds after the first."""

    def score(self, spans: Sequence[Span], crops: Sequence[Box]) -> list[Row]:
        """Give a row for each clip, after all pictures: every column of the step, None if unknown.

        `crops` are the parts of the picture that will be kept, one a clip; WHOLE while unknown.
        """


class Step(Protocol):
    """A scorer with its settings; one serves all videos of a process, models are loaded once.

    `version` goes up whenever equal input may give another score.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    stream: ClassVar[Stream]
    columns: ClassVar[Mapping[str, type]]

    @property
    def config(self) -> Config:
        """Every setting that a score depends on."""

    def watch(self, footage: Footage) -> Watcher:
        """Begin with a video."""


def key(name: str, version: int, config: Config, after: Sequence[str] = ()) -> str:
    """Name a step's results: equal keys, equal scores. `after`: keys of what it builds on."""
    said = "\n".join([config.model_dump_json(), *after])
    return f"{name}@{version}-{hashlib.blake2b(said.encode(), digest_size=6).hexdigest()}"


def clip_id(video_id: str, start_pts: int, end_pts: int, time_base: Fraction) -> str:
    """Name a clip by what it shows: 32 hex digits that survive renaming and re-running."""
    said = f"{video_id}|{start_pts}|{end_pts}|{time_base}"
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
