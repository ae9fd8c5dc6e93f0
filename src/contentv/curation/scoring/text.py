"""Text in the picture: how much there is, and which of it was laid over the footage."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from contentv.curation.scoring.bands import Samples, SourceBands, lines, static
from contentv.curation.scoring.boxes import covered, flat, overlap
from contentv.curation.scoring.instants import inside
from contentv.curation.scoring.ocr import TextDetector
from contentv.curation.settings import TextSettings
from contentv.curation.step import WHOLE, Box, Footage, Picture, Row, Span, Stream


class TextStep:
    """Finds lines of text in the samples of a clip.

    `text_area_mean`, `text_area_max`: part of the picture under text, over the samples;
    `text_boxes`: lines in a sample, on average; `text_bands`: boxes around subtitles;
    `text_source_bands`: boxes around those of the whole source that stand there;
    `text_static`: boxes around lines that never move; `text_persistent`: whether the clip has
    bands or static lines; `text_scene`: like `text_area_mean`, of the other lines; `text_lines`:
    each line as number of the sample, x, y, width, height; `text_samples`: how many there are.
    Boxes are x, y, width, height in parts of the picture, one after the other.
    """

    name: ClassVar[str] = "text"
    version: ClassVar[int] = 1
    stream: ClassVar[Stream] = "samples"
    columns: ClassVar[Mapping[str, type]] = {
        "text_samples": int,
        "text_area_mean": float,
        "text_area_max": float,
        "text_boxes": float,
        "text_bands": list,
        "text_source_bands": list,
        "text_static": list,
        "text_persistent": bool,
        "text_scene": float,
        "text_lines": list,
    }

    def __init__(self, config: TextSettings) -> None:
        self._config = config

    @property
    def config(self) -> TextSettings:
        """What the scores depend on, beside the network in `ocr.MODEL`."""
        return self._config

    @cached_property
    def detector(self) -> TextDetector:
        """The network, loaded when the first picture comes."""
        return TextDetector(limit_side=self.config.limit_side, min_score=self.config.min_score)

    def watch(self, footage: Footage) -> "TextWatcher":
        """Begin with a video."""
        return TextWatcher(self, footage.width / footage.height)


class TextWatcher:
    """Keeps where the lines of each sample are: `aspect` is the picture's width over height."""

    def __init__(self, step: TextStep, aspect: float) -> None:
        self._step, self._aspect = step, aspect
        self._times: list[float] = []
        self._found: list[NDArray[np.float64]] = []

    def see(self, time: float, picture: Picture) -> None:
        """Look for text in the next sample."""
        found = lines(self._step.detector(picture), self._aspect, self._step.config)
        self._times.append(time)
        self._found.append(np.array(flat(found)).reshape(-1, 4))

    def score(self, spans: Sequence[Span], crops: Sequence[Box]) -> list[Row]:  # noqa: ARG002 - text decides the crop, not the other way round
        """Give a row for each clip: always of the whole picture."""
        seen = [self._samples(span) for span in spans]
        clips = [samples for span, samples in zip(spans, seen, strict=True) if span.kind == "video"]
        source = SourceBands(clips, self._aspect, self._step.config)
        return [_row(samples, source, self._step.config) for samples in seen]

    def _samples(self, span: Span) -> Samples:
        shown = (self._found[index] for index in inside(self._times, span))
        return [[Box(*map(float, box)) for box in found] for found in shown]


def _row(samples: Samples, source: SourceBands, settings: TextSettings) -> Row:
    if not samples:
        return dict.fromkeys(TextStep.columns)
    bands, still = source.bands(samples), static(samples, settings)
    laid_over = [*bands, *still]
    scene = [[line for line in shown if not _under(line, laid_over)] for shown in samples]
    areas = [covered(shown, WHOLE) for shown in samples]
    return {
        "text_samples": len(samples),
        "text_area_mean": float(np.mean(areas)),
        "text_area_max": max(areas),
        "text_boxes": sum(map(len, samples)) / len(samples),
        "text_bands": flat(bands),
        "text_source_bands": flat(source.around(bands)),
        "text_static": flat(still),
        "text_persistent": bool(laid_over),
        "text_scene": float(np.mean([covered(shown, WHOLE) for shown in scene])),
        "text_lines": [
            number
            for sample, shown in enumerate(samples)
            for line in shown
            for number in (float(sample), *flat([line]))
        ],
    }


def _under(line: Box, boxes: Sequence[Box]) -> bool:
    return any(overlap(line, box) > 0 for box in boxes)
