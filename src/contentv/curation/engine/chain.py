"""What is done with a video, in order: shots, what lies on the picture, the crop, scores of it.

Each stage has a key (`step.key`), which changes with its settings and with those before it. Models
are loaded where a stage is opened, so naming what is missing costs nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

from contentv.curation.step import Box, Footage, Picture, Row, Span, Step, Stream
from contentv.curation.tables import Columns

SPAN_COLUMNS: Columns = {
    "clip_id": str,
    "kind": str,
    "shot": int,
    "start": float,
    "end": float,
    "start_pts": int,
    "end_pts": int,
    "begin": str,
    "end_kind": str,
    "begin_probability": float,
    "end_probability": float,
}
"""A row of the shots: a span, and how the shot it lies in begins and ends."""

VIDEO_COLUMNS: Columns = {
    "kind": str,
    "container": str,
    "codec": str,
    "width": int,
    "height": int,
    "sar": float,
    "rotation": int,
    "fps": float,
    "vfr": bool,
    "duration": float,
    "frames": int,
    "bit_depth": int,
    "interlaced": bool,
    "hdr": bool,
    "time_base": str,
    "first_pts": int,
    "status": str,
    "error_class": str,
    "error": str,
    "attempts": int,
    "decode_errors": int,
}
"""A row about a file: what it is, and how watching it went. Width and height are as shown."""


class ShotWatching(Protocol):
    """Watches the thumbs of one video; of a picture file there are none."""

    def see(self, time: float, pts: int, thumb: Picture, /) -> None:
        """Take the next frame."""

    def spans(self, samples: Sequence[tuple[float, int]], /) -> list[Row]:
        """Give the spans, as rows, after all frames; `samples` are time and pts of the samples."""


class ShotFinding(Protocol):
    """Finds the shots of videos; one serves all of a process."""

    def watch(self, footage: Footage) -> ShotWatching:
        """Begin with a video."""


def span_of(row: Row) -> Span:
    """Give the span that a row of the shots describes."""
    return Span(**{field.name: row[field.name] for field in fields(Span)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Stage:
    """A step by its key, with what it watches and the columns it gives; `open` loads it."""

    name: str
    key: str
    stream: Stream
    columns: Columns
    open: Callable[[], Step]


@dataclass(frozen=True)
class ShotStage:
    """How shots and spans are found."""

    key: str
    open: Callable[[], ShotFinding]


@dataclass(frozen=True)
class CropStage:
    """How the part of the picture that is kept is found, from the rows of the stages before it.

    `crops` gets them by the stages' names, one row a span; `box` reads what it gives.
    """

    key: str
    columns: Columns
    crops: Callable[[Footage, Sequence[Span], Mapping[str, list[Row]]], list[Row]]
    box: Callable[[Row], Box]


@dataclass(frozen=True)
class Chain:
    """All stages. `video_key` names how files are opened; it comes first. Can be pickled."""

    video_key: str
    shots: ShotStage
    before: tuple[Stage, ...]
    crop: CropStage
    after: tuple[Stage, ...]

    @property
    def scores(self) -> dict[str, Columns]:
        """The columns that each key adds to a span, in the order of work."""
        stages: list[Stage | CropStage] = [*self.before, self.crop, *self.after]
        return {stage.key: stage.columns for stage in stages}

    @property
    def columns(self) -> dict[str, Columns]:
        """The columns in the parts of every key, in the order of work."""
        whole = {self.video_key: VIDEO_COLUMNS, self.shots.key: SPAN_COLUMNS}
        return {**whole, **{key: {"clip_id": str, **own} for key, own in self.scores.items()}}
