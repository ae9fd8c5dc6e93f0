"""The steps that every video goes through, with their settings, and what builds on what.

    video → shots → text, overlays → crop → blur, motion, aesthetic, embedding, hashes

A step whose settings change is done again, and so is what builds on it; nothing else is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from contentv.base.config import Config
from contentv.curation.config import CurationSettings
from contentv.curation.cutting.division import divide
from contentv.curation.cutting.shots import VERSION as _SHOTS_VERSION
from contentv.curation.cutting.shots import Shot, ShotFinder, ShotWatcher
from contentv.curation.engine.chain import Chain, CropStage, ShotStage, Stage
from contentv.curation.scoring.aesthetic import AestheticStep, identified
from contentv.curation.scoring.blur import BlurStep
from contentv.curation.scoring.crop import box_of, crops
from contentv.curation.scoring.embedding import EmbeddingStep
from contentv.curation.scoring.hashes import HashStep
from contentv.curation.scoring.motion import MotionStep
from contentv.curation.scoring.overlays import OverlayStep
from contentv.curation.scoring.text import TextStep
from contentv.curation.settings import CropSettings, ShotSettings
from contentv.curation.step import Footage, Picture, Row, Span, key
from contentv.curation.tables import Columns

_VIDEO_VERSION = 1  # of what `video.watching` says and shows
_CROP_VERSION = 1

_CROP_COLUMNS: Columns = {
    "crop_x": float,
    "crop_y": float,
    "crop_width": float,
    "crop_height": float,
    "crop_lost": float,
    "crop_fault": str,
    "text_left_mean": float,
    "text_left_max": float,
}


def chain_of(settings: CurationSettings) -> Chain:
    """Give all steps with their keys. Loads no model; of those given by path, reads the bytes."""
    video = key("video", _VIDEO_VERSION, settings.limits)
    shots = key("shots", _SHOTS_VERSION, settings.shots)
    before = (
        _stage(TextStep, settings.text, [shots]),
        _stage(OverlayStep, settings.overlays, [shots]),
    )
    crop = key("crop", _CROP_VERSION, settings.crop, [stage.key for stage in before])
    after = (
        _stage(BlurStep, settings.blur, [crop]),
        _stage(MotionStep, settings.motion, [crop]),
        _stage(AestheticStep, identified(settings.aesthetic), [crop]),
        _stage(EmbeddingStep, settings.embedding, [shots]),
        _stage(HashStep, settings.hashes, [shots]),
    )
    finding = ShotStage(shots, partial(_Shots, settings.shots))
    cropping = CropStage(crop, _CROP_COLUMNS, partial(_crops, settings.crop), box_of)
    return Chain(video, finding, before, cropping, after)


def _stage(made: Any, config: Config, after: Sequence[str]) -> Stage:  # noqa: ANN401
    """`made` is a class of steps that takes its settings, each its own kind."""
    name = key(made.name, made.version, config, after)
    return Stage(made.name, name, made.stream, made.columns, partial(made, config))


def _crops(
    settings: CropSettings,
    footage: Footage,
    spans: Sequence[Span],
    rows: Mapping[str, list[Row]],
) -> list[Row]:
    return crops(footage, spans, rows[TextStep.name], rows[OverlayStep.name], settings)


class _Shots:
    """The finder of shots, with the division into spans."""

    def __init__(self, config: ShotSettings) -> None:
        self._config = config
        self._finder = ShotFinder(config)

    def watch(self, footage: Footage) -> "_Divided":
        watcher = self._finder.watch(footage) if footage.kind == "video" else None
        return _Divided(footage, self._config, watcher)


@dataclass(frozen=True)
class _Divided:
    """Watches for shots; a picture file has none, and is one span all the same."""

    footage: Footage
    config: ShotSettings
    watcher: ShotWatcher | None

    def see(self, time: float, pts: int, thumb: Picture, /) -> None:
        assert self.watcher, "a picture file has no thumbs"
        self.watcher.see(time, pts, thumb)

    def spans(self, samples: Sequence[tuple[float, int]], /) -> list[Row]:
        shots = self.watcher.shots() if self.watcher else []
        by_index = {shot.index: shot for shot in shots}
        spans = divide(shots, self.footage, samples, self.config)
        return [_span_row(span, by_index.get(span.shot)) for span in spans]


def _span_row(span: Span, shot: Shot | None) -> Row:
    return {
        "clip_id": span.clip_id,
        "kind": span.kind,
        "shot": span.shot,
        "start": span.start,
        "end": span.end,
        "start_pts": span.start_pts,
        "end_pts": span.end_pts,
        "begin": shot.begin if shot else "start",
        "end_kind": shot.end_kind if shot else "end",
        "begin_probability": shot.begin_probability if shot else 1.0,
        "end_probability": shot.end_probability if shot else 1.0,
    }
